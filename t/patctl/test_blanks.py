"""Lists that are none, and blanks at the ends of what goes into headers."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path
from typing import Any

import pytest

from conftest import NO, Patctl, USAGE, places_of
from test_apply import commit, delete, digest, export, put, revoke, run, stats

_GENERATE = Path(__file__).resolve().parents[1] / "unit" / "golden" / "generate.py"
_SPEC = importlib.util.spec_from_file_location("generate", _GENERATE)
assert _SPEC and _SPEC.loader
generate: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(generate)


def rename(patctl: Patctl, name: str, subject: str) -> None:
    """Gives a token the subject that a patctl of before took, in the bytes of the store."""
    data = bytearray((patctl.store / "data.mdb").read_bytes())
    old = f"{name}user:{name}".encode()
    new = f"{name}{subject}".encode()
    assert len(new) == len(old)
    key = b"t" + bytes.fromhex(digest(name))
    for record, end in places_of(key, data):
        if generate.crc32c(key + data[record + 4 : end]) == struct.unpack("<I", data[record : record + 4])[0]:
            data[record:end] = data[record:end].replace(old, new)
            data[record : record + 4] = struct.pack("<I", generate.crc32c(key + data[record + 4 : end]))
    (patctl.store / "data.mdb").write_bytes(data)


@pytest.fixture
def old_store(patctl: Patctl) -> Patctl:
    """Holds "a" of " ser:a", as a store of before may, and "b"."""
    run(patctl, put("a", 1), put("b", 2), commit(2))
    rename(patctl, "a", " ser:a")
    assert export(patctl)["a"]["subject"] == " ser:a"
    return patctl


# --- lists ---


@pytest.mark.parametrize("scope", ["a,b", "a;b", "a|b", "{a,b}", '["a","b"]', "api:read, csv:write"])
def test_a_scope_that_looks_like_a_list_is_refused_with_a_hint(patctl: Patctl, scope: str) -> None:
    for command in ("issue", "check"):
        done = patctl.run(command, *(["--subject", "s"] if command == "issue" else []), "--scope", scope, status=USAGE)
        assert "--scope: " in done.stderr and "separate scopes by spaces" in done.stderr
    assert stats(patctl)["meta_tokens"] == 0


@pytest.mark.parametrize("scopes", ["", " "])
def test_a_list_without_a_scope_is_refused(patctl: Patctl, scopes: str) -> None:
    token = patctl.issue()
    for command in ("issue --subject s", "check", "list"):
        done = patctl.run(*command.split(), "--scope", scopes, input=token, status=USAGE)
        assert done.stderr.startswith("patctl: --scope: ") and done.stdout == ""
    assert len(patctl.json("list")) == 1


@pytest.mark.parametrize("cidr", ["10.0.0.1,10.0.0.2", "10.0.0.1;10.0.0.2", "{10.0.0.1}"])
def test_a_range_that_looks_like_a_list_is_refused_with_a_hint(patctl: Patctl, cidr: str) -> None:
    assert "repeat --cidr for each range" in patctl.run("issue", "--subject", "s", "--cidr", cidr, status=USAGE).stderr


def test_what_is_left_out_null_or_empty_means_the_same(patctl: Patctl) -> None:
    base = {"subject": "s"}
    fields: list[dict[str, Any]] = [{}, {"scopes": None, "cidrs": None, "claims": None},
                                    {"scopes": [], "cidrs": [], "claims": {}}]
    patctl.load(*({"digest": digest(i), "id": str(i), **base, **more} for i, more in enumerate(fields)))
    for record in export(patctl).values():
        assert not {"scopes", "cidrs", "claims"} & set(record)


# --- blanks ---


@pytest.mark.parametrize("subject", [" a", "a ", " ", " a "])
def test_a_new_subject_with_blank_ends_is_refused(patctl: Patctl, subject: str) -> None:
    cause = "the subject begins or ends with a blank"
    assert cause in patctl.run("issue", "--subject", subject, status=USAGE).stderr
    line = f'{{"digest":"{digest(1)}","id":"1","subject":"{subject}"}}\n'
    assert cause in patctl.run("import", "--strict", "-", input=line, status=NO).stderr
    (rejected, _) = run(patctl, put("1", 1, subject=subject), commit(1))
    assert cause in rejected["cause"]
    assert export(patctl) == {}


def test_a_new_claim_with_blank_ends_is_refused(patctl: Patctl) -> None:
    cause = 'the value of claim "plan" begins or ends with a blank'
    assert cause in patctl.run("issue", "--subject", "s", "--claim", "plan=pro ", status=USAGE).stderr
    (rejected, _) = run(patctl, put("1", 1, claims={"a": "", "plan": " pro"}), commit(1))
    assert cause in rejected["cause"]


def test_a_token_of_before_with_such_a_claim_is_refused_once_it_comes_again(patctl: Patctl) -> None:
    run(patctl, put("a", 1), commit(1))
    run(patctl, put("a", 2, claims={"plan": "pro "}), commit(2))
    assert patctl.json("show", "a")[0]["status"] == "revoked"


def test_a_name_is_trimmed(patctl: Patctl) -> None:
    patctl.run("issue", "--subject", "s", "--name", "  CI of shop\t ")
    patctl.load({"digest": digest(1), "id": "1", "subject": "s", "name": "\tCI of shop "})
    run(patctl, put("2", 1, name=" CI of shop"), put("3", 2, name=" " * 300), commit(1))
    assert [record.get("name") for record in patctl.json("list")].count("CI of shop") == 3
    assert "name" not in export(patctl)["3"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\v", "\f", "\t \n"])
def test_line_ends_at_the_ends_of_a_name_are_trimmed_and_never_refused(patctl: Patctl, end: str) -> None:
    patctl.run("issue", "--subject", "s", "--name", f"{end}CI{end}")
    patctl.load({"digest": digest(1), "id": "1", "subject": "s", "name": f"{end}CI{end}"})
    run(patctl, put("2", 1, name=f"CI{end}"), commit(1))
    assert [record.get("name") for record in patctl.json("list")] == ["CI"] * 3


def test_what_a_store_of_before_holds_is_refused_and_says_why(old_store: Patctl) -> None:
    (shown,) = old_store.json("show", "a")
    assert shown["status"] == "revoked" and "begins or ends with a blank" in shown["cause"]
    assert "begins or ends with a blank" in old_store.run("show", "a").stdout
    assert '" ser:a" (blank ends)' in old_store.run("list").stdout
    assert old_store.json("list", "--status", "revoked")[0]["id"] == "a"
    figures = stats(old_store)
    assert (figures["ok"], figures["revoked"], figures["blank_subjects"], figures["meta_revoked"]) == (1, 1, 1, 0)
    old_store.run("verify")


def test_check_says_what_nginx_says(patctl: Patctl) -> None:
    token = patctl.issue("--subject", "user:a")
    (issued,) = patctl.json("export")
    data = (patctl.store / "data.mdb").read_bytes()
    key = b"t" + bytes.fromhex(issued["digest"])
    ((record, end),) = places_of(key, data)
    changed = data[record + 4 : end].replace(b"user:a", b"user: ")
    data = data[:record] + struct.pack("<I", generate.crc32c(key + changed)) + changed + data[end:]
    (patctl.store / "data.mdb").write_bytes(data)
    assert export(patctl)[issued["id"]]["subject"] == "user: "
    assert patctl.verdict(token) == "revoked"
    assert "stay revoked" in patctl.run("restore-access", "--token-stdin", input=token, status=NO).stderr


def test_what_a_store_of_before_holds_can_be_revoked_and_deleted(old_store: Patctl) -> None:
    old_store.run("revoke", "a")
    assert "local_revoked_at" in export(old_store)["a"]
    old_store.run("verify")
    old_store.run("restore-access", "a", status=NO)
    run(old_store, revoke("a", 3), commit(3))
    assert "revoked_at" in export(old_store)["a"]
    assert stats(old_store)["meta_revoked"] == 1
    old_store.run("verify")
    run(old_store, delete("a", 4), commit(4))
    assert set(export(old_store)) == {"b"}
    assert stats(old_store)["meta_revoked"] == 0
    old_store.run("verify")


def test_a_put_that_is_refused_for_its_blanks_loses_no_revocation(old_store: Patctl) -> None:
    for name in "ab":
        rejected = run(old_store, put(name, 5, subject="x ", revoked_at=1700000000), commit(5))[0]
        assert rejected["digest"] == digest(name)
    assert {record["status"] for record in old_store.json("list")} == {"revoked"}
    run(old_store, put("b", 4), commit(5))
    assert old_store.json("show", "b")[0]["status"] == "revoked", "an older one does not help"
    run(old_store, put("a", 6), put("b", 6), commit(6))
    assert {record["status"] for record in old_store.json("list")} == {"ok"}
    old_store.run("verify")
