"""issue, revoke, restore-access and check."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
import zlib
from pathlib import Path

import pytest
from basics import PATCTL
from conftest import FAULT, NO, USAGE, Patctl

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def test_a_token_has_the_form_that_the_design_gives(patctl: Patctl) -> None:
    token = patctl.issue()
    assert re.fullmatch(r"ropat_[0-9A-Za-z]{38}", token)

    crc = zlib.crc32(token[:-6].encode())
    assert token[-6:] == "".join(BASE62[crc // 62**i % 62] for i in range(5, -1, -1))


def test_the_token_alone_goes_to_standard_output(patctl: Patctl) -> None:
    done = patctl.run("issue", "--subject", "alice")
    assert done.stdout.count("\n") == 1
    assert "issued pat_" in done.stderr
    assert done.stdout.strip() not in done.stderr


def test_ninety_days_unless_said_otherwise(patctl: Patctl) -> None:
    (token,) = patctl.json("issue", "--subject", "alice")
    assert abs(token["expires_at"] - time.time() - 90 * 86400) < 60


def test_options_end_up_in_the_record(patctl: Patctl) -> None:
    patctl.issue("--name", "CI", "--scope", "a b", "--scope", "c", "--cidr", "192.0.2.0/24", "--cidr", "2001:db8::1",
                 "--claim", "plan=pro", "--not-before", "2030-01-01T01:00:00+01:00", "--expires-at", "2031-01-01T00:00:00Z")
    (token,) = patctl.json("list")
    assert token["name"] == "CI"
    assert token["scopes"] == ["a", "b", "c"]
    assert token["cidrs"] == ["192.0.2.0/24", "2001:db8::1/128"]
    assert token["claims"] == {"plan": "pro"}
    assert token["not_before"] == 1893456000
    assert token["expires_at"] == 1924992000
    assert token["status"] == "not_yet_valid"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--cidr", "192.0.2.1/24"), "192.0.2.0/24"),
        (("--cidr", "no"), "--cidr"),
        (("--scope", 'a"b'), "--scope"),
        (("--claim", "plan"), "name=value"),
        (("--claim", "Plan=pro"), "--claim"),
        (("--expires-in", "90"), "--expires-in"),
        (("--expires-in", "0d"), "--expires-in"),
        (("--expires-at", "2020-01-01T00:00:00Z"), "has passed"),
        (("--expires-at", "2027-02-30T00:00:00Z"), "--expires-at"),
        (("--not-before", "2040-01-01T00:00:00Z"), "expire first"),
        (("--prefix", "a b"), "--prefix"),
        (("--expires-in", "1d", "--no-expiry"), "xcludes"),
        (("--name", "a\nb"), "name"),
    ],
)
def test_bad_values_are_refused_and_nothing_is_issued(patctl: Patctl, arguments: tuple[str, ...], words: str) -> None:
    done = patctl.run("issue", "--subject", "alice", *arguments, status=USAGE)
    assert words in done.stderr
    assert done.stdout == ""
    assert patctl.json("list") == []


def test_check_gives_every_verdict(patctl: Patctl) -> None:
    good = patctl.issue("--scope", "read", "--cidr", "192.0.2.0/24")
    assert patctl.verdict(good, "--address", "192.0.2.7", "--scope", "read") == "ok"
    assert patctl.verdict(good, "--address", "198.51.100.1") == "address_denied"
    assert patctl.verdict(good) == "address_denied"
    assert patctl.verdict(good, "--address", "192.0.2.7", "--scope", "write") == "scope_denied"
    assert patctl.verdict("short") == "malformed"
    assert patctl.verdict("x" * 44) == "unknown"
    assert patctl.verdict("x" * 44, "--prefix", "ropat_") == "malformed"
    assert patctl.verdict(good, "--address", "192.0.2.7", "--prefix", "ropat_") == "ok"
    assert patctl.verdict(patctl.issue("--not-before", str(int(time.time()) + 3600))) == "not_yet_valid"
    patctl.run("revoke", "--token-stdin", input=good)
    assert patctl.verdict(good, "--address", "192.0.2.7") == "revoked"


def test_check_says_expired_and_leeway_helps(patctl: Patctl) -> None:
    token = "a-token-of-another-system"
    line = f'{{"token":"{token}","id":"1","subject":"s","expires_at":{int(time.time()) - 60}}}\n'
    patctl.run("import", "--plaintext", "-", input=line)
    assert patctl.verdict(token) == "expired"
    assert patctl.verdict(token, "--leeway", "1h") == "ok"


def test_a_store_that_can_not_be_read_is_a_fault(patctl: Patctl) -> None:
    token = patctl.issue()
    (patctl.store / "data.mdb").write_bytes(b"")
    assert patctl.verdict(token) == "store_error"
    patctl.run("list", status=FAULT)


def test_revoke_by_id_by_subject_and_by_token(patctl: Patctl) -> None:
    tokens = [patctl.issue() for _ in range(3)]
    other = patctl.issue("--subject", "bob")
    by_digest = {token["digest"]: token["id"] for token in patctl.json("list")}
    assert len(by_digest) == 4

    patctl.run("revoke", "--token-stdin", input=tokens[0] + "\n")
    assert [patctl.verdict(token) for token in (*tokens, other)] == ["revoked", "ok", "ok", "ok"]

    (shown,) = patctl.json("show", "--token-stdin", input=tokens[1])
    patctl.run("revoke", shown["id"])
    assert [patctl.verdict(token) for token in (*tokens, other)] == ["revoked", "revoked", "ok", "ok"]

    assert "revoked 1 token, 2 had been revoked before" in patctl.run("revoke", "--subject", "alice").stdout
    assert [patctl.verdict(token) for token in (*tokens, other)] == ["revoked", "revoked", "revoked", "ok"]

    patctl.run("restore-access", "--subject", "alice")
    assert [patctl.verdict(token) for token in (*tokens, other)] == ["ok"] * 4


def test_what_is_not_there_can_not_be_revoked(patctl: Patctl) -> None:
    for command in ("revoke", "restore-access"):
        patctl.run(command, "nobody", status=NO)
        patctl.run(command, "--subject", "nobody", status=NO)
    patctl.run("restore-access", "--token-stdin", input="x" * 44, status=NO)


def test_a_revocation_of_the_source_is_not_undone_here(patctl: Patctl) -> None:
    patctl.load({"digest": "ab" * 32, "id": "1", "subject": "s", "revoked_at": 1700000000})
    patctl.run("revoke", "1")
    assert "stay revoked by the source" in patctl.run("restore-access", "1", status=NO).stderr
    assert patctl.json("show", "1")[0]["status"] == "revoked"
    assert "local_revoked_at" not in patctl.json("show", "1")[0]


def test_no_token_slips_through_a_revocation_of_its_subject(patctl: Patctl) -> None:
    """What was issued when `revoke --subject` started is revoked when it has returned."""
    issued: list[str] = []
    stop = threading.Event()

    def issue() -> None:
        while not stop.is_set():
            issued.append(patctl.issue())

    issuing = [threading.Thread(target=issue) for _ in range(3)]
    for thread in issuing:
        thread.start()
    try:
        for _ in range(5):
            seen = len(issued)
            end = time.monotonic() + 30
            while len(issued) < seen + 5 and time.monotonic() < end:
                time.sleep(0.001)
            before = list(issued)
            patctl.run("revoke", "--subject", "alice")
            assert {patctl.verdict(token) for token in before} == {"revoked"}
    finally:
        stop.set()
        for thread in issuing:
            thread.join()


def test_a_token_that_nobody_can_read_is_named_so_that_it_can_be_revoked(patctl: Patctl) -> None:
    nobody, pipe = os.pipe()
    os.close(nobody)
    done = subprocess.run([PATCTL, "--store", str(patctl.store), "issue", "--subject", "alice"], stdout=pipe,
                          stderr=subprocess.PIPE, text=True)
    os.close(pipe)
    assert done.returncode == FAULT
    (token,) = patctl.json("list")
    assert f"revoke {token['id']}" in done.stderr


def test_nothing_is_issued_where_it_is_known_that_nobody_can_read_it(patctl: Patctl) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([PATCTL, "--store", str(patctl.store), "issue", "--subject", "alice"], stdout=full,
                              stderr=subprocess.PIPE, text=True)
    assert done.returncode == FAULT
    assert "no token was issued" in done.stderr
    assert patctl.json("list") == []


def test_a_token_on_standard_input_is_found_with_its_pepper(tmp_path: Path) -> None:
    pepper = tmp_path / "pepper"
    pepper.write_text("0123456789abcdef" * 4)
    pepper.chmod(0o600)
    peppered = Patctl(tmp_path / "peppered")
    with_pepper = ("--pepper-file", str(pepper))
    peppered.run("init", *with_pepper)
    token = peppered.issue(*with_pepper)

    assert peppered.json("show", "--token-stdin", *with_pepper, input=token)[0]["subject"] == "alice"
    peppered.run("revoke", "--token-stdin", *with_pepper, input=token)
    assert peppered.verdict(token, *with_pepper) == "revoked"
    peppered.run("restore-access", "--token-stdin", *with_pepper, input=token)
    assert peppered.verdict(token, *with_pepper) == "ok"
