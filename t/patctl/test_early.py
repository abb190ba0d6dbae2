"""Revocations on this host: of tokens that are not here yet, and carried over to a store that is made anew."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from conftest import FAULT, NO, Patctl
from test_apply import Apply, apply, begin, commit, delete, digest, end, export, put, revoke, run, stats  # noqa: F401

TOKEN = "t" * 44
DIGEST = hashlib.sha256(TOKEN.encode()).hexdigest()


def put_it(seq: int | None, /, **fields: Any) -> dict[str, Any]:
    return {**put("it", seq, **fields), "digest": DIGEST}


ARRIVALS: dict[str, list[dict[str, Any]]] = {
    "a change": [put_it(5), commit(5)],
    "a change after a deletion": [{**delete("it", 4), "digest": DIGEST}, put_it(5), commit(5)],
    "a snapshot": [begin("E", 9), put_it(5), end(9)],
    "a snapshot of others, then a change": [begin("E", 9), put("other", 5), end(9), put_it(10), commit(10)],
    "two epochs": [begin("E", 9), end(9), begin("F", 3), put_it(2), end(3)],
    "a snapshot after a revocation and a deletion of the source": [
        {**revoke("it", 1), "digest": DIGEST}, {**delete("it", 2), "digest": DIGEST}, commit(2),
        begin("E", 9), put_it(5), end(9),
    ],
}


@pytest.mark.parametrize("how", ARRIVALS)
def test_a_token_that_was_revoked_before_it_came_is_revoked(patctl: Patctl, how: str) -> None:
    said = patctl.run("revoke", "--token-stdin", input=TOKEN).stdout
    assert "does not hold the token" in said and "remembered" in said
    assert patctl.verdict(TOKEN) == "unknown"
    assert stats(patctl)["early_revocations"] == 1

    run(patctl, *ARRIVALS[how])
    assert patctl.verdict(TOKEN) == "revoked"
    assert stats(patctl)["early_revocations"] == 0
    assert (stats(patctl)["meta_revoked"], stats(patctl)["revoked"]) == (1, 1)
    patctl.run("verify")
    assert "restored access of 1 token" in patctl.run("restore-access", "--token-stdin", input=TOKEN).stdout
    assert patctl.verdict(TOKEN) == "ok"
    patctl.run("verify")


def test_what_is_imported_later_is_revoked(patctl: Patctl) -> None:
    patctl.run("revoke", "--digest", DIGEST)
    patctl.load({"digest": DIGEST, "id": "it", "subject": "s"})  # into an empty store, which is a load of its own
    assert patctl.verdict(TOKEN) == "revoked"

    patctl.run("revoke", "--digest", digest("b"))
    patctl.load({"digest": digest("b"), "id": "b", "subject": "s"})
    assert patctl.json("show", "b")[0]["status"] == "revoked"
    patctl.run("verify")


def test_an_early_revocation_outlasts_all_but_restore_access(patctl: Patctl, tmp_path: Path) -> None:
    patctl.run("revoke", "--token-stdin", input=TOKEN)
    assert patctl.json("revoke", "--token-stdin", input=TOKEN) == [
        {"matched": 0, "revoked": 0, "already_revoked": 0, "remembered": 1}
    ]
    run(patctl, begin("E", 1), put("a", 1), end(1), begin("F", 1), put("a", 1), end(1))
    run(patctl, {**delete("it", 2), "digest": DIGEST}, commit(2))
    run(patctl, {**put_it(3), "subject": 5}, commit(3))
    patctl.run("gc", "--older-than", "0s")
    (shown,) = patctl.json("show", "--token-stdin", input=TOKEN)
    assert shown["status"] == "unknown" and shown["local_revoked_at"] > 0
    assert "not here yet" in patctl.run("show", "--digest", DIGEST).stdout

    patctl.run("backup", str(tmp_path / "copy"))
    copy = Patctl(tmp_path / "copy")
    run(copy, put_it(4), commit(4))
    assert copy.verdict(TOKEN) == "revoked"

    assert "restored" in patctl.run("restore-access", "--token-stdin", input=TOKEN).stdout
    patctl.run("restore-access", "--token-stdin", input=TOKEN, status=NO)
    patctl.run("show", "--token-stdin", input=TOKEN, status=NO)
    run(patctl, put_it(4), commit(4))
    assert patctl.verdict(TOKEN) == "ok"


def test_a_damaged_record_that_is_revoked_stays_so_when_it_is_repaired(patctl: Patctl) -> None:
    run(patctl, put_it(1), commit(1))
    data = patctl.store / "data.mdb"
    data.write_bytes(data.read_bytes().replace(b"user:it", b"user:xx"))
    assert patctl.verdict(TOKEN) == "store_error"
    assert "damaged" in patctl.run("revoke", "--token-stdin", input=TOKEN).stdout
    run(patctl, put_it(2), commit(2))
    assert patctl.verdict(TOKEN) == "revoked"


# --- a store that is made anew ---


@pytest.mark.parametrize("is_first", [True, False], ids=["before the resync", "after the resync"])
def test_local_revocations_are_carried_over_to_a_store_that_is_made_anew(patctl: Patctl, is_first: bool) -> None:
    snapshot = [begin("E", 9), put_it(5), put("denied", 5), put("other", 5), end(9)]
    run(patctl, *snapshot)
    patctl.run("revoke", "--token-stdin", input=TOKEN)
    patctl.run("revoke", "--digest", digest("early"))
    run(patctl, put("denied", 10, subject=5), commit(10))

    saved = patctl.run("export", "--local-revocations").stdout
    assert {json.loads(line)["digest"] for line in saved.splitlines()} == {DIGEST, digest("denied"), digest("early")}
    shutil.rmtree(patctl.store)
    patctl.run("init")

    if not is_first:
        run(patctl, *snapshot)
        assert patctl.verdict(TOKEN) == "ok"
    done = patctl.run("import", "--local-revocations", "-", input=saved)
    assert f"imported 3 local revocations, {3 if is_first else 1} of them" in done.stderr
    if is_first:
        run(patctl, *snapshot)

    assert patctl.verdict(TOKEN) == "revoked"
    run(patctl, put("early", 11), commit(11))
    status = {record["id"]: record["status"] for record in patctl.json("list")}
    assert status == {"it": "revoked", "denied": "revoked", "early": "revoked", "other": "ok"}
    assert patctl.run("export", "--local-revocations").stdout.count("\n") == 3
    patctl.run("import", "--local-revocations", "-", input=saved)
    patctl.run("verify")

    run(patctl, put("denied", 12), commit(12))
    assert patctl.json("show", "denied")[0]["status"] == "ok", "a good change ends a denial, as ever"
    patctl.run("restore-access", "--token-stdin", input=TOKEN)
    assert patctl.verdict(TOKEN) == "ok"


def test_local_revocations_of_a_store_with_another_pepper_are_refused(patctl: Patctl, tmp_path: Path) -> None:
    stores = {"none": patctl}
    for name in ("one", "two"):
        pepper = tmp_path / f"{name}.pepper"
        pepper.write_text(hashlib.sha256(name.encode()).hexdigest())
        pepper.chmod(0o600)
        stores[name] = Patctl(tmp_path / name)
        stores[name].run("--pepper-file", str(pepper), "init")
    for of, store in stores.items():
        store.run("revoke", "--digest", digest(of))
        saved = store.run("export", "--local-revocations").stdout
        for to, other in stores.items():
            done = other.run("import", "--local-revocations", "-", input=saved, status=0 if to == of else FAULT)
            assert to == of or "the pepper does not match" in done.stderr
            assert stats(other)["early_revocations"] == (1 if to in list(stores)[: list(stores).index(of) + 1] else 0)


def test_lines_that_are_no_local_revocations_are_refused(patctl: Patctl) -> None:
    good = json.dumps({"digest": DIGEST, "local_revoked_at": 1})
    for line, cause in (
        ("{}", 'no field "digest"'), (json.dumps({"digest": DIGEST}), "neither"),
        (json.dumps({"digest": "12", "denied": True}), "64 hexadecimal digits"),
        (json.dumps({"digest": DIGEST, "local_revoked_at": 99999999999999}), 'line 2: local_revoked_at: "99999'),
        (json.dumps({"digest": DIGEST, "denied": 1}), "denied: neither true nor false"),
        (json.dumps({"digest": DIGEST, "subject": "s", "denied": True}), "subject: not a field of an export of local"),
        (f'{{"digest":"{DIGEST}","digest":"{DIGEST}"}}', "given twice"), ("[]", "not a JSON object"),
    ):
        done = patctl.run("import", "--local-revocations", "--strict", "-", input=f"{good}\n{line}\n", status=NO)
        assert cause in done.stderr, done.stderr
        assert patctl.run("export", "--local-revocations").stdout == ""
    partly = patctl.run("import", "--local-revocations", "-", input=f"{good}\n{{}}\n", status=NO)
    assert partly.stderr.endswith("; 1 line was refused\n")
    patctl.run("import", "--local-revocations", "--lenient", "-", input=f"{good}\n{{}}\n")
    assert stats(patctl)["early_revocations"] == 1


def test_an_export_of_local_revocations_that_lacks_some_says_so(patctl: Patctl) -> None:
    run(patctl, put_it(1), commit(1))
    patctl.run("revoke", "--token-stdin", input=TOKEN)
    data = patctl.store / "data.mdb"
    data.write_bytes(data.read_bytes().replace(b"user:it", b"user:xx"))
    assert "may have been revoked" in patctl.run("export", "--local-revocations", status=FAULT).stderr


# --- what can be told of a broken line ---


@pytest.mark.parametrize("line", [
    '{"op":"put","seq":9,"id":"x","claims":{"digest":"%s"}',
    '{"op":"put","seq":9,"claims":{"digest":"%s"},"id":"x",}',
    '{"op":"put","seq":9,"id":"x,"claims":{"digest":"%s"}}',
    '"op":"put","seq":9,"claims":{"digest":"%s"}}',
    '}{"op":"put","claims":{"digest":"%s"}}',
    '{"op":"put","x":[{"digest":"%s"}]',
    '{"op":"put","x":[1,{"y":[]},{"digest":"%s"}',
    '{"op":"put","claims" : {"a":"b","digest" : "%s"}',
    '[{"op":"put","digest":"%s"}]',
    '{"op":"put","seq":9,"id":"x","claims":{"digest":"%s"},"subject":5}',
])
def test_a_digest_inside_of_a_value_denies_nobody(apply: Apply, patctl: Patctl, line: str) -> None:  # noqa: F811
    apply.ask(put("a", 1), commit(1))
    assert "digest" not in apply.ask(line % digest("a"), kind="rejected")
    apply.ask(commit(2))
    assert "denied" not in export(patctl)["a"]


@pytest.mark.parametrize("line", [
    '{"op":"put","seq":9,"claims":{"a":"b"},"digest":"%s"',
    '{"op":"put","seq":9,"id":"x,"claims":{"a":"b"},"digest":"%s"}',
    '{"op":"put","seq":9,"name":"{[","digest":"%s",}',
    '{"op":"put","seq":9,"name":"{","id":"x,"digest":"%s"}',
    '"op":"put","seq":9,"digest":"%s"',
    '{"op":"revoke","scopes":["a]","b"],"digest":"%s",}',
])
def test_a_broken_line_still_denies_its_own_token(apply: Apply, patctl: Patctl, line: str) -> None:  # noqa: F811
    apply.ask(put("a", 1), commit(1))
    assert apply.ask(line % digest("a"), kind="rejected")["digest"] == digest("a")
    apply.ask(commit(2))
    assert export(patctl)["a"]["denied"]
