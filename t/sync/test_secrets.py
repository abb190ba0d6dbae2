"""Secrets: if others can read them, pat-sync warns; if others can change or replace them, it does not start."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from authority import Authority
from feed_server import Feed
from postgresql import PostgreSQL, new_database, prepare
from sidecar import PAT_SYNC, environment, once
from store import Store

SECRET = "s3cr3t-w0rd"
READABLE = "others can read it: run chmod o= on it, unless this host or container has no other users"

Arguments = Callable[[Path], list[str]]

# A file with a secret, and how pat-sync is told of it. Each fails later, as nobody answers.
KINDS: dict[str, tuple[str, Arguments]] = {
    "password": (SECRET, lambda path: ["--source", "postgresql://e@127.0.0.1:1/p", "--password-file", str(path)]),
    "token": (SECRET, lambda path: ["--source", "https://127.0.0.1:1/", "--token-file", str(path)]),
    "configuration": (f"source = postgresql://e:{SECRET}@127.0.0.1:1/p", lambda path: ["--config", str(path)]),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "secrets"
    made.mkdir(mode=0o755)
    return made


def write(folder: Path, kind: str, mode: int) -> Path:
    path = folder / kind
    path.write_text(f"{KINDS[kind][0]}\n")
    path.chmod(mode)
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", [0o400, 0o440, 0o444, 0o600, 0o640, 0o644, 0o604])
def test_a_secret_that_others_can_read_is_told(kind: str, mode: int, folder: Path, store: Store) -> None:
    path = write(folder, kind, mode)
    done = once("--store", store.folder, *KINDS[kind][1](path))
    assert done.returncode == 1
    assert "Connection refused" in done.stderr
    assert (READABLE in done.stderr) == (mode & 0o004 != 0)
    assert ("warning: " in done.stderr) == (mode & 0o004 != 0)
    assert SECRET not in done.stderr


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o664, 0o646, 0o666])
def test_a_secret_that_others_can_write_is_refused(kind: str, mode: int, folder: Path, store: Store) -> None:
    path = write(folder, kind, mode)
    done = once("--store", store.folder, *KINDS[kind][1](path))
    assert done.returncode == 2
    assert f'"{path}": others can change it; chmod go-w "{path}"' in done.stderr


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("mode", "is_good"), [(0o777, False), (0o775, False), (0o1777, True), (0o755, True)])
def test_a_secret_that_others_can_replace_is_refused(
    kind: str, mode: int, is_good: bool, folder: Path, store: Store
) -> None:
    path = write(folder, kind, 0o600)
    folder.chmod(mode)
    done = once("--store", store.folder, *KINDS[kind][1](path))
    assert done.returncode == (1 if is_good else 2)
    assert (f'"{path}": others can replace it; chmod go-w "{folder}"' in done.stderr) != is_good


@pytest.mark.parametrize("kind", KINDS)
def test_a_link_to_a_secret_is_looked_at_too(kind: str, folder: Path, store: Store, tmp_path: Path) -> None:
    """Like Kubernetes, in a sticky folder."""
    links = tmp_path / "links"
    links.mkdir()
    path = links / kind
    path.symlink_to(write(folder, kind, 0o444))
    for mode, status in ((0o1777, 1), (0o777, 2)):
        links.chmod(mode)
        assert once("--store", store.folder, *KINDS[kind][1](path)).returncode == status
    links.chmod(0o755)
    folder.chmod(0o777)
    assert once("--store", store.folder, *KINDS[kind][1](path)).returncode == 2
    folder.chmod(0o755)
    tmp_path.chmod(0o777)
    assert once("--store", store.folder, *KINDS[kind][1](path)).returncode == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_of_folder", [False, True])
def test_a_link_between_two_others_is_looked_at_too(
    kind: str, is_of_folder: bool, folder: Path, store: Store, tmp_path: Path
) -> None:
    """first/link -> between/link -> secrets: others who can write to the middle folder control the target."""
    path = write(folder, kind, 0o600)
    for name in ("first", "between"):
        (tmp_path / name).mkdir()
    (tmp_path / "between" / "link").symlink_to("../secrets" if is_of_folder else path)
    (tmp_path / "first" / "link").symlink_to(tmp_path / "between" / "link")
    named = tmp_path / "first" / "link"
    named = named / kind if is_of_folder else named
    assert once("--store", store.folder, *KINDS[kind][1](named)).returncode == 1
    for place in ("between", "first"):
        (tmp_path / place).chmod(0o777)
        done = once("--store", store.folder, *KINDS[kind][1](named))
        assert done.returncode == 2
        assert f'"{named}": others can replace it; chmod go-w "{tmp_path / place}"' in done.stderr
        (tmp_path / place).chmod(0o755)
    if os.geteuid() == 0:
        os.chown(tmp_path / "between" / "link", 65534, -1, follow_symlinks=False)
        done = once("--store", store.folder, *KINDS[kind][1](named))
        assert done.returncode == 2
        assert "belongs to another user" in done.stderr


@pytest.mark.parametrize("content", [f"\ufeff{SECRET}\n", "s\xe9cret\n", "a\0b\n", "two words\n", "a\x0bb\n"])
def test_a_token_that_no_header_has_is_refused(content: str, folder: Path, store: Store) -> None:
    path = folder / "token"
    path.write_text(content)
    path.chmod(0o600)
    done = once("--store", store.folder, *KINDS["token"][1](path))
    assert done.returncode == 2
    assert f'"{path}": a token has only printable ASCII characters' in done.stderr
    assert content.strip() not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can give a folder away")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("levels", [1, 2])
def test_a_folder_on_the_way_belongs_to_nobody_else(
    kind: str, levels: int, folder: Path, store: Store, tmp_path: Path
) -> None:
    """Others could rename the files in it."""
    place = folder / "a" / "b"
    place.mkdir(parents=True)
    path = write(place, kind, 0o600)
    theirs = path.parents[levels]
    os.chown(theirs, 65534, -1)
    done = once("--store", store.folder, *KINDS[kind][1](path))
    assert done.returncode == 2
    assert f'"{path}": "{theirs}" belongs to another user, who can replace it; chown -h root "{theirs}"' in done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_links_of_kubernetes_are_followed(kind: str, folder: Path, store: Store) -> None:
    """It replaces all secrets of a folder by one rename."""
    version = folder / "..2026_11_30"
    version.mkdir(mode=0o755)
    write(version, kind, 0o644)
    (folder / "..data").symlink_to(version.name)
    (folder / kind).symlink_to(f"..data/{kind}")
    folder.chmod(0o1777)
    done = once("--store", store.folder, *KINDS[kind][1](folder / kind))
    assert done.returncode == 1
    assert READABLE in done.stderr
    assert "Connection refused" in done.stderr
    version.chmod(0o777)
    assert once("--store", store.folder, *KINDS[kind][1](folder / kind)).returncode == 2


@pytest.mark.parametrize("name", ["sslkey", "sslcert", "sslrootcert"])
@pytest.mark.parametrize("is_in_environment", [False, True])
def test_files_that_only_libpq_knows_are_looked_at_too(
    name: str, is_in_environment: bool, authority: Authority, folder: Path, store: Store
) -> None:
    path = Path(shutil.copy(authority.key, folder / name))
    url = "postgresql://e@127.0.0.1:1/p"
    env = {"PAT_SYNC_SOURCE": url, f"PG{name.upper()}": str(path)}
    if not is_in_environment:
        env = {"PAT_SYNC_SOURCE": f"{url}?{name}={path}"}
    arguments = ("--store", store.folder)
    path.chmod(0o444)
    done = once(*arguments, env=env)
    assert done.returncode == 1
    assert (READABLE in done.stderr) == (name == "sslkey")
    path.chmod(0o446)
    done = once(*arguments, env=env)
    assert done.returncode == 2
    assert f'"{path}": others can change it' in done.stderr
    path.chmod(0o400)
    folder.chmod(0o777)
    assert once(*arguments, env=env).returncode == 2


@pytest.mark.parametrize("name", ["ca", "certificate", "key"])
def test_what_tls_relies_on_is_for_nobody_else_to_replace(
    name: str, authority: Authority, folder: Path, store: Store
) -> None:
    files = {"ca": authority.ca, "certificate": authority.certificate, "key": authority.key}
    files[name] = Path(shutil.copy(files[name], folder / name))
    arguments = ("--store", store.folder, "--source", "https://127.0.0.1:1/", "--ca-file", files["ca"],
                 "--client-cert", files["certificate"], "--client-key", files["key"])  # fmt: skip
    files[name].chmod(0o444)
    done = once(*arguments)
    assert done.returncode == 1
    assert (READABLE in done.stderr) == (name == "key")
    files[name].chmod(0o466)
    assert once(*arguments).returncode == 2
    files[name].chmod(0o400)
    folder.chmod(0o777)
    assert once(*arguments).returncode == 2


@pytest.mark.skipif(
    subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0,
    reason="NOT TESTED: only root can mount",
)
def test_a_secret_on_a_mount_that_is_read_only(store: Store, tmp_path: Path) -> None:
    """Like those of Docker and Kubernetes."""
    secrets = tmp_path / "run"
    secrets.mkdir()
    mount = 'mount -t tmpfs -o mode=755 tmpfs "$1" && echo x > "$1/token" && chmod 444 "$1/token"'
    script = f'{mount} && mount -o remount,ro "$1" && ! chmod o= "$1/token" 2> /dev/null && shift && exec "$@"'
    with Feed() as feed:
        feed.bearer = "x"
        feed.put("a")
        command = ["unshare", "--mount", "sh", "-c", script, "sh", secrets, PAT_SYNC, "--once", "--source", feed.url,
                   "--store", store.folder, "--token-file", secrets / "token"]  # fmt: skip
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False,
                              env=environment())
    assert done.returncode == 0, done.stderr
    assert READABLE in done.stderr


@pytest.mark.parametrize("mode", [0o400, 0o444, 0o440])
def test_postgresql_gets_a_key_that_others_can_read(
    mode: int, authority: Authority, folder: Path, store: Store
) -> None:
    """libpq itself refuses such a key."""
    key = Path(shutil.copy(authority.key, folder / "key"))
    key.chmod(mode)
    with PostgreSQL(fsync=False) as server:
        server.start()
        for name, file in {"cert": authority.certificate, "key": authority.key, "ca": authority.ca}.items():
            copy = Path(shutil.copy(file, server.data / f"tls.{name}"))
            copy.chmod(0o600)
            os.chown(copy, server.data.stat().st_uid, -1)
            server.configure(f"ssl_{name}_file", f"tls.{name}")
        server.configure("ssl", "on")
        server.restart()
        prepare(server)
        with new_database(server, "shop_tls") as database, database.connect() as owner:
            (server.data / "pg_hba.conf").write_text(
                "hostssl all edge 127.0.0.1/32 trust clientcert=verify-ca\n"
                "host all all 127.0.0.1/32 trust\nlocal all all trust\n"
            )
            owner.execute("SELECT pg_reload_conf()")
            owner.execute("SELECT pat.issue('user:1')")
            url = f"{database.url('edge')}?sslmode=verify-full"
            done = once("--source", url, "--store", store.folder, "--ca-file", authority.ca,
                        "--client-cert", authority.certificate, "--client-key", key)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert store.stats()["meta_tokens"] == 1
