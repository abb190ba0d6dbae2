"""What patctl does at a terminal: it asks for tokens, and fits tables to the width."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from basics import PATCTL, wait_until
from conftest import USAGE, YES, Patctl
from terminal import Terminal, a_terminal

SUBJECT = "user:" + "long" * 10


def heed_signals() -> None:
    """Who runs the tests may ignore some, as a shell does for what it starts in the background."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def asking(patctl: Patctl, *arguments: str) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    """patctl, as it waits for a token at a terminal."""
    with a_terminal() as terminal:
        process = subprocess.Popen([PATCTL, "--store", str(patctl.store), *arguments], stdin=terminal.slave,
                                   stdout=subprocess.PIPE, stderr=terminal.slave, process_group=0,
                                   preexec_fn=heed_signals)
        try:
            terminal.read_until("Token: ")
            yield terminal, process
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("arguments", [("revoke", "--token-stdin"), ("check",), ("show", "--token-stdin")])
def test_a_token_is_asked_for_and_not_shown(patctl: Patctl, arguments: tuple[str, ...]) -> None:
    token = patctl.issue()
    with asking(patctl, *arguments) as (terminal, process):
        assert not terminal.shows_input
        terminal.type(token + "\n")
        assert process.wait(60) == YES
        assert terminal.shows_input
        assert token not in terminal.read_rest()
        assert terminal.output == "Token: \n"
    assert patctl.verdict(token) == ("revoked" if "revoke" in arguments else "ok")


@pytest.mark.parametrize("typed", ["\n", "\x04", "short\n"])
def test_what_is_no_token_is_refused(patctl: Patctl, typed: str) -> None:
    with asking(patctl, "revoke", "--token-stdin") as (terminal, process):
        terminal.type(typed)
        assert process.wait(60) == USAGE
        assert terminal.shows_input


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1])
def test_a_signal_ends_it_and_the_terminal_is_as_before(patctl: Patctl, number: signal.Signals) -> None:
    with asking(patctl, "revoke", "--token-stdin") as (terminal, process):
        process.send_signal(number)
        assert process.wait(60) == -number
        assert terminal.shows_input


def test_a_signal_that_was_blocked_before_stays_so(patctl: Patctl) -> None:
    token = patctl.issue()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # which patctl inherits
    try:
        with asking(patctl, "revoke", "--token-stdin") as (terminal, process):
            process.send_signal(signal.SIGTERM)
            terminal.type(token + "\n")
            assert process.wait(60) == YES
            assert terminal.output.count("Token: ") == 1
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    assert patctl.verdict(token) == "revoked"


def test_while_it_is_stopped_the_terminal_is_as_before_and_then_it_asks_again(patctl: Patctl) -> None:
    token = patctl.issue()
    with asking(patctl, "revoke", "--token-stdin") as (terminal, process):
        process.send_signal(signal.SIGTSTP)
        wait_until(lambda: os.waitpid(process.pid, os.WUNTRACED | os.WNOHANG)[0] == process.pid, "patctl stops")
        assert terminal.shows_input
        process.send_signal(signal.SIGCONT)
        terminal.read_until("Token: ", times=2)
        assert not terminal.shows_input
        terminal.type(token + "\n")
        assert process.wait(60) == YES
    assert patctl.verdict(token) == "revoked"


def list_at(columns: int, patctl: Patctl, *arguments: str, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "TERM")}
    with a_terminal(columns) as terminal:
        subprocess.run([PATCTL, "--store", str(patctl.store), "list", *arguments], stdin=subprocess.DEVNULL,
                       stdout=terminal.slave, timeout=60, check=True, env={**clean, "TERM": "xterm", **environment})
        return terminal.read_rest()


def widths(text: str) -> set[int]:
    return {len(line) for line in text.splitlines()}


@pytest.fixture
def wide(patctl: Patctl) -> Patctl:
    """A store with a token whose row takes 193 columns."""
    patctl.issue("--subject", SUBJECT, "--name", "n" * 40, *(f"--scope=scope{number}:read" for number in range(4)))
    return patctl


@pytest.mark.parametrize("columns", [80, 100, 132])
def test_a_table_fits_the_terminal(wide: Patctl, columns: int) -> None:
    text = list_at(columns, wide, NO_COLOR="1")
    assert max(widths(text)) == columns
    assert text.count("…") == 3
    (token,) = wide.json("list")
    assert token["id"] in text
    assert ("T" in text.splitlines()[1].split()[3]) == (columns >= 100)


@pytest.mark.parametrize("status", ["ok", "revoked", "not_yet_valid"])
def test_a_table_of_long_ids_fits_too(patctl: Patctl, status: str) -> None:
    uuid = "0b5c1b0e-6a36-4c1c-9f0e-3c1f5a0c7d11"
    fields = {"revoked": {"revoked_at": 1}, "not_yet_valid": {"not_before": 4000000000}}.get(status, {})
    patctl.load({"digest": "ab" * 32, "id": uuid, "subject": SUBJECT, "name": "n" * 40, "scopes": ["s" * 40],
                 "expires_at": 4100000000, **fields})
    head, row = list_at(80, patctl, NO_COLOR="1").splitlines()
    assert len(row) == 80 and len(head) <= 80
    assert row.split()[:2] == [uuid, status] and row.count("…") == 3

    patctl.load({"digest": "ab" * 32, "id": "i" * 64, "subject": "s", "expires_at": 4100000000, **fields})
    head, row = list_at(80, patctl, NO_COLOR="1").splitlines()
    assert len(head) <= 80 and len(row) <= 80 and row.startswith("iiiiiiii")


def test_columns_count_before_the_size_of_the_terminal(wide: Patctl) -> None:
    assert max(widths(list_at(80, wide, NO_COLOR="1", COLUMNS="120"))) == 120
    assert max(widths(list_at(0, wide, NO_COLOR="1"))) == 80


def test_nothing_is_cut_where_there_is_room_and_nothing_where_there_is_no_terminal(wide: Patctl) -> None:
    whole = wide.run("list").stdout
    assert "…" not in whole and SUBJECT in whole and "\x1b" not in whole
    assert list_at(250, wide, NO_COLOR="1") == whole
    os.environ["COLUMNS"] = "80"
    try:
        assert wide.run("list").stdout == whole
    finally:
        del os.environ["COLUMNS"]


def test_wide_characters_are_cut_whole(patctl: Patctl) -> None:
    patctl.issue("--subject", "漢字" * 40, "--name", "x")
    head, row = list_at(80, patctl, NO_COLOR="1").splitlines()
    subject = row.split()[2]
    assert subject.endswith("漢…") or subject.endswith("字…")
    assert len(row) + len(subject) - 1 == head.index("NAME") + 1


def test_colours_tell_states_apart(patctl: Patctl) -> None:
    tokens = [patctl.issue() for _ in range(2)]
    patctl.run("revoke", "--token-stdin", input=tokens[0])
    text = list_at(80, patctl)
    assert "\x1b[32mok\x1b[m" in text and "\x1b[31mrevoked\x1b[m" in text
    assert "\x1b" not in list_at(80, patctl, NO_COLOR="1")
    assert "\x1b" not in list_at(80, patctl, TERM="dumb")
    assert "\x1b" in list_at(80, patctl, NO_COLOR="")


def test_json_is_the_same_at_a_terminal(wide: Patctl) -> None:
    assert list_at(80, wide, "--json") == wide.run("--json", "list").stdout
