"""rotate: a new token like an old one, which ends after the overlap."""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from basics import PATCTL, wait_until
from conftest import FAULT, NO, USAGE, YES, Patctl
from test_apply import begin, end, put, run

DAY = 86400
SECRET = "a-token-of-another-system"
KEPT = ("subject", "name", "scopes", "cidrs", "claims")


def shown(patctl: Patctl, token: str) -> dict[str, Any]:
    (found,) = patctl.json("show", "--token-stdin", input=token)
    return found


def old_token(patctl: Patctl, **fields: object) -> str:
    """A token that was issued ten days ago, for thirty."""
    now = int(time.time())
    record = {"token": SECRET, "id": "old", "subject": "alice", "issued_at": now - 10 * DAY,
              "expires_at": now + 20 * DAY}
    line = {name: value for name, value in {**record, **fields}.items() if value is not None}
    patctl.run("import", "--plaintext", "--strict", "-", input=json.dumps(line) + "\n")
    return SECRET


def about(seconds: float, wanted: float) -> bool:
    return abs(seconds - wanted) < 60


def test_the_new_token_is_like_the_old_one_and_lives_as_long(patctl: Patctl) -> None:
    old = old_token(patctl, name="CI", scopes=["a", "b"], cidrs=["192.0.2.0/24", "2001:db8::/32"],
                    claims={"plan": "pro"})
    before = shown(patctl, old)
    done = patctl.run("rotate", "old")
    new = done.stdout.removesuffix("\n")
    after, replaced = shown(patctl, new), shown(patctl, old)

    assert {name: after[name] for name in KEPT} == {name: before[name] for name in KEPT}
    assert after["id"] != "old" and after["id"].startswith("pat_")
    assert about(after["issued_at"], time.time())
    assert about(after["expires_at"], time.time() + 30 * DAY)
    assert about(replaced["expires_at"], time.time() + DAY)
    assert {**replaced, "expires_at": None} == {**before, "expires_at": None}
    for token in (old, new):
        assert patctl.verdict(token, "--address", "192.0.2.7", "--scope", "b") == "ok"
    assert new not in done.stderr and "old is still valid, until " in done.stderr
    patctl.run("verify")


def test_the_life_of_the_old_token_is_shortened_and_never_lengthened(patctl: Patctl) -> None:
    old = old_token(patctl)
    patctl.run("rotate", "old", "--overlap", "365d")
    assert about(shown(patctl, old)["expires_at"], time.time() + 20 * DAY)
    patctl.run("rotate", "old", "--overlap", "1h")
    assert about(shown(patctl, old)["expires_at"], time.time() + 3600)
    assert "old is no longer valid" in patctl.run("rotate", "old", "--overlap", "0s").stderr
    assert patctl.verdict(old) == "expired"
    assert len(patctl.json("list")) == 4


def test_a_token_without_an_end_gets_one_and_the_new_one_has_none(patctl: Patctl) -> None:
    old = old_token(patctl, expires_at=None)
    (issued,) = patctl.json("rotate", "--token-stdin", input=old)
    assert "expires_at" not in issued and set(issued) >= {"token", "id", "subject"} and "digest" not in issued
    assert "which never expires" in patctl.run("rotate", issued["id"]).stderr
    assert about(shown(patctl, old)["expires_at"], time.time() + DAY)


