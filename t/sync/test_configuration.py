"""Only one configuration file is used, the named one or else the default; and pat-sync ignores the rest of the host."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from basics import PATCTL, ROOT, free_port
from feed_server import Feed
from sidecar import PAT_SYNC, environment, once
from store import Store

# A bearer token, a folder for metrics and a store that are another platform's.
BEARER = "first-platforms-bearer"

# /etc of this mount namespace gets a file, and whatever else it has. $1 is a new folder, $2 the file, the rest a command.
WITH_DEFAULT_FILE = """
    set -e
    mount -t tmpfs tmpfs "$1"
    cp -a /etc/. "$1"
    install -D -m 644 "$2" "$1/nginx-auth-pat/pat-sync.conf"
    mount --bind "$1" /etc
    shift 2
    exec "$@"
"""

has_namespaces = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0
needs_a_namespace = pytest.mark.skipif(not has_namespaces, reason="NOT TESTED: only root can have an /etc of its own")


class Host:
    """A host whose default configuration file belongs to another platform."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.etc = folder / "etc"
        self.etc.mkdir()
        self.default = folder / "default.conf"
        self.textfile = folder / "first.prom"
        bearer = folder / "bearer"
        bearer.write_text(f"{BEARER}\n")
        bearer.chmod(0o600)
        self.default.write_text(f"token-file = {bearer}\nmetrics-textfile = {self.textfile}\nbatch = 7\n")

    def run(self, *command: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        inside = ["unshare", "--mount", "sh", "-c", WITH_DEFAULT_FILE, "sh", self.etc, self.default, *command]
        clean = {name: value for name, value in environment().items() if name != "PAT_SYNC_CONFIG"}
        return subprocess.run(list(map(str, inside)), capture_output=True, text=True, timeout=300, check=False,
                              env={**clean, **(env or {})})


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


def credentials(feed: Feed) -> list[str | None]:
    return [headers.get("authorization") for _, headers in feed.requests]


# --- one file ---


@needs_a_namespace
def test_the_default_file_counts_if_none_is_named(host: Host, feed: Feed, store: Store) -> None:
    done = host.run(PAT_SYNC, "--once", "--source", feed.url, "--store", store.folder)
    assert done.returncode == 0, done.stderr
    assert set(credentials(feed)) == {f"Bearer {BEARER}"}
    assert host.textfile.exists()


@needs_a_namespace
@pytest.mark.parametrize("how", ["--config FILE", "--config=FILE", "PAT_SYNC_CONFIG"])
@pytest.mark.parametrize("command", ["--once", "status"])
def test_a_file_that_is_named_replaces_the_default_one(
    how: str, command: str, host: Host, feed: Feed, store: Store, tmp_path: Path
) -> None:
    assert once("--source", feed.url, "--store", store.folder).returncode == 0
    feed.requests.clear()
    named = tmp_path / "second.conf"
    named.write_text(f"source = {feed.url}\nstore = {store.folder}\n")
    arguments = {"--config FILE": ["--config", str(named)], "--config=FILE": [f"--config={named}"]}.get(how, [])
    env = {"PAT_SYNC_CONFIG": str(named)} if how == "PAT_SYNC_CONFIG" else {}
    done = host.run(PAT_SYNC, command, *arguments, env=env)
    assert done.returncode == (0 if command == "--once" else 1), done.stderr
    assert credentials(feed) == [None]
    assert not host.textfile.exists()


@needs_a_namespace
def test_no_file_counts_if_none_is_wanted(host: Host, feed: Feed, store: Store) -> None:
    done = host.run(PAT_SYNC, "--once", "--config", os.devnull, "--source", feed.url, "--store", store.folder)
    assert done.returncode == 0, done.stderr
    assert set(credentials(feed)) == {None}


@needs_a_namespace
def test_an_argument_goes_before_the_environment(host: Host, feed: Feed, store: Store, tmp_path: Path) -> None:
    named = tmp_path / "second.conf"
    named.write_text(f"source = {feed.url}\nstore = {store.folder}\n")
    done = host.run(PAT_SYNC, "--once", "--config", named, env={"PAT_SYNC_CONFIG": str(host.default)})
    assert done.returncode == 0, done.stderr
    assert set(credentials(feed)) == {None}


@pytest.mark.parametrize(
    ("arguments", "text", "status", "cause"),
    [
        (["--config", "FILE", "--config", "FILE"], "", 2, "it is given twice"),
        (["--config", "FILE", "--config=/dev/null"], "", 2, "it is given twice"),
        (["--config", ""], "", 2, "--config is empty"),
        (["--config"], "", 2, "--config"),
        (["--config", "/nowhere/pat-sync.conf"], "", 3, 'cannot read "/nowhere/pat-sync.conf": No such file'),
        (["--config", "/"], "", 3, 'cannot read "/": Is a directory'),
        (["--config", "~"], "", 3, 'cannot read "~": No such file'),
        (["--config", "/etc/host*"], "", 3, 'cannot read "/etc/host*": No such file'),
        (["--config", "FILE"], "\udcff", 2, "is not UTF-8"),
        (["--config", "FILE"], "\nconfig = /dev/null\n", 2, 'line 2: "config" cannot be set in a configuration file'),
        (["--config", "FILE"], "[first]\nbatch = 1\n[second]\nbatch = 2\n", 2, 'line 4: "batch" is given twice'),
        (["--config", "FILE"], "batch = 1\n--batch 2\n", 2, 'line 2: "batch" is given twice'),
        (["--config", "FILE"], "# x\n = 7\n", 2, 'line 2 is not of the form "name = value"'),
        (["--config", "FILE"], "colour = red\n", 2, "--colour=red"),
    ],
)
def test_a_configuration_that_may_mean_another_one_is_refused(
    arguments: list[str], text: str, status: int, cause: str, store: Store, tmp_path: Path
) -> None:
    named = tmp_path / "second.conf"
    named.write_bytes(text.encode(errors="surrogateescape"))
    arguments = [argument.replace("FILE", str(named)) for argument in arguments]
    done = once("--source", "https://127.0.0.1:1/", "--store", store.folder, *arguments)
    assert (done.returncode, len(done.stderr.splitlines())) == (status, 1), done.stderr
    assert cause in done.stderr


@needs_a_namespace
def test_a_default_file_that_can_not_be_read_is_told(host: Host, tmp_path: Path) -> None:
    """It is an error: otherwise pat-sync would silently run with another configuration."""
    # Others may not be allowed into the folders above this repository either.
    unreadable = """
        chmod 600 /etc/nginx-auth-pat/pat-sync.conf
        mount --bind "$1" /mnt
        exec setpriv --reuid=nobody --clear-groups /mnt/scripts/pat-sync --once --source https://x/ --store "$2"
    """
    done = host.run("sh", "-ec", unreadable, "sh", ROOT, tmp_path)
    assert done.returncode == 3
    assert done.stderr == 'pat-sync: cannot read "/etc/nginx-auth-pat/pat-sync.conf": Permission denied\n'


# --- what a host has besides ---


def test_credentials_and_ways_of_the_environment_are_not_used(feed: Feed, store: Store, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login first password {BEARER}\n")
    (tmp_path / ".netrc").chmod(0o600)
    nowhere = f"http://127.0.0.1:{free_port()}"
    env = {
        "HOME": str(tmp_path), "NETRC": str(tmp_path / ".netrc"), "REQUESTS_CA_BUNDLE": "/nowhere",
        "CURL_CA_BUNDLE": "/nowhere", "http_proxy": nowhere, "HTTP_PROXY": nowhere, "ALL_PROXY": nowhere,
    }  # fmt: skip
    done = once("--source", feed.url, "--store", store.folder, env=env)
    assert done.returncode == 0, done.stderr
    assert set(credentials(feed)) == {None}


# --- tests and tours ---


def poison(host: Host) -> dict[str, str]:
    """A host where reading its configuration fails, and the environment of its administrator's shell."""
    host.default.write_text("colour = red\n")
    return {
        "PGHOST": "/nowhere", "PGSERVICE": "nowhere", "PGOPTIONS": "-c nonsense=1", "PGSSLMODE": "nonsense",
        "PAT_SYNC_SOURCE": "nonsense", "PAT_SYNC_TOKEN_FILE": "/nowhere", "PAT_SYNC_CONFIG": "/nowhere",
        "PAT_STORE": "/nowhere", "PAT_PEPPER_FILE": "/nowhere", "PATCTL": PATCTL,
    }  # fmt: skip


@needs_a_namespace
def test_a_host_that_is_poisoned_is_noticed(host: Host, tmp_path: Path) -> None:
    """Proves that the tests below can fail."""
    poison(host)
    done = host.run(PAT_SYNC, "--once", "--source", "https://x/", "--store", tmp_path)
    assert done.returncode == 2
    assert "--colour=red" in done.stderr


@needs_a_namespace
@pytest.mark.parametrize(
    "test",
    [
        "test_file.py::test_csv",
        "test_feed.py::test_a_snapshot_and_then_changes",
        "test_end_to_end.py::test_issue_use_revoke",
        "test_pat_sync.py::test_status_when_all_is_well",
        "test_usage.py::test_once_reports_what_there_is",
    ],
)
def test_tests_read_nothing_of_the_host(test: str, host: Host, tmp_path: Path) -> None:
    done = host.run("pytest-3", "-q", "-p", "no:cacheprovider", "--basetemp", tmp_path / "base",
                    ROOT / "t" / "sync" / test, env=poison(host))  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]


@needs_a_namespace
@pytest.mark.parametrize(
    "command",
    [
        ["t/bench/revocation-delay", "--revocations", "2"],
        ["t/bench/snapshot", "--tokens", "100"],
        ["scripts/quickstart", "--postgres", "--check"],
    ],
)
def test_tours_and_measurements_read_nothing_of_the_host(command: list[str], host: Host) -> None:
    done = host.run(ROOT / command[0], *command[1:], env=poison(host))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
