"""pat-sync itself: options, secrets, exit codes, signals, the supervisor, metrics, status."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from basics import DEADLINE, PATCTL, ROOT, VERSION, free_port, wait_until
from feed_server import Feed
from sidecar import PAT_SYNC, PatSync, environment, once, pat_sync, scrape, value
from store import Store, stopped_writer

FAST = ("--poll-interval", "0.1", "--heartbeat-interval", "0.3", "--query-timeout", "1")
PASSWORD = "s3cr3t-pa55"


def follow(feed: Feed, store: Store, *arguments: str | Path, env: dict[str, str] | None = None) -> PatSync:
    return PatSync("--source", feed.url, "--store", store.folder, *FAST, *arguments, env=env)


# --- options ---


def test_options_come_from_arguments_environment_and_file_in_this_order(
    feed: Feed, store: Store, tmp_path: Path
) -> None:
    config = tmp_path / "pat-sync.conf"
    config.write_text(f"# a comment\nsource = {feed.url}\nstore = {tmp_path / 'nowhere'}\nbatch = 7\n")
    assert once("--config", config).returncode == 1
    assert once("--config", config, env={"PAT_SYNC_STORE": str(store.folder)}).returncode == 0
    env = {"PAT_SYNC_STORE": str(tmp_path / "nowhere")}
    assert once("--config", config, "--store", store.folder, env=env).returncode == 0
    env = {"PAT_SYNC_SOURCE": feed.url, "PAT_SYNC_STORE": str(store.folder)}
    assert once(env=env).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["--source", "https://x/"], "no --store is given"),
        (["--store", "/x"], "no --source is given"),
        (["--source", "ftp://x/", "--store", "/x"], 'not "ftp"'),
        (["--source", "nonsense", "--store", "/x"], "the source is not a URL"),
        (["--source", "file://host/x", "--store", "/x"], "not of the form file:///path"),
        (["--source", "https://x/", "--store", "/x", "--batch", "0"], "--batch"),
        (["--source", "https://x/", "--store", "/x", "--batch", "x"], "--batch"),
        (["--source", "https://x/", "--store", "/x", "--poll-interval", "0"], "--poll-interval"),
        (["--source", "https://x/", "--store", "/x", "--colour=red"], "--colour"),
        (["--source", "https://x/", "--store", "/x", "--client-cert", "/x"], "belong together"),
        (["--source", "https://x/", "--store", "/x", "--metrics-listen", "0.0.0.0:9"], "not a loopback address"),
        (["--source", "https://x/", "--store", "/x", "--metrics-listen", "127.0.0.1:0"], "HOST:PORT"),
        (["--source", "https://x/", "--store", "/x", "--metrics-listen", "localhost:x"], "HOST:PORT"),
        (["--source", "postgresql://h:x/", "--store", "/x"], "the port of the source is not a number"),
        (["--source", "postgresql://h/?colour=red", "--store", "/x"], "not a URL that PostgreSQL understands"),
        (["dance", "--source", "https://x/", "--store", "/x"], "dance"),
    ],
)
def test_wrong_options_are_told_with_status_2(arguments: list[str], cause: str) -> None:
    done = pat_sync(*arguments)
    assert done.returncode == 2
    assert cause in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["--ca-file", "/nowhere"], 'cannot read "/nowhere"'),
        (["--token-file", "/nowhere"], 'cannot read "/nowhere"'),
        (["--client-cert", "/nowhere", "--client-key", "/nowhere"], 'cannot read "/nowhere"'),
        (["--patctl", "/nowhere"], '"/nowhere" is not a program'),
        (["--config", "/nowhere"], 'cannot read "/nowhere"'),
    ],
)
def test_what_may_be_there_later_is_told_with_status_3(arguments: list[str], cause: str) -> None:
    """systemd restarts the unit after status 3."""
    done = pat_sync("--source", "https://x/", "--store", "/x", *arguments)
    assert done.returncode == 3
    assert cause in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_example_of_every_option_is_in_the_documentation() -> None:
    options = set(re.findall(r"^  --([a-z-]+)", pat_sync("--help").stdout, re.MULTILINE))
    documented = set(re.findall(r"^\| `--([a-z-]+)", (ROOT / "docs" / "pat-sync.md").read_text(), re.MULTILINE))
    assert options - {"help"} == documented


def test_every_metric_is_in_the_documentation_and_alerts_and_dashboard_name_no_other(feed: Feed, store: Store, tmp_path: Path) -> None:
    textfile = tmp_path / "pat.prom"
    assert once("--source", feed.url, "--store", store.folder, "--metrics-textfile", textfile).returncode == 0
    metrics = set(re.findall(r"^# TYPE (\S+)", textfile.read_text(), re.MULTILINE))
    documented = set(re.findall(r"^\| `(pat_sync_[a-z_]+)", (ROOT / "docs" / "pat-sync.md").read_text(), re.MULTILINE))
    assert metrics == documented
    for file in ("alerts.yml", "grafana.json"):
        named = set(re.findall(r"pat_sync_\w+", (ROOT / "scripts" / "prometheus" / file).read_text()))
        assert named and named <= metrics


def test_every_log_line_is_in_the_documentation() -> None:
    """Compares the first words, up to the first placeholder."""
    documentation = " ".join((ROOT / "docs" / "pat-sync.md").read_text().split())
    calls = re.compile(r"log\.(?:info|warning|error|critical)\(\s*\\?[\"'](.+?)[\"'],?\s*(?:\n|,|\))")
    found = 0
    for module in (ROOT / "scripts" / "pat_sync").rglob("*.py"):
        for text in calls.findall(module.read_text()):
            start = re.split(r"%|\"", text.replace("\\'", "'"))[0].strip()
            if len(start) > 5:
                found += 1
                assert start in documentation, (module.name, text)
    assert found > 15


# --- secrets ---


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://edge:{PASSWORD}@db.example/p",
        f"postgresql://db.example/p?password={PASSWORD}",
        f"postgresql://db.example/p?user=e&sslpassword={PASSWORD}",
        f"https://user:{PASSWORD}@feed.example/",
        f"https://feed.example/?access_token={PASSWORD}",
        f"https://feed.example/?api_key={PASSWORD}",
    ],
)
def test_a_secret_on_the_command_line_is_refused(url: str, tmp_path: Path) -> None:
    for arguments in (["--source", url], [f"--source={url}"]):
        done = pat_sync(*arguments, "--store", tmp_path)
        assert done.returncode == 2
        assert "--password-file" in done.stderr and "PAT_SYNC_SOURCE" in done.stderr
        assert PASSWORD not in done.stderr + done.stdout


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_a_configuration_file_with_a_password_should_be_private(mode: int, store: Store, tmp_path: Path) -> None:
    config = tmp_path / "pat-sync.conf"
    config.write_text(f"source = postgresql://edge:{PASSWORD}@127.0.0.1:1/p\nstore = {store.folder}\n")
    config.chmod(mode)
    done = once("--config", config)
    assert done.returncode == 1
    assert ("warning: " in done.stderr and "it has a password, and others can read it" in done.stderr) == (mode == 0o644)
    assert PASSWORD not in done.stderr


@pytest.mark.parametrize(
    ("mode", "owner", "cause"),
    [(0o660, 0, "others can change it"), (0o622, 0, "others can change it"), (0o600, 65534, "belongs to another user")],
)
@pytest.mark.parametrize("name", ["pat-sync.conf", "patctl", "bearer"])
def test_what_others_can_change_is_not_relied_upon(
    name: str, mode: int, owner: int, cause: str, feed: Feed, store: Store, tmp_path: Path
) -> None:
    if owner and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    config = tmp_path / "pat-sync.conf"
    patctl = tmp_path / "patctl"
    bearer = tmp_path / "bearer"
    bearer.write_text("x\n")
    bearer.chmod(0o600)
    config.write_text(f"source = {feed.url}\nstore = {store.folder}\npatctl = {patctl}\ntoken-file = {bearer}\n")
    shutil.copy(PATCTL, patctl)
    env = {"PAT_SYNC_PATCTL": str(patctl)}
    assert once("--config", config, env=env).returncode == 0
    (tmp_path / name).chmod(mode | (0o100 if name == "patctl" else 0))
    if owner:
        os.chown(tmp_path / name, owner, -1)
    done = once("--config", config, env=env)
    assert done.returncode == 2
    assert f'/{name}": ' in done.stderr and cause in done.stderr


@pytest.mark.parametrize("text", [f"host=h password={PASSWORD}", f"pwd {PASSWORD}", f"h={PASSWORD}://x"])
def test_a_source_that_is_no_url_is_not_shown(text: str, store: Store) -> None:
    for done in (
        once("--store", store.folder, env={"PAT_SYNC_SOURCE": text}),
        once("--source", text, "--store", store.folder),
    ):
        assert done.returncode == 2
        assert "the source is not a URL" in done.stderr
        assert PASSWORD not in done.stderr


@pytest.mark.parametrize(
    "line",
    [
        f"sorce = postgresql://edge:{PASSWORD}@127.0.0.1:1/p",
        f"source = postgresql://edge:{PASSWORD}@@127.0.0.1:1:2/p",
        f"source = postgresql://edge:{PASSWORD}@127.0.0.1:x/p",
        f"source = postgresql://edge:a/b{PASSWORD}@127.0.0.1:1/p",
        f"source = https://edge:{PASSWORD}@127.0.0.1:1/p",
        f"source = ftp://edge:{PASSWORD}@127.0.0.1:1/p",
        f"source = postgresql://edge@127.0.0.1:1/p?password={PASSWORD}&x",
    ],
)
def test_mistakes_in_a_configuration_file_show_no_password(line: str, store: Store, tmp_path: Path) -> None:
    config = tmp_path / "pat-sync.conf"
    config.write_text(f"{line}\nstore = {store.folder}\n")
    config.chmod(0o600)
    done = once("--config", config)
    assert done.returncode in (1, 2)
    assert PASSWORD not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_a_password_file_is_used_and_should_be_private(store: Store, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    arguments = ("--source", "postgresql://edge@127.0.0.1:1/p", "--store", store.folder, "--password-file", secret)
    for mode in (0o644, 0o600):
        secret.chmod(mode)
        done = once(*arguments)
        assert done.returncode == 1
        assert ("others can read it" in done.stderr) == (mode == 0o644)
        assert PASSWORD not in done.stderr


def test_patctl_gets_none_of_the_secrets(feed: Feed, store: Store) -> None:
    with follow(feed, store, env={"PAT_SYNC_CONFIG": "/dev/null", "PGPASSWORD": PASSWORD}) as sync:
        child = sync.child()
        inherited = Path(f"/proc/{child}/environ").read_bytes()
        assert PASSWORD.encode() not in inherited and b"PAT_SYNC" not in inherited


# --- PostgreSQL's options, without a server ---


@pytest.mark.parametrize(
    ("url", "env", "sslmode"),
    [
        ("postgresql://db.example/p", {}, "verify-full"),
        ("postgresql://127.0.0.1/p", {}, None),
        ("postgresql://localhost/p", {}, None),
        ("postgresql:///p", {}, None),
        ("postgresql:///p?host=/run/postgresql", {}, None),
        ("postgresql:///p", {"PGHOST": "db.example"}, "verify-full"),
        ("postgresql:///p?host=localhost,db.example", {}, "verify-full"),
        ("postgresql://localhost/p?hostaddr=192.0.2.1", {}, "verify-full"),
        ("postgresql:///p?service=x", {}, "verify-full"),
        ("postgresql://db.example/p?sslmode=require", {}, "require"),
        ("postgresql://db.example/p", {"PGSSLMODE": "require"}, None),
    ],
)
def test_tls_is_verified_unless_the_url_says_otherwise(
    url: str, env: dict[str, str], sslmode: str | None, tmp_path: Path
) -> None:
    """Calls the function directly, as no server supports all of these."""
    program = (
        "import sys; from pat_sync import log, configuration; from pat_sync.sources.postgresql import database;"
        "log.start();"
        "print(database.connection_parameters(configuration.read(sys.argv[1:])).get('sslmode'))"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-c", program, "--source", url, "--store", str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=True,
        env=environment({"PYTHONPATH": str(ROOT / "scripts"), **env}),
    )  # fmt: skip
    assert done.stdout.strip() == str(sslmode)
    assert ("use verify-full" in done.stderr) == (sslmode == "require" or "PGSSLMODE" in env)


# --- its life ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_within_a_second(feed: Feed, store: Store, number: signal.Signals) -> None:
    with follow(feed, store, "--heartbeat-interval", "60") as sync:
        wait_until(lambda: store.tokens() == {"a": "ok"}, "the token")
        child = sync.child()
        # It waits for an answer that would take half a minute.
        wait_until(lambda: feed.requests[-1][0].get("wait") == "30", "a request that waits")
        started = time.monotonic()
        sync.process.send_signal(number)
        assert sync.process.wait(DEADLINE) == 0
        # It takes less than a second where the machine has time for it.
        assert time.monotonic() - started < 10
        wait_until(lambda: not Path(f"/proc/{child}").exists(), "the end of patctl")
        assert sync.wait_for_line(f"info: stopping: {number.name}")


def test_patctl_ends_with_a_pat_sync_that_was_killed(feed: Feed, store: Store) -> None:
    with follow(feed, store) as sync:
        wait_until(lambda: store.tokens() == {"a": "ok"}, "the token")
        child = sync.child()
        sync.process.kill()
        sync.process.wait(DEADLINE)
        wait_until(lambda: not Path(f"/proc/{child}").exists(), "the end of patctl")
    assert once("--source", feed.url, "--store", store.folder).returncode == 0


def test_nothing_is_left_open_of_a_patctl_that_was_killed(feed: Feed, store: Store) -> None:
    def descriptors() -> list[str]:
        folder = Path(f"/proc/{sync.process.pid}/fd")
        return [os.readlink(file) for file in folder.iterdir() if "pipe" in os.readlink(file)]

    with follow(feed, store) as sync:
        sync.wait_for_line("the snapshot is in the store")
        before = len(descriptors())
        for number in range(3):
            os.kill(sync.child(), signal.SIGKILL)
            sync.wait_for_line("it was killed", number + 1)
            sync.wait_for_line('store ".*" is ready', number + 1)
            assert len(descriptors()) == before


def test_a_patctl_that_was_stopped_goes_on(feed: Feed, store: Store) -> None:
    with follow(feed, store) as sync:
        wait_until(lambda: store.tokens() == {"a": "ok"}, "the token")
        child = sync.child()
        os.kill(child, signal.SIGSTOP)
        feed.put("b")
        wait_until(lambda: feed.requests[-1][0].get("after") == "2", "the change to be sent")
        os.kill(child, signal.SIGCONT)
        wait_until(lambda: len(store.tokens()) == 2, "the change")
        assert not sync.find("failed")


@pytest.mark.parametrize("is_running", [True, False], ids=["while it follows", "when it starts"])
def test_a_patctl_that_waits_for_another_says_so_and_goes_on(feed: Feed, store: Store, is_running: bool) -> None:
    assert once("--source", feed.url, "--store", store.folder).returncode == 0
    with ExitStack() as stack:
        if is_running:
            sync = stack.enter_context(follow(feed, store))
            sync.wait_for_line("is ready")
        with stopped_writer(store.folder) as writer:
            if not is_running:
                sync = stack.enter_context(follow(feed, store))
            feed.put("b")
            waits = f'warning: patctl: store "{store.folder}": waiting for process {writer} \\(patctl\\)'
            sync.wait_for_line(waits)
        wait_until(lambda: "b" in store.tokens(), "the change")
        assert len(sync.find(waits)) == 1
        assert not sync.find("failed")


def test_failing_is_no_busy_loop(store: Store) -> None:
    with PatSync("--source", f"http://127.0.0.1:{free_port()}/", "--store", store.folder) as sync:
        started = time.monotonic()
        sync.wait_for_line("trying again in", 6)
        wait_until(lambda: time.monotonic() > started + 3, "three seconds")
        used = sum(int(field) for field in Path(f"/proc/{sync.process.pid}/stat").read_text().split()[13:15])
        lines = len(sync.find("trying again"))
        waited = [float(text) for line in sync.log for text in re.findall("trying again in ([0-9.]+) s", line)]
        assert all(seconds <= 0.05 + 0.1 * 2**number for number, seconds in enumerate(waited))
        assert lines < 30
        assert used < 200  # hundredths of a second
        assert "Connection refused" in sync.log[-1]


def test_what_the_supervisor_is_told(feed: Feed, store: Store, tmp_path: Path) -> None:
    address = tmp_path / "notify"
    messages: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(address))
        listening.settimeout(DEADLINE)

        def receive(wanted: str) -> None:
            while wanted not in messages:
                messages.append(listening.recv(4096).decode())

        env = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "1000000"}
        with follow(feed, store, env=env) as sync:
            receive("READY=1")
            receive("STATUS=the store has everything")
            receive("WATCHDOG=1")
            messages.clear()
            receive("WATCHDOG=1")

            # A source that hangs is no reason to be killed.
            feed.faults.append(feed.hang)
            receive("STATUS=the source failed: it did not answer in time")
            messages.clear()
            receive("WATCHDOG=1")

            # A process that was stopped says nothing.
            sync.process.send_signal(signal.SIGSTOP)
            wait_until(lambda: Path(f"/proc/{sync.process.pid}/stat").read_text().split()[2] == "T", "the stop")
            listening.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    listening.recv(4096)
            sync.process.send_signal(signal.SIGCONT)
            listening.settimeout(DEADLINE)
            sync.process.terminate()
            receive("STOPPING=1")
            assert sync.process.wait(DEADLINE) == 0


def test_the_journal_gets_priorities(feed: Feed, store: Store, tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w+") as journal:
        status = os.fstat(journal.fileno())
        for stream, wanted in ((f"{status.st_dev}:{status.st_ino}", "<6>info: "), ("1:1", "info: ")):
            journal.truncate(0)
            journal.seek(0)
            subprocess.run(
                [PAT_SYNC, "--once", "--source", feed.url, "--store", str(store.folder)],
                stderr=journal, timeout=60, check=True, env=environment({"JOURNAL_STREAM": stream}),
            )  # fmt: skip
            journal.seek(0)
            assert all(line.startswith(wanted) for line in journal.read().splitlines())


def test_a_disk_that_is_full_is_told_and_waited_for(feed: Feed, tmp_path: Path) -> None:
    """Uses a fake patctl that reports it."""
    port = free_port()
    fake = tmp_path / "patctl"
    fake.write_text(
        "#!/usr/bin/python3\n"
        "import json, sys\n"
        "say = lambda **answer: print(json.dumps(answer), flush=True)\n"
        'say(answer="opened", state="ready", epoch="one", cursor="0", last_sequence=0, heartbeat=0, tokens=0)\n'
        "for number, line in enumerate(sys.stdin, 1):\n"
        "    line = json.loads(line)\n"
        '    if line["op"] == "commit":\n'
        '        say(answer="waiting", cause="No space left on device", milliseconds=100)\n'
        f'        open({str(tmp_path / "room")!r}).read()\n'
        '        say(answer="committed", line=number, cursor=line["cursor"], applied=1, older=0, rejected=0)\n'
        '    elif line["op"] == "heartbeat":\n'
        '        say(answer="heartbeat", line=number, at=1)\n'
    )
    fake.chmod(0o755)
    os.mkfifo(tmp_path / "room")
    arguments = ("--patctl", fake, "--source", feed.url, "--store", tmp_path, *FAST)
    with PatSync(*arguments, "--metrics-listen", f"127.0.0.1:{port}") as sync:
        sync.wait_for_line("error: patctl is waiting, nothing is lost: No space left on device; free space")
        assert "pat_sync_disk_full 1.0" in scrape(port)
        (tmp_path / "room").write_text("")
        sync.wait_for_line("info: patctl has continued")
        wait_until(lambda: "pat_sync_disk_full 0.0" in scrape(port), "room on the disk")
        assert "pat_sync_commits_total 1.0" in scrape(port)


# --- metrics ---


def test_metrics_are_served_and_say_what_happened(feed: Feed, store: Store) -> None:
    port = free_port()
    with follow(feed, store, "--metrics-listen", f"127.0.0.1:{port}") as sync:
        wait_until(lambda: store.tokens() == {"a": "ok"}, "the token")
        feed.put("b")
        feed.add({"op": "put", "digest": "0" * 64})
        feed.put("c")
        wait_until(lambda: store.tokens() == {name: "ok" for name in "abc"}, "the tokens")
        wait_until(lambda: value(scrape(port), "pat_sync_rejected_total") == 1, "a rejected line")
        wait_until(lambda: value(scrape(port), "pat_sync_heartbeat_timestamp_seconds") > 0, "a heartbeat")
        text = scrape(port)
        assert value(text, "pat_sync_applied_total") == 3  # two tokens, and that a third one is denied
        assert value(text, "pat_sync_snapshots_total") == 1
        assert value(text, "pat_sync_source_up") == 1
        assert 0 <= value(text, "pat_sync_lag_seconds") < 10
        assert abs(value(text, "pat_sync_last_success_timestamp_seconds") - time.time()) < 10
        assert abs(value(text, "pat_sync_heartbeat_timestamp_seconds") - time.time()) < 10
        assert value(text, 'pat_sync_snapshot_tokens{stage="read"}') == 1

        # A feed that fails is late, and more so with time.
        feed.faults.extend([feed.hang] * 100)
        sync.wait_for_line("did not answer in time")
        late = value(scrape(port), "pat_sync_lag_seconds")
        wait_until(lambda: value(scrape(port), "pat_sync_lag_seconds") > late + 1, "a longer lag")
        assert value(scrape(port), "pat_sync_source_up") == 0
        assert value(scrape(port), "pat_sync_reconnects_total") >= 1


def test_metrics_are_as_prometheus_wants_them(feed: Feed, store: Store, tmp_path: Path) -> None:
    """Checks what `promtool check metrics` does: HELP and TYPE, units, and "_total" in names."""
    textfile = tmp_path / "pat.prom"
    assert once("--source", feed.url, "--store", store.folder, "--metrics-textfile", textfile).returncode == 0
    text = textfile.read_text()
    assert textfile.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.glob("*pat.prom*")] == ["pat.prom"]
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    helps = dict(re.findall(r"^# HELP (\S+) (.+)$", text, re.MULTILINE))
    assert types.keys() == helps.keys()
    for name, kind in types.items():
        assert (kind == "counter") == name.endswith("_total"), name
        assert kind in ("counter", "gauge")
        assert re.fullmatch("pat_sync_[a-z_]+", name)
    assert "_created" not in text
    if shutil.which("promtool"):
        subprocess.run(["promtool", "check", "metrics"], input=text, text=True, check=True)


def test_a_port_that_is_taken_is_told(feed: Feed, store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = once("--source", feed.url, "--store", store.folder, "--metrics-listen", address)
    assert done.returncode == 3
    assert "--metrics-listen: Address already in use" in done.stderr


# --- status ---


def status(feed: Feed, store: Store) -> subprocess.CompletedProcess[str]:
    return pat_sync("status", "--source", feed.url, "--store", store.folder, *FAST)


def test_status_when_all_is_well(feed: Feed, store: Store) -> None:
    with follow(feed, store):
        wait_until(lambda: status(feed, store).returncode == 0, "all is well")
        done = status(feed, store)
        assert done.stdout.splitlines()[-1] == "all is well"
        assert "the store has everything" in done.stdout
        done = pat_sync("status", "--json", "--source", feed.url, "--store", store.folder)
        report = json.loads(done.stdout)
        assert report["running"] and report["is_current"] and not report["problems"]
        assert (report["state"], report["tokens"], report["cursor"]) == ("ready", 1, "1")


def test_status_when_nothing_is_well(feed: Feed, store: Store, tmp_path: Path) -> None:
    done = status(feed, store)
    assert done.returncode == 1
    assert "wrong: no pat-sync is running for this store" in done.stdout
    assert 'wrong: the store is "empty"' in done.stdout

    assert once("--source", feed.url, "--store", store.folder).returncode == 0
    feed.put("b")
    done = status(feed, store)
    assert done.returncode == 1
    assert "it has changes that the store lacks" in done.stdout
    assert "wrong: the store is behind its source" in done.stdout

    feed.faults.append(lambda handler: handler.answer(500))
    done = status(feed, store)
    assert "wrong: cannot read the source: it answers 500" in done.stdout

    done = pat_sync("status", "--source", feed.url, "--store", tmp_path / "nowhere")
    assert done.returncode == 1
    assert "wrong: cannot read the store" in done.stdout


def test_status_tells_of_an_old_heartbeat(feed: Feed, store: Store) -> None:
    with follow(feed, store):
        wait_until(lambda: status(feed, store).returncode == 0, "all is well")
        feed.faults.extend([feed.hang] * 100)
        wait_until(lambda: "wrong: the heartbeat is old" in status(feed, store).stdout, "an old heartbeat")


def test_status_does_not_call_it_well_while_the_store_is_behind(feed: Feed, store: Store) -> None:
    with follow(feed, store) as sync:
        wait_until(lambda: status(feed, store).returncode == 0, "all is well")
        # A store whose patctl does not move stays behind; its heartbeat is young for a while.
        child = sync.child()
        os.kill(child, signal.SIGSTOP)
        feed.put("b")
        done = pat_sync("status", "--source", feed.url, "--store", store.folder)
        os.kill(child, signal.SIGCONT)
        assert done.returncode == 1
        assert done.stdout.splitlines()[-1] == "wrong: the store is behind its source"
        # What has just changed is on its way.
        wait_until(lambda: status(feed, store).returncode == 0, "all is well again")
        for number in range(3):
            feed.put(f"c{number}")
            assert status(feed, store).returncode == 0


def test_status_tells_of_a_heartbeat_in_the_future(feed: Feed, store: Store, tmp_path: Path) -> None:
    """Uses a fake patctl that reports it."""
    fake = tmp_path / "patctl"
    fake.write_text(
        f'#!/bin/sh\n{PATCTL} "$@" | sed -E \'s/("heartbeat_age":)[0-9-]+/\\1-3600/\'\n'
    )
    fake.chmod(0o755)
    with follow(feed, store):
        wait_until(lambda: status(feed, store).returncode == 0, "all is well")
        done = pat_sync("status", "--source", feed.url, "--store", store.folder, "--patctl", fake)
    assert done.returncode == 1
    assert "wrong: the heartbeat is 3600 s in the future" in done.stdout


def test_once_tells_how_many_lines_were_rejected(feed: Feed, store: Store) -> None:
    feed.add({"op": "put", "digest": "no"})
    feed.faults.append(
        lambda handler: handler.lines(
            {"op": "snapshot_begin", "epoch": "one", "seq": 2},
            {"op": "put", "digest": "no"},
            {"op": "snapshot_end", "cursor": "2"},
        )
    )
    done = once("--source", feed.url, "--store", store.folder)
    assert done.returncode == 0
    assert "warning: rejected lines: 1" in done.stderr.splitlines()[-1]


# --- the unit ---


def unit(tmp_path: Path) -> Path:
    """The unit, with the path of the program adapted to this checkout."""
    text = (ROOT / "scripts" / "systemd" / "pat-sync.service").read_text()
    copy = tmp_path / "pat-sync.service"
    copy.write_text(text.replace("/usr/bin/pat-sync", PAT_SYNC))
    return copy


needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")


@needs_systemd
def test_the_unit_is_good(tmp_path: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit(tmp_path))], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_the_unit_exposes_little(tmp_path: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", str(unit(tmp_path))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_it_works_without_memory_that_can_be_written_and_executed(feed: Feed, store: Store) -> None:
    """Like MemoryDenyWriteExecute; by prctl if the kernel supports PR_SET_MDWE."""
    program = (
        "import ctypes, os, sys\n"
        "if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0): sys.exit(77)\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )
    for source, wanted in ((feed.url, 0), ("postgresql://edge@127.0.0.1:1/p", 1)):
        done = subprocess.run(
            ["/usr/bin/python3", "-c", program, PAT_SYNC, "--once", "--source", source, "--store", str(store.folder)],
            capture_output=True, text=True, timeout=60, check=False, env=environment(),
        )  # fmt: skip
        if done.returncode == 77:
            pytest.skip("the kernel does not know PR_SET_MDWE")
        assert done.returncode == wanted, done.stderr
    assert "Connection refused" in done.stderr


def test_it_is_found_where_it_is_installed(feed: Feed, store: Store, tmp_path: Path) -> None:
    prefix = tmp_path / "usr"
    (prefix / "bin").mkdir(parents=True)
    shutil.copy(PAT_SYNC, prefix / "bin" / "pat-sync")
    shutil.copytree(ROOT / "scripts" / "pat_sync", prefix / "lib" / "nginx-auth-pat" / "pat_sync")
    subprocess.run(
        [str(prefix / "bin" / "pat-sync"), "--once", "--source", feed.url, "--store", str(store.folder)],
        timeout=60, check=True, env=environment(), capture_output=True,
    )  # fmt: skip


def test_the_version_is_told(feed: Feed, store: Store, tmp_path: Path) -> None:
    assert pat_sync("--version").stdout == f"pat-sync {VERSION}\n"
    textfile = tmp_path / "pat.prom"
    once("--source", feed.url, "--store", store.folder, "--metrics-textfile", textfile)
    assert f'pat_sync_build_info{{version="{VERSION}"}} 1.0' in textfile.read_text()