def test_the_lifetime_can_be_another_and_must_be_where_it_is_not_known(patctl: Patctl) -> None:
    old_token(patctl, issued_at=None)
    before = patctl.json("list")
    assert "--expires-in" in patctl.run("rotate", "old", status=NO).stderr
    assert patctl.json("list") == before
    now = int(time.time())
    old_token(patctl, issued_at=now + 7200, expires_at=now + 3600)
    assert "--expires-in" in patctl.run("rotate", "old", status=NO).stderr
    (issued,) = patctl.json("rotate", "old", "--expires-in", "7d", "--prefix", "shop_")
    assert about(issued["expires_at"], time.time() + 7 * DAY)
    assert issued["token"].startswith("shop_")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"revoked_at": 1700000000}, '"old" is revoked'),
        ({"local_revoked_at": 1700000000}, '"old" is revoked'),
        ({"denied": True}, '"old" is revoked'),
        ({"expires_at": 1700000000, "issued_at": 1600000000}, '"old" has expired'),
        ({"not_before": int(time.time()) + DAY}, '"old" is not valid yet'),
        ({"id": "other"}, "none has this id (a token itself is read with --token-stdin)"),
    ],
)
def test_what_can_not_be_rotated(patctl: Patctl, fields: dict[str, object], words: str) -> None:
    old_token(patctl, **fields)
    before = patctl.json("list")
    done = patctl.run("rotate", "old", status=NO)
    assert words in done.stderr and done.stdout == ""
    assert patctl.json("list") == before


def test_an_id_of_several_tokens_names_none(patctl: Patctl) -> None:
    patctl.load(*({"digest": digest * 32, "id": "twice", "subject": "s"} for digest in ("ab", "cd")))
    before = patctl.json("list")
    assert "2 tokens have this id" in patctl.run("rotate", "twice", status=NO).stderr
    assert patctl.json("list") == before
    patctl.run("rotate", "--digest", "ab" * 32)
    assert {token["digest"] for token in patctl.json("list") if "expires_at" in token} == {"ab" * 32}


def test_a_token_that_is_not_there_is_not_rotated(patctl: Patctl) -> None:
    assert "no such token" in patctl.run("rotate", "--digest", "ab" * 32, status=NO).stderr
    assert "no such token" in patctl.run("rotate", "--token-stdin", input="x" * 44, status=NO).stderr
    assert patctl.json("list") == []


def test_a_store_with_a_source_gets_no_token_that_its_source_lacks(patctl: Patctl) -> None:
    run(patctl, begin("E", 1), put(1, 1), end(1))
    before = patctl.json("list")
    done = patctl.run("rotate", before[0]["id"], status=NO)
    assert "has a source" in done.stderr and done.stdout == ""
    assert patctl.json("list") == before


@pytest.mark.parametrize(
    "arguments", [("--overlap", "1"), ("--overlap", "-1s"), ("--expires-in", "0s"), ("--prefix", "a b")]
)
def test_bad_values_are_refused(patctl: Patctl, arguments: tuple[str, ...]) -> None:
    old_token(patctl)
    before = patctl.json("list")
    assert arguments[0] in patctl.run("rotate", "old", *arguments, status=USAGE).stderr
    assert patctl.json("list") == before


def test_the_new_token_is_of_the_pepper_of_the_store(tmp_path: Path) -> None:
    pepper = tmp_path / "pepper"
    pepper.write_text("0123456789abcdef" * 4)
    pepper.chmod(0o600)
    peppered = Patctl(tmp_path / "peppered")
    with_pepper = ("--pepper-file", str(pepper))
    peppered.run("init", *with_pepper)
    peppered.issue(*with_pepper)
    (old,) = peppered.json("list")
    peppered.run("rotate", old["id"], status=FAULT)
    assert peppered.json("list") == [old]
    new = peppered.run("rotate", old["id"], *with_pepper).stdout.strip()
    assert peppered.verdict(new, *with_pepper) == "ok"


