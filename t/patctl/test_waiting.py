"""A command that has to wait for another process that writes to the store."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from basics import DEADLINE, PATCTL
from conftest import YES, Patctl
from store import forged_writer, stopped_writer

DIGEST = "d" * 64


def start(patctl: Patctl, *arguments: str, input: str = "") -> subprocess.Popen[str]:
    with tempfile.TemporaryFile("w+") as file:
        file.write(input)
        file.seek(0)
        # What a shell starts in the background, such as these tests, ignores SIGINT.
        return subprocess.Popen([PATCTL, "--store", str(patctl.store), *arguments], stdin=file,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    assert select.select([process.stderr], [], [], DEADLINE)[0], "it says nothing"
    return process.stderr.readline()


def notice(patctl: Patctl, who: str, where: str = "") -> str:
    return (f'patctl: store "{patctl.store}": waiting for {who}, which is writing to it{where}: if it is stopped, '
            "continue it (kill -CONT), or kill it, which the store survives\n")


COMMANDS: dict[str, tuple[list[str], str]] = {
    "issue": (["issue", "--subject", "bob"], ""),
    "rotate": (["rotate", "old"], ""),
    "revoke": (["revoke", "--subject", "alice"], ""),
    "restore-access": (["restore-access", "--digest", DIGEST], ""),
    "import": (["import", "-"], json.dumps({"digest": DIGEST, "id": "new", "subject": "s"})),
    "import --local-revocations": (["import", "--local-revocations", "-"], ""),
    "apply": (["apply"], json.dumps({"op": "heartbeat", "at": 1700000000}) + "\n"),
    "accept-snapshot": (["accept-snapshot"], ""),
    "gc": (["gc"], ""),
    "convert": (["convert"], ""),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=list(COMMANDS))
def test_it_says_for_which_process_it_waits_and_goes_on(patctl: Patctl, command: tuple[list[str], str]) -> None:
    arguments, text = command
    patctl.load({"digest": DIGEST, "id": "old", "subject": "alice"})
    patctl.run("revoke", "--digest", DIGEST)
    if arguments[0] in ("rotate", "revoke"):
        patctl.run("restore-access", "--digest", DIGEST)
    with stopped_writer(patctl.store) as writer:
        started = time.monotonic()
        waiting = start(patctl, *arguments, input=text)
        assert first_line(waiting) == notice(patctl, f"process {writer} (patctl)")
        assert time.monotonic() - started > 0.9
        assert waiting.poll() is None
    output, rest = waiting.communicate(timeout=DEADLINE)
    assert waiting.returncode == YES, (output, rest)
    assert "waiting" not in rest


@pytest.mark.parametrize("is_there", [True, False])
def test_a_process_that_does_not_have_the_store_open_is_not_named(patctl: Patctl, is_there: bool) -> None:
    with ExitStack() as stack:
        other = stack.enter_context(subprocess.Popen(["sleep", "infinity"]))
        stack.callback(other.kill)
        if not is_there:
            other.kill()
            other.wait()
        with stopped_writer(patctl.store), forged_writer(patctl.store, other.pid):
            waiting = start(patctl, "revoke", "--subject", "alice")
            assert first_line(waiting) == notice(patctl, "another process",
                                                 " (fuser -v lists those that have its lock.mdb open)")
    waiting.communicate(timeout=DEADLINE)


def test_a_process_is_named_of_which_a_thread_writes(patctl: Patctl) -> None:
    is_over = threading.Event()
    thread = threading.Thread(target=is_over.wait)
    thread.start()
    try:
        with stopped_writer(patctl.store), (patctl.store / "lock.mdb").open("rb") as file:
            fcntl.lockf(file, fcntl.LOCK_SH, 1)
            assert thread.native_id is not None
            with forged_writer(patctl.store, thread.native_id):
                waiting = start(patctl, "revoke", "--subject", "alice")
                name = Path("/proc/self/comm").read_text().rstrip()
                assert first_line(waiting) == notice(patctl, f"process {os.getpid()} ({name})")
        waiting.communicate(timeout=DEADLINE)
    finally:
        is_over.set()
        thread.join()


def test_a_process_that_ends_while_another_waits_for_it_is_waited_for_no_longer(patctl: Patctl) -> None:
    token = patctl.issue()
    with stopped_writer(patctl.store) as writer:
        waiting = start(patctl, "revoke", "--subject", "alice")
        first_line(waiting)
        assert patctl.verdict(token) == "ok"
        os.kill(writer, signal.SIGKILL)
        assert waiting.wait(DEADLINE) == YES
        assert patctl.verdict(token) == "revoked"
    patctl.run("verify")
    assert patctl.json("stats")[0]["meta_tokens"] == 1


def test_who_does_not_want_to_wait_interrupts_it_and_nothing_is_changed(patctl: Patctl) -> None:
    token = patctl.issue()
    with stopped_writer(patctl.store):
        waiting = start(patctl, "revoke", "--subject", "alice")
        first_line(waiting)
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(DEADLINE) == -signal.SIGINT
    assert patctl.verdict(token) == "ok"


def test_commands_that_only_read_do_not_wait(patctl: Patctl) -> None:
    token = patctl.issue()
    with stopped_writer(patctl.store):
        assert patctl.verdict(token) == "ok"
        for command in ("list", "stats", "verify", "export"):
            assert "waiting" not in patctl.run(command).stderr