def test_nothing_is_rotated_where_it_is_known_that_nobody_can_read_it(patctl: Patctl) -> None:
    old_token(patctl)
    before = patctl.json("list")
    with open("/dev/full", "w") as full:
        done = subprocess.run([PATCTL, "--store", str(patctl.store), "rotate", "old"], stdout=full,
                              stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == FAULT and "no token was issued" in done.stderr
    assert patctl.json("list") == before


def test_the_prefix_is_that_of_the_old_token_where_it_is_known(patctl: Patctl) -> None:
    old = patctl.issue("--prefix", "shop_")
    (id,) = (token["id"] for token in patctl.json("list"))
    assert patctl.run("rotate", "--token-stdin", input=old).stdout.startswith("shop_")
    assert patctl.run("rotate", "--token-stdin", "--prefix", "x.", input=old).stdout.startswith("x.")
    assert patctl.run("rotate", id).stdout.startswith("ropat_")
    assert patctl.run("rotate", "--token-stdin", input=old_token(patctl)).stdout.startswith("ropat_")
    assert "else ropat_" in " ".join(patctl.run("rotate", "--help").stdout.split())


class Rotation:
    """patctl rotate, which waits as it prints the new token."""

    def __init__(self, patctl: Patctl, id: str) -> None:
        self._output, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        self._full = b"x" * fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
        os.write(writer, self._full)
        tokens = len(patctl.json("list"))
        self.process = subprocess.Popen([PATCTL, "--store", str(patctl.store), "rotate", id], stdout=writer,
                                        stderr=subprocess.PIPE, text=True,
                                        preexec_fn=lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN))
        os.close(writer)
        wait_until(lambda: len(patctl.json("list")) > tokens, "the new token is in the store")

    def finish(self) -> tuple[str, str]:
        """The new token, and the errors."""
        with open(self._output, "rb") as output:
            new = output.read()[len(self._full):].decode().strip()
        return new, self.process.communicate(timeout=60)[1]


@contextmanager
def rotating(patctl: Patctl, id: str) -> Iterator[Rotation]:
    rotation = Rotation(patctl, id)
    try:
        yield rotation
    finally:
        rotation.process.kill()


def test_an_old_token_that_can_not_be_shortened_is_told_of_with_what_to_do(patctl: Patctl) -> None:
    old = old_token(patctl)
    before = shown(patctl, old)
    with rotating(patctl, "old") as rotation:
        resource.prlimit(rotation.process.pid, resource.RLIMIT_FSIZE, (0, 0))
        new, errors = rotation.finish()
    assert rotation.process.returncode == FAULT
    assert f"the new token {shown(patctl, new)['id']} was issued, but old stays as it was" in errors
    assert shown(patctl, old) == before and patctl.verdict(new) == patctl.verdict(old) == "ok"
    command = re.findall('end the old one with "patctl (.*)"', errors)[0]
    patctl.run(*command.split())
    assert (patctl.verdict(new), patctl.verdict(old)) == ("ok", "revoked")


def end_long_ago(patctl: Patctl) -> None:
    old_token(patctl, revoked_at=1700000000)
    patctl.run("gc")


@pytest.mark.parametrize(
    ("meanwhile", "words"),
    [
        (lambda patctl: patctl.run("revoke", "old"), "old is revoked"),
        (end_long_ago, "old is no longer in the store"),
        (lambda patctl: patctl.run("rotate", "old", "--overlap", "0s"), "old is no longer valid"),
    ],
)
def test_what_became_of_the_old_token_meanwhile_is_told(patctl: Patctl, meanwhile: Callable[[Patctl], object],
                                                        words: str) -> None:
    old_token(patctl)
    with rotating(patctl, "old") as rotation:
        meanwhile(patctl)
        new, errors = rotation.finish()
    assert rotation.process.returncode == YES
    assert words in errors and "still valid" not in errors
    assert patctl.verdict(new) == "ok"


def test_a_new_token_that_nobody_got_leaves_the_old_one_as_it_was(patctl: Patctl) -> None:
    old = old_token(patctl)
    before = shown(patctl, old)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([PATCTL, "--store", str(patctl.store), "rotate", "old", "--overlap", "0s"], stdout=writer,
                          stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert done.returncode == FAULT and "could not be handed over: revoke it" in done.stderr
    assert shown(patctl, old) == before
    patctl.run("rotate", "old")
    assert about(shown(patctl, old)["expires_at"], time.time() + DAY)
