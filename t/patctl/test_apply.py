"""`patctl apply`: the protocol, and what it does to a store."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from basics import PATCTL
from conftest import FAULT, NO, YES, Patctl

DEADLINE = 30.0


def digest(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def put(name: object, seq: int | None, /, **fields: Any) -> dict[str, Any]:
    number = {} if seq is None else {"seq": seq}
    return {"op": "put", **number, "digest": digest(name), "id": str(name), "subject": f"user:{name}", **fields}


def revoke(name: object, seq: int, **fields: Any) -> dict[str, Any]:
    return {"op": "revoke", "digest": digest(name), "seq": seq, **fields}


def delete(name: object, seq: int) -> dict[str, Any]:
    return {"op": "delete", "digest": digest(name), "seq": seq}


def commit(cursor: object, **fields: Any) -> dict[str, Any]:
    return {"op": "commit", "cursor": str(cursor), **fields}


def begin(epoch: str, seq: int) -> dict[str, Any]:
    return {"op": "snapshot_begin", "epoch": epoch, "seq": seq}


def end(cursor: object, **fields: Any) -> dict[str, Any]:
    return {"op": "snapshot_end", "cursor": str(cursor), **fields}


class Apply:
    """A running `patctl apply`."""

    def __init__(self, patctl: Patctl) -> None:
        self.process = subprocess.Popen(
            [PATCTL, "--store", str(patctl.store), "apply"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        self.opened = self.answer("opened")

    def send(self, *lines: dict[str, Any] | str) -> None:
        assert self.process.stdin
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def answer(self, kind: str) -> dict[str, Any]:
        """The next answer but progress, which must be of this kind."""
        assert self.process.stdout
        while True:
            line = self.process.stdout.readline()
            assert line, self.process.stderr and self.process.stderr.read()
            answer: dict[str, Any] = json.loads(line)
            if answer["answer"] != "snapshot_progress" or kind == "snapshot_progress":
                assert answer["answer"] == kind, answer
                return answer

    def ask(self, *lines: dict[str, Any] | str, kind: str = "committed") -> dict[str, Any]:
        self.send(*lines)
        return self.answer(kind)

    def end(self, status: int = YES) -> str:
        out, err = self.process.communicate(timeout=DEADLINE)
        assert self.process.returncode == status, (out, err)
        return err.decode()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def apply(patctl: Patctl) -> Iterator[Apply]:
    made = Apply(patctl)
    yield made
    made.kill()


def export(patctl: Patctl) -> dict[str, dict[str, Any]]:
    return {record["id"]: record for record in patctl.json("export")}


def stats(patctl: Patctl) -> dict[str, Any]:
    return patctl.json("stats")[0]


def run(patctl: Patctl, *lines: dict[str, Any] | str, status: int = YES) -> list[dict[str, Any]]:
    """Runs apply over an input that is complete; its answers but the first."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    done = patctl.run("apply", input=text, status=status)
    return [json.loads(line) for line in done.stdout.splitlines()][1:]


# --- changes and commits ---


def test_a_new_store_says_where_it_is(apply: Apply) -> None:
    assert apply.opened == {
        "answer": "opened", "state": "empty", "epoch": "", "cursor": "", "last_sequence": 0, "heartbeat": 0,
        "tokens": 0, "scheme": "sha256",
    }


def test_a_store_with_a_pepper_says_which(tmp_path: Path) -> None:
    pepper = tmp_path / "pepper"
    pepper.write_text("ab" * 32 + "\n")
    pepper.chmod(0o600)
    store = Patctl(tmp_path / "peppered")
    store.run("--pepper-file", str(pepper), "init")
    apply = Apply(store)
    key_id = hashlib.sha256(b"nginx-auth-pat pepper" + bytes.fromhex("ab" * 32)).hexdigest()[:16]
    assert (apply.opened["scheme"], apply.opened["key_id"]) == ("hmac-sha256", key_id)
    apply.kill()


def test_what_is_acknowledged_is_there(apply: Apply, patctl: Patctl) -> None:
    answer = apply.ask(put("a", 1, name="CI", scopes=["x:y"], claims={"team": "red"}), put("b", 2), commit("c2"))
    assert (answer["line"], answer["cursor"], answer["applied"], answer["older"], answer["rejected"]) \
        == (3, "c2", 2, 0, 0)
    assert export(patctl)["a"] == {
        "digest": digest("a"), "id": "a", "subject": "user:a", "name": "CI", "scopes": ["x:y"],
        "claims": {"team": "red"}, "seq": 1,
    }
    found = stats(patctl)
    assert (found["state"], found["cursor"], found["last_sequence"], found["commit"]) \
        == ("ready", "c2", 2, answer["transaction"])


def test_nothing_is_applied_before_a_commit(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 1), commit(1))
    apply.ask(put("b", 2), {"op": "heartbeat"}, kind="heartbeat")
    assert set(export(patctl)) == {"a"}
    apply.ask(commit(2))
    assert set(export(patctl)) == {"a", "b"}


def test_a_revocation_counts_from_the_acknowledgement(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 1), put("b", 2), commit(2))
    before = int(time.time())
    apply.ask(revoke("a", 3), revoke("b", 4, revoked_at="2026-01-01T00:00:00Z"), commit(4))
    tokens = export(patctl)
    assert before <= tokens["a"]["revoked_at"] <= time.time()
    assert tokens["b"]["revoked_at"] == 1767225600
    assert tokens["a"]["seq"] == 3


def test_a_put_may_take_a_revocation_back(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 1), revoke("a", 2), commit(2))
    apply.ask(put("a", 3), commit(3))
    assert "revoked_at" not in export(patctl)["a"]


def test_duplicates_and_disorder_are_harmless(apply: Apply, patctl: Patctl) -> None:
    changes = [put("a", 1), put("a", 4, name="fourth"), revoke("a", 7), put("b", 2), delete("b", 5), put("b", 6),
               put("c", 3), delete("c", 8), put("d", 9, revoked_at=5), put("d", 10, name="back")]
    for seed in range(20):
        mixed = changes * 3
        random.Random(seed).shuffle(mixed)
        store = Patctl(patctl.store.parent / f"mixed{seed}")
        store.run("init")
        for start in range(0, len(mixed), 7):
            run(store, *mixed[start:start + 7], commit(start))
        tokens = export(store)
        assert set(tokens) - {"a"} == {"b", "d"}, seed
        # A revocation that came before the token leaves no more than the refusal.
        assert "a" not in tokens or "revoked_at" in tokens["a"], seed
        assert (tokens["b"]["seq"], tokens["d"]["name"], tokens["d"].get("revoked_at")) == (6, "back", None)


def test_an_older_change_does_not_count(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 5, revoked_at=7), commit(5))
    answer = apply.ask(put("a", 4), put("a", 5), revoke("a", 3), delete("a", 5), commit(6))
    assert (answer["applied"], answer["older"]) == (0, 4)
    assert export(patctl)["a"]["revoked_at"] == 7


@pytest.mark.parametrize("last", [revoke("a", 5), delete("a", 5)], ids=["revoked", "deleted"])
def test_what_was_refused_before_it_came_stays_refused(apply: Apply, patctl: Patctl, last: dict[str, Any]) -> None:
    apply.ask(last, commit(5))
    apply.ask(put("a", 4), commit(6))
    assert export(patctl) == {}
    apply.ask(put("a", 6), commit(7))
    assert set(export(patctl)) == {"a"}


def test_a_deleted_token_is_gone(apply: Apply, patctl: Patctl) -> None:
    token = patctl.issue()
    (issued,) = patctl.json("export")
    apply.ask({"op": "delete", "digest": issued["digest"], "seq": 1}, commit(1))
    assert patctl.verdict(token) == "unknown"
    assert stats(patctl)["meta_tokens"] == 0
    patctl.run("verify")


# --- revocation on this host ---


@pytest.mark.parametrize("change", [put("a", 9), revoke("a", 9), delete("a", 9)], ids=["put", "revoke", "delete"])
def test_no_change_undoes_a_revocation_on_this_host(apply: Apply, patctl: Patctl, change: dict[str, Any]) -> None:
    apply.ask(put("a", 1), commit(1))
    patctl.run("revoke", "a")
    apply.ask(change, commit(9))
    apply.ask(put("a", 10), commit(10))
    assert export(patctl)["a"]["local_revoked_at"]
    patctl.run("restore-access", "a")
    assert "local_revoked_at" not in export(patctl)["a"]


def test_restoring_access_does_not_bring_back_what_the_source_deleted(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 1), commit(1))
    patctl.run("revoke", "a")
    apply.ask(delete("a", 2), commit(2))
    patctl.run("restore-access", "a", status=NO)
    assert export(patctl)["a"]["revoked_at"]


def test_no_snapshot_undoes_a_revocation_on_this_host(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 1), put("b", 2), commit(2))
    patctl.run("revoke", "a")
    patctl.run("revoke", "b")
    for epoch, seq in (("E", 5), ("E", 6), ("F", 3)):
        apply.ask(begin(epoch, seq), kind="snapshot_begun")
        apply.ask(put("a", 1), end(seq), kind="snapshot_committed")
        tokens = export(patctl)
        assert tokens["a"]["local_revoked_at"] and tokens["b"]["local_revoked_at"]
        assert "revoked_at" not in tokens["a"] and tokens["b"]["revoked_at"]


def test_a_source_can_not_say_what_only_this_host_can(apply: Apply) -> None:
    for field, value in (("local_revoked_at", 5), ("denied", False)):
        answer = apply.ask(put("a", 1, **{field: value}), kind="rejected")
        assert answer["cause"] == f"{field}: a source may not set this field"


# --- lines that can't be used ---


def bad_lines(name: str, seq: int) -> list[str]:
    good = json.dumps(put(name, seq))
    return [
        json.dumps(put(name, seq, subject=5)),
        json.dumps(put(name, seq, name="x" * 256)),
        json.dumps(put(name, seq, expires_at="tomorrow")),
        json.dumps(put(name, seq, colour="red")),
        json.dumps(put(name, seq, name="x" * 70000)),
        json.dumps(put(name, seq, name="x" * 3000000)),
        json.dumps({**put(name, seq), "op": "putt"}),
        json.dumps(revoke(name, seq, revoked_at="never")),
        json.dumps(revoke(name, seq, revoked_at=1767225600000)),
        good[:-1],
        good[:-1] + ",}",
        good[:-1].replace(": ", "\r:\r"),
        good.replace('"put"', '"put'),
    ]


@pytest.mark.parametrize("which", range(13))
def test_a_bad_line_denies_its_token_until_a_good_one_comes(apply: Apply, patctl: Patctl, which: int) -> None:
    token = patctl.issue()
    (issued,) = patctl.json("export")
    apply.ask(put("other", 1), commit(1))

    line = bad_lines("a", 5)[which].replace(digest("a"), issued["digest"])
    rejected = apply.ask(line, kind="rejected")
    assert (rejected["line"], rejected["digest"]) == (3, issued["digest"])
    assert apply.ask(put("b", 6), commit(6))["rejected"] == 1
    assert patctl.verdict(token) == "revoked"
    assert set(export(patctl)) == {issued["id"], "other", "b"}, "the rest goes on"
    assert "denied" in patctl.run("show", issued["id"]).stdout

    again = {**put("a", 4), "digest": issued["digest"]}
    apply.ask(again, commit(7))
    assert patctl.verdict(token) == "revoked", "an older one does not help"
    apply.ask({**again, "seq": 5}, commit(8))
    assert patctl.verdict(token) == "ok"
    patctl.run("verify")


def test_a_bad_line_about_a_token_that_is_not_there_keeps_older_ones_out(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 5, subject=""), kind="rejected")
    apply.ask(put("a", 4), commit(5))
    assert export(patctl) == {}
    apply.ask(put("a", 5), commit(6))
    assert set(export(patctl)) == {"a"}


def test_an_older_bad_line_denies_nothing(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 5), commit(5))
    apply.ask(put("a", 4, subject=5), kind="rejected")
    apply.ask(commit(6))
    assert "denied" not in export(patctl)["a"]


def test_a_bad_line_without_a_digest_is_no_more_than_rejected(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 1), commit(1))
    for line, cause in (
        ("{", "not JSON"), ("[]", "not a JSON object"), ('{"seq":1}', 'no field "op"'), ('{"op":"commit"}', "cursor"),
        ('{"op":"put","op":"put"}', "twice"), ('{"op":5}', "op: not a string"),
        (json.dumps(commit("x" * 257)), "cursor: longer than 256 bytes"),
        (json.dumps(begin("x" * 65, 1)), "epoch: longer than 64 bytes"),
        (json.dumps(end(1)), "no snapshot has begun"), ('{"op":"heartbeat","at":-1}', "at: "),
        ('{"op":"revoke","digest":"12","seq":1}', "64 hexadecimal digits"),
    ):
        assert cause in apply.ask(line, kind="rejected")["cause"], line
    apply.ask(commit(2))
    assert "denied" not in export(patctl)["a"]


def test_a_change_needs_a_number(apply: Apply) -> None:
    for line in (put("a", None), put("a", 0), {**revoke("a", 1), "seq": None}, delete("a", 0)):
        assert "seq" in apply.ask(line, kind="rejected")["cause"]


def test_blank_lines_are_none(apply: Apply) -> None:
    assert apply.ask("", " \t", put("a", 1), commit(1))["line"] == 4


def test_a_claim_that_looks_like_a_digest_denies_nobody(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 1), commit(1))
    apply.ask(put("b", 2, claims={"digest": digest("a")}, subject=5), kind="rejected")
    for line in (put("b", 3, name=f'"digest":"{digest("a")}"'), put("b", 4, claims={"digest": digest("a")})):
        apply.ask(json.dumps(line)[:-1], kind="rejected")
    apply.ask(commit(2))
    assert "denied" not in export(patctl)["a"]


# --- the cursor ---


def test_a_gap_keeps_the_cursor_where_it_is(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 1), commit(1))
    apply.ask(put("b", 2), commit(2, after="1"))
    assert '"2" and cursor "3"' in apply.ask(put("d", 4), commit(4, after="3"), kind="rejected")["cause"]
    apply.ask({"op": "heartbeat"}, kind="heartbeat")
    assert stats(patctl)["cursor"] == "2"


def test_a_store_goes_on_from_its_cursor(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 1), commit("one"))
    apply.kill()
    again = Apply(patctl)
    assert (again.opened["cursor"], again.opened["state"], again.opened["tokens"]) == ("one", "ready", 1)
    again.ask(commit("two", after="one"))
    again.kill()


def test_commits_that_wait_are_one_transaction(patctl: Patctl) -> None:
    answers = run(patctl, *(line for n in range(1, 101) for line in (put(n, n), commit(n))))
    assert [answer["cursor"] for answer in answers] == [str(n) for n in range(1, 101)]
    assert len({answer["transaction"] for answer in answers}) < 10
    assert stats(patctl)["meta_tokens"] == 100


def test_more_than_a_transaction_takes_is_several(patctl: Patctl) -> None:
    answers = run(patctl, *(put(n, n) for n in range(1, 45001)), commit(45000))
    assert [(a["applied"], a["cursor"]) for a in answers] == [(45000, "45000")]
    assert answers[0]["transaction"] >= 4
    assert stats(patctl)["meta_tokens"] == 45000


def test_revocations_overtake_what_they_wait_behind(patctl: Patctl) -> None:
    """The transaction before the last of a long queue holds the revocation, and not what came before it."""
    lines = [put(n, n) for n in range(1, 3001)] + [revoke(1, 3001), put("x", 3002, revoked_at=9)]
    assert run(patctl, put(1, 1), commit(1))
    apply = Apply(patctl)
    os.kill(apply.process.pid, signal.SIGSTOP)
    first = stats(patctl)["commit"]
    apply.send(*lines, commit(3002))
    os.kill(apply.process.pid, signal.SIGCONT)
    assert apply.answer("committed")["applied"] == 3001
    assert stats(patctl)["commit"] == first + 2
    tokens = export(patctl)
    assert tokens["1"]["revoked_at"] and tokens["x"]["revoked_at"] == 9 and len(tokens) == 3001
    apply.kill()


# --- the end of the input ---


def test_changes_without_a_commit_are_dropped(patctl: Patctl) -> None:
    text = "".join(json.dumps(line) + "\n" for line in (put("a", 1), commit(1), put("b", 2)))
    assert "1 changes without a commit after them" in patctl.run("apply", input=text, status=NO).stderr
    assert set(export(patctl)) == {"a"}


def test_a_line_that_was_cut_off_says_nothing(patctl: Patctl) -> None:
    for last in (json.dumps(put("a", 2, subject=5)), json.dumps(revoke("a", 2))[:-2], json.dumps(commit(2))):
        text = "".join(json.dumps(line) + "\n" for line in (put("a", 1), commit(1))) + last
        assert "is incomplete, and was dropped" in patctl.run("apply", input=text, status=NO).stderr
        assert (stats(patctl)["cursor"], stats(patctl)["ok"]) == ("1", 1)


# --- heartbeats ---


def test_a_heartbeat_is_when_the_source_was_reached(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 1), commit(1))
    assert stats(patctl)["heartbeat"] is None, "a commit says nothing about what follows it"
    assert apply.ask({"op": "heartbeat", "at": 1700000000}, kind="heartbeat")["at"] == 1700000000
    assert stats(patctl)["heartbeat"] == 1700000000
    # time(2) may be some milliseconds late, and so tell the second before.
    begin = int(time.time()) - 1
    assert begin <= apply.ask({"op": "heartbeat"}, kind="heartbeat")["at"] <= time.time()
    assert apply.ask({"op": "heartbeat", "at": begin + 1000000}, kind="heartbeat")["at"] <= time.time()
    apply.ask({"op": "heartbeat", "at": 1700000000}, kind="heartbeat")
    assert stats(patctl)["heartbeat"] >= begin, "it does not go back"


def test_a_heartbeat_of_a_clock_that_was_wrong_does_not_last(patctl: Patctl) -> None:
    heartbeat = json.dumps({"op": "heartbeat"}) + "\n"
    command = ["faketime", "+1 day", PATCTL, "--store", str(patctl.store), "apply"]
    subprocess.run(command, input=heartbeat.encode(), check=True, capture_output=True)
    assert stats(patctl)["heartbeat"] > time.time() + 86000
    patctl.run("apply", input=heartbeat)
    assert abs(stats(patctl)["heartbeat"] - time.time()) < 60


# --- snapshots ---


def test_a_snapshot_is_what_the_store_then_holds(apply: Apply, patctl: Patctl) -> None:
    apply.ask(*(put(n, n) for n in range(1, 301)), commit(300))
    begun = apply.ask(begin("E", 500), kind="snapshot_begun")
    assert (begun["epoch"], begun["seq"]) == ("E", 500)
    assert stats(patctl)["state"] == "resync"
    wanted = [put(n, n + 200, name="new") for n in range(101, 301)] + [put(f"more{n}", None) for n in range(50)]
    random.Random(7).shuffle(wanted)
    apply.send(*wanted)
    done = apply.ask(end("c", at=1700000000), kind="snapshot_committed")
    assert (done["received"], done["written"], done["removed"], done["rejected"]) == (250, 250, 100, 0)
    tokens = export(patctl)
    assert set(tokens) == {str(n) for n in range(101, 301)} | {f"more{n}" for n in range(50)}
    assert tokens["200"] == {"digest": digest(200), "id": "200", "subject": "user:200", "name": "new", "seq": 400}
    found = stats(patctl)
    assert (found["state"], found["epoch"], found["cursor"], found["last_sequence"], found["heartbeat"]) \
        == ("ready", "E", "c", 500, 1700000000)
    patctl.run("verify")


def test_nothing_of_a_snapshot_counts_before_its_end(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 1), put("b", 2), commit(2))
    apply.ask(begin("E", 5), kind="snapshot_begun")
    apply.ask(put("a", 1, revoked_at=5), put("c", 3), {"op": "heartbeat"}, kind="heartbeat")
    assert set(export(patctl)) == {"a", "b"} and "revoked_at" not in export(patctl)["a"]
    assert "before the end of the snapshot" in apply.end(NO)
    assert set(export(patctl)) == {"a", "b"}
    found = stats(patctl)
    assert (found["state"], found["cursor"], found["heartbeat"]) == ("resync", "", None)

    assert run(patctl, put("d", 6), commit(6), {"op": "heartbeat"})[1]["at"] == 0
    assert stats(patctl)["state"] == "resync" and stats(patctl)["cursor"] == ""
    run(patctl, begin("E", 7), put("a", 1), end(7))
    assert set(export(patctl)) == {"a"} and stats(patctl)["state"] == "ready"


def test_an_unchanged_snapshot_writes_nothing(apply: Apply, patctl: Patctl) -> None:
    rows = [put(n, n) for n in range(1, 20001)]
    apply.send(begin("E", 20000), *rows, end(1))
    apply.answer("snapshot_begun")
    assert apply.answer("snapshot_committed")["written"] == 20000
    patctl.run("revoke", "7")
    before = stats(patctl)["commit"]
    apply.send(begin("E", 20001), *rows, end(2))
    apply.answer("snapshot_begun")
    done = apply.answer("snapshot_committed")
    assert (done["received"], done["written"], done["removed"]) == (20000, 0, 0)
    assert stats(patctl)["commit"] - before == 2, "its begin and its end"


def test_changes_go_on_while_a_snapshot_arrives(apply: Apply, patctl: Patctl) -> None:
    apply.ask(*(put(n, n) for n in range(1, 11)), commit(10))
    apply.ask(begin("E", 10), kind="snapshot_begun")
    apply.send(*(put(n, n) for n in range(1, 6)))
    apply.ask(revoke(1, 11), delete(2, 12), put("new", 13), put(9, 14, name="changed"), delete(10, 15), commit(15))
    tokens = export(patctl)
    assert tokens["1"]["revoked_at"] and "2" not in tokens and "new" in tokens, "they count at once"
    assert stats(patctl)["cursor"] == "", "and the cursor waits"
    apply.send(*(put(n, n) for n in range(6, 11)))
    done = apply.ask(end(15), kind="snapshot_committed")
    tokens = export(patctl)
    assert set(tokens) == {"1", "3", "4", "5", "6", "7", "8", "9", "new"}
    assert tokens["1"]["revoked_at"] and tokens["9"]["name"] == "changed"
    assert (done["received"], stats(patctl)["cursor"], stats(patctl)["last_sequence"]) == (10, "15", 15)
    apply.ask(put("later", 16), commit(16, after="15"))


def test_changes_behind_the_end_of_a_snapshot_do_not_wait_for_it(apply: Apply, patctl: Patctl) -> None:
    count = 200000
    apply.ask(begin("E", count), kind="snapshot_begun")
    apply.send(*(put(n, n) for n in range(1, count + 1)), end(count))
    apply.answer("snapshot_progress")
    apply.ask(put(7, count + 1, revoked_at=9), commit(count + 1, after=str(count)))  # answered before the snapshot is
    assert export(patctl)["7"]["revoked_at"] == 9
    apply.answer("snapshot_committed")
    assert export(patctl)["7"]["revoked_at"] == 9
    assert stats(patctl)["cursor"] == str(count + 1)
    apply.ask(commit(count + 2, after=str(count + 1)))


def test_a_bad_row_denies_its_token(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 1), put("b", 2), put("c", 3), commit(3))
    apply.ask(begin("E", 9), kind="snapshot_begun")
    apply.ask(put("a", 1), put("b", 4, subject=5), kind="rejected")
    apply.ask(json.dumps(put("d", 5))[:-1], kind="rejected")
    done = apply.ask(put("b", 2), end(9), kind="snapshot_committed")
    assert done["rejected"] == 2
    tokens = export(patctl)
    assert set(tokens) == {"a", "b"} and tokens["b"]["denied"] is True and "denied" not in tokens["a"]
    apply.ask(put("b", 10), commit(10))
    assert "denied" not in export(patctl)["b"]
    apply.ask(begin("E", 11), kind="snapshot_begun")
    apply.ask(put("a", 1), put("b", 10, subject=5), kind="rejected")
    apply.ask(end(11), kind="snapshot_committed")
    assert export(patctl)["b"]["denied"] is True
    apply.ask(begin("E", 12), kind="snapshot_begun")
    apply.ask(put("b", 10), end(12), kind="snapshot_committed")
    assert "denied" not in export(patctl)["b"]


def test_a_bad_row_without_a_number_may_be_a_change(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 1), commit(1))
    apply.ask(begin("E", 9), kind="snapshot_begun")
    bad = json.dumps(put("a", None, subject=5))
    apply.ask(bad, kind="rejected")
    apply.ask(commit(2))
    assert export(patctl)["a"]["denied"] is True, "it counts at once"
    apply.ask(put("a", 1), end(9), kind="snapshot_committed")
    assert export(patctl)["a"]["denied"] is True, "and in the snapshot"


def test_a_snapshot_ends_tombstones_that_are_older(apply: Apply, patctl: Patctl) -> None:
    apply.ask(*(delete(n, n) for n in range(1, 101)), commit(100))
    apply.ask(begin("E", 100), kind="snapshot_begun")
    apply.ask(delete("live", 101), commit(101))
    assert stats(patctl)["tombstones"] == 101
    apply.ask(put("live", 50), end(101), kind="snapshot_committed")
    assert (stats(patctl)["tombstones"], export(patctl)) == (1, {})


def test_what_is_older_than_a_snapshot_does_not_count(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 1), delete("b", 3), commit(3))
    apply.ask(begin("E", 5), kind="snapshot_begun")
    apply.ask(put("z", 4), end(5), kind="snapshot_committed")
    answer = apply.ask(put("a", 2), put("b", 4), put("c", 5), commit(6))
    assert (answer["applied"], answer["older"]) == (0, 3)
    assert set(export(patctl)) == {"z"}


def test_a_snapshot_of_the_same_epoch_is_not_older_than_the_store(apply: Apply, patctl: Patctl) -> None:
    apply.ask(begin("E", 5), kind="snapshot_begun")
    apply.ask(put("a", 5), end(5), kind="snapshot_committed")
    apply.ask(revoke("a", 6), commit(6))
    assert "older than the store, which holds change 6" in apply.ask(begin("E", 5), kind="rejected")["cause"]
    apply.ask(put("a", 5), end(5), kind="rejected")
    assert export(patctl)["a"]["revoked_at"] and stats(patctl)["state"] == "ready"


def test_a_new_epoch_begins_all_numbers_anew(apply: Apply, patctl: Patctl) -> None:
    apply.ask(begin("E", 1000), kind="snapshot_begun")
    apply.ask(*(put(n, 900 + n) for n in range(5)), end(1000), kind="snapshot_committed")
    apply.ask(delete(0, 1001), revoke(1, 1002), put("only-in-E", 1003), commit(1003))

    apply.ask(begin("F", 10), kind="snapshot_begun")
    apply.ask(revoke(2, 11), put(4, 12, name="live"), commit(12, after=""))
    assert export(patctl)["2"]["revoked_at"], "a change counts against the numbers of the old epoch"
    done = apply.ask(*(put(n, n) for n in range(5)), end(10), kind="snapshot_committed")
    tokens = export(patctl)
    assert set(tokens) == {"0", "1", "2", "3", "4"} and done["removed"] == 1
    assert "revoked_at" not in tokens["1"] and tokens["2"]["revoked_at"] and tokens["4"]["name"] == "live"
    assert (tokens["1"]["seq"], tokens["3"]["seq"], tokens["4"]["seq"]) == (1, 3, 12)
    found = stats(patctl)
    assert (found["epoch"], found["last_sequence"]) == ("F", 12)
    assert apply.ask(put(3, 3), put(3, 13, name="x"), commit(13))["older"] == 1
    patctl.run("verify")


def test_a_new_epoch_drops_what_no_commit_followed(apply: Apply, patctl: Patctl) -> None:
    apply.ask(begin("E", 1000), kind="snapshot_begun")
    apply.ask(put("a", 1), end(1000), kind="snapshot_committed")
    apply.ask(put("a", 1001, name="of E"), put("b", 1002), begin("F", 5), kind="snapshot_begun")
    apply.ask(commit(6), kind="committed")
    apply.ask(put("a", 1, name="of F"), end(6), kind="snapshot_committed")
    assert {n: token["name"] for n, token in export(patctl).items()} == {"a": "of F"}


def test_a_new_epoch_that_was_interrupted_is_completed(apply: Apply, patctl: Patctl) -> None:
    apply.ask(begin("E", 1000), kind="snapshot_begun")
    apply.ask(*(put(n, 900 + n) for n in range(1, 6)), end(1000), kind="snapshot_committed")
    apply.ask(begin("F", 10), kind="snapshot_begun")
    apply.ask(revoke(2, 11), commit(11))
    apply.kill()
    again = Apply(patctl)
    assert (again.opened["state"], again.opened["epoch"], again.opened["cursor"]) == ("resync", "F", "")
    again.ask(begin("F", 11), kind="snapshot_begun")
    again.ask(put(1, 1), put(2, 11, revoked_at=11), end(11), kind="snapshot_committed")
    assert {n: token["seq"] for n, token in export(patctl).items()} == {"1": 1, "2": 11}
    again.kill()


def test_a_snapshot_overtakes_the_one_before(apply: Apply, patctl: Patctl) -> None:
    apply.ask(begin("E", 5), kind="snapshot_begun")
    apply.ask(put("a", 1), begin("E", 6), kind="snapshot_begun")
    done = apply.ask(put("b", 2), end(6), kind="snapshot_committed")
    assert done["received"] == 1 and set(export(patctl)) == {"b"}


def test_the_newest_of_rows_with_the_same_digest_counts(apply: Apply, patctl: Patctl) -> None:
    apply.ask(begin("E", 9), kind="snapshot_begun")
    apply.ask(put("a", 3, name="third"), put("a", 8, name="eighth"), put("a", 5), end(9), kind="snapshot_committed")
    assert export(patctl)["a"]["name"] == "eighth"


def test_a_snapshot_that_was_killed_anywhere_is_completed_by_the_next(patctl: Patctl) -> None:
    """Kills apply at many points of a snapshot; nobody is refused meanwhile who is in both states."""
    chance = random.Random(3)
    state = {n: put(n, n) for n in range(1, 9001)}
    run(patctl, begin("E", 9000), *state.values(), end(9000))
    for turn in range(6):
        seq = 10000 + 100 * turn
        state = {n: line for n, line in state.items() if chance.random() < 0.9 or n < 100}
        for n in chance.sample(sorted(state), 2000):
            state[n] = put(n, seq, name=f"turn {turn}")
        lines = [begin("E", seq), *state.values(), end(seq)]
        apply = Apply(patctl)
        apply.send(lines[0])
        apply.answer("snapshot_begun")
        text = "".join(json.dumps(line) + "\n" for line in lines[1:]).encode()
        apply.process.stdin.write(text)  # type: ignore[union-attr]
        apply.process.stdin.flush()  # type: ignore[union-attr]
        for _ in range(turn % 3):
            apply.process.stdout.readline()  # type: ignore[union-attr]
        apply.kill()
        patctl.run("verify")
        tokens = export(patctl)
        assert all(str(n) in tokens for n in range(1, 100) if n in state)
        run(patctl, *lines)
        assert {int(n): (t["seq"], t.get("name")) for n, t in export(patctl).items()} \
            == {n: (line["seq"], line.get("name")) for n, line in state.items()}
        patctl.run("verify")


def test_a_large_snapshot_leaves_no_file_behind(patctl: Patctl) -> None:
    rows = (put(n, n, name="x" * 200) for n in range(1, 90001))
    text = "".join(json.dumps(line) + "\n" for line in (begin("E", 90000), *rows, end(1)))
    done = patctl.run("apply", input=text)
    assert json.loads(done.stdout.splitlines()[-1])["written"] == 90000
    assert sorted(path.name for path in patctl.store.iterdir()) == ["data.mdb", "lock.mdb", "open.lock"]


def test_a_revocation_counts_while_the_store_waits_for_a_snapshot(apply: Apply, patctl: Patctl) -> None:
    """Also one that the snapshot includes: nobody knows when that will be complete."""
    apply.ask(begin("E", 3), kind="snapshot_begun")
    apply.ask(*(put(name, 1) for name in "abcd"), end(3), kind="snapshot_committed")
    apply.ask(begin("E", 10), kind="snapshot_begun")
    apply.kill()
    again = Apply(patctl)
    again.ask(revoke("c", 9, revoked_at="never"), kind="rejected")
    assert again.ask(revoke("a", 7), delete("b", 8), put("d", 9), commit(9))["older"] == 1
    tokens = export(patctl)
    assert tokens["a"]["revoked_at"] and "b" not in tokens and tokens["c"]["denied"] and "denied" not in tokens["d"]
    again.kill()


def test_the_end_of_a_snapshot_commits_what_came_before_it(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 3), commit(3))
    apply.ask(begin("E", 5), kind="snapshot_begun")
    apply.ask(put("a", 3), revoke("a", 6), end(6), kind="snapshot_committed")
    assert export(patctl)["a"]["revoked_at"]
    apply.end()


def test_a_row_replaces_whatever_is_not_newer_than_the_snapshot(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 3), put("b", 8), commit(8))
    apply.ask(put("b", 10, subject=5), kind="rejected")
    apply.ask(commit(10))
    apply.ask(begin("E", 10), kind="snapshot_begun")
    apply.ask(put("a", None, revoked_at=5), put("b", 8), end(10), kind="snapshot_committed")
    assert export(patctl)["a"]["revoked_at"] == 5 and "denied" not in export(patctl)["b"]


def test_a_good_row_counts_before_a_bad_one_of_the_same_number(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 1), put("b", 1), commit(1))
    apply.ask(begin("E", 5), kind="snapshot_begun")
    apply.send(put("a", 2), put("a", 2, subject=5), put("b", 2), put("b", 3, subject=5))
    apply.answer("rejected")
    apply.answer("rejected")
    apply.ask(end(5), kind="snapshot_committed")
    assert "denied" not in export(patctl)["a"] and export(patctl)["b"]["denied"]


def test_the_rows_of_a_rejected_snapshot_say_nothing(apply: Apply, patctl: Patctl) -> None:
    apply.ask(begin("E", 50), kind="snapshot_begun")
    apply.ask(put("a", 1), put("b", 2), end(50), kind="snapshot_committed")
    apply.ask(begin("E", 40), kind="rejected")
    for row in (put("a", 60, name="new"), put("b", None), put("c", 61)):
        assert "snapshot" in apply.ask(row, kind="rejected")["cause"]
    apply.ask(put("b", 62, revoked_at=5), end(40), kind="rejected")
    apply.ask(put("d", 63), commit(63))
    tokens = export(patctl)
    assert set(tokens) == {"a", "b", "d"} and "name" not in tokens["a"] and tokens["b"]["revoked_at"]
    assert not any("denied" in token for token in tokens.values())


def test_a_gap_makes_no_store_fresh(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 1), commit(1))
    apply.ask(commit(3, after="2"), kind="rejected")
    assert apply.ask({"op": "heartbeat"}, kind="heartbeat")["at"] == 0
    assert stats(patctl)["heartbeat"] is None
    apply.ask(commit(3, after="1"))
    assert apply.ask({"op": "heartbeat"}, kind="heartbeat")["at"] > 0


def test_a_number_out_of_range_harms_no_other_token(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 1), commit(1))
    for seq in (2**63, 2**64 - 1, 2**64, -1, 1.5):
        apply.ask({**put("x", 1), "seq": seq}, kind="rejected")
    apply.ask({**put("y", 2**63 - 1), "subject": 5}, kind="rejected")
    apply.ask(commit(2))
    assert stats(patctl)["last_sequence"] == 1
    apply.ask(begin("E", 5), kind="snapshot_begun")


def test_a_number_that_is_not_certain_is_none(apply: Apply, patctl: Patctl) -> None:
    names = "abcd"
    apply.ask(*(put(name, 5) for name in names), commit(5))
    lines = [
        '{"op":"revoke","seq":9,"seq":1,"digest":"%s"}', '{"op":"revoke","digest":"%s","seq":1',
        '{"op":"revoke","seq":1e3,"digest":"%s"', '{"op":"revoke","digest":"%s","seq":1.5e3}',
    ]
    for name, line in zip(names, lines):
        apply.ask(line % digest(name), kind="rejected")
    apply.ask(commit(6))
    assert all(export(patctl)[name]["denied"] for name in names)


def test_epochs_without_a_complete_snapshot_are_limited(apply: Apply, patctl: Patctl) -> None:
    """Numbers of an epoch long ago must not count again."""
    apply.ask(put("a", 1000), commit(1))
    for number in range(250):
        apply.ask(begin(f"E{number}", 10), kind="snapshot_begun")
    assert "make the store anew" in apply.ask(begin("F", 10), kind="rejected")["cause"]
    apply.ask(begin("E249", 10), kind="snapshot_begun")
    apply.ask(put("b", 1), end(10), kind="snapshot_committed")
    apply.ask(begin("F", 10), kind="snapshot_begun")


def test_a_snapshot_of_few_does_not_take_a_large_store_in_one_step(apply: Apply, patctl: Patctl) -> None:
    apply.ask(begin("E", 50000), kind="snapshot_begun")
    apply.ask(*(put(n, n) for n in range(1, 50001)), end(50000), kind="snapshot_committed")
    before = stats(patctl)["commit"]
    apply.ask(begin("E", 50001), kind="snapshot_begun")
    assert apply.ask(put(7, 7), end(50001), kind="snapshot_held")["removed"] == 49999
    patctl.run("accept-snapshot")
    assert apply.answer("snapshot_committed")["removed"] == 49999
    assert stats(patctl)["commit"] - before >= 8
    assert set(export(patctl)) == {"7"}


def test_digests_that_are_alike_are_merged_in_steps_too(apply: Apply, patctl: Patctl) -> None:
    def row(n: int, **fields: Any) -> dict[str, Any]:
        return {**put(n, n, **fields), "digest": f"00{n:062x}"}

    apply.ask(begin("E", 30000), kind="snapshot_begun")
    apply.ask(*(row(n) for n in range(1, 30001)), end(30000), kind="snapshot_committed")
    assert stats(patctl)["commit"] >= 5
    apply.ask(begin("E", 30001), kind="snapshot_begun")
    done = apply.ask(*(row(n, name="x") for n in range(1, 30001, 2)), end(30001), kind="snapshot_committed")
    assert (done["written"], done["removed"]) == (15000, 15000)
    tokens = export(patctl)
    assert set(tokens) == {str(n) for n in range(1, 30001, 2)} and all(t["name"] == "x" for t in tokens.values())
    patctl.run("verify")


# --- with others ---


def test_one_apply_works_on_a_store_at_a_time(apply: Apply, patctl: Patctl) -> None:
    folder = os.open(patctl.store, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    second = subprocess.Popen([PATCTL, "--store", str(patctl.store), "apply"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    apply.ask(put("a", 1), commit(1))
    apply.kill()
    assert second.stdout and json.loads(second.stdout.readline())["cursor"] == "1", "it goes on where the first ended"
    second.communicate()
    os.close(folder)


def test_an_apply_that_waits_too_long_gives_up(apply: Apply, patctl: Patctl) -> None:
    assert "another \"patctl apply\" is running on it" in patctl.run("apply", status=FAULT).stderr


def test_other_commands_can_write_meanwhile(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 1), commit(1))
    token = patctl.issue()
    patctl.run("revoke", "a")
    apply.ask(put("b", 2), commit(2))
    assert patctl.verdict(token) == "ok"
    assert len(export(patctl)) == 3


def gc(patctl: Patctl, when: str) -> None:
    """`patctl gc` at another time."""
    command = ["faketime", when, PATCTL, "--store", str(patctl.store), "gc", "--older-than", "90d"]
    subprocess.run(command, check=True, capture_output=True)


def test_gc_does_not_forget_what_keeps_older_changes_out(apply: Apply, patctl: Patctl) -> None:
    apply.ask(revoke("a", 5, revoked_at="2020-01-01T00:00:00Z"), delete("b", 6), commit(6))
    apply.ask(put("c", 7), revoke("c", 8, revoked_at="2020-01-01T00:00:00Z"), put("d", 9, expires_at=5), commit(9))
    gc(patctl, "+1 day")
    assert (export(patctl), stats(patctl)["tombstones"]) == ({}, 4)
    answer = apply.ask(put("a", 4), put("b", 5), put("c", 7), put("d", 8), commit(10))
    assert (answer["applied"], answer["older"]) == (0, 4)
    gc(patctl, "+200 days")
    assert stats(patctl)["tombstones"] == 0


def test_gc_keeps_revocations_on_this_host_while_there_is_a_source(apply: Apply, patctl: Patctl) -> None:
    apply.ask(put("a", 1, expires_at=5), commit(1))
    patctl.run("revoke", "a")
    gc(patctl, "+200 days")
    apply.ask(put("a", 2), commit(2))
    assert export(patctl)["a"]["local_revoked_at"]


def test_gc_waits_for_the_end_of_a_snapshot(apply: Apply, patctl: Patctl) -> None:
    apply.ask(begin("E", 5), kind="snapshot_begun")
    apply.ask(put("a", 3), revoke("a", 6, revoked_at=5), commit(6))
    assert "end of a snapshot" in patctl.run("gc", status=FAULT).stderr
    assert "end of a snapshot" in patctl.run("gc", "--dry-run", status=FAULT).stderr
    apply.ask(end(6), kind="snapshot_committed")
    assert export(patctl)["a"]["revoked_at"], "a revocation that overtook its row is in it"


# --- a full disk ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Takes all the room that is left but 200 KiB."""
    ballast = disk / "ballast"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    ballast.write_bytes(b"x" * (free - 200 * 1024))
    return ballast


def test_a_full_disk_is_waited_for_and_nothing_is_lost(small_disk: Path) -> None:
    store = Patctl(small_disk / "store")
    store.run("init")
    apply = Apply(store)
    apply.ask(put("first", 1), commit(1))
    ballast = fill(small_disk)

    apply.send(*(put(n, n, name="x" * 200) for n in range(2, 3002)), revoke("first", 3002), commit(3002))
    for wait in (100, 200, 400):
        waiting = apply.answer("waiting")
        assert waiting["milliseconds"] == wait and "is the disk full?" in waiting["cause"]
    assert set(export(store)) <= {"first"} and stats(store)["cursor"] == "1"
    store.run("verify")

    ballast.unlink()
    while (line := json.loads(apply.process.stdout.readline()))["answer"] == "waiting":  # type: ignore[union-attr]
        pass
    assert (line["answer"], line["applied"], line["cursor"]) == ("committed", 3001, "3002")
    tokens = export(store)
    assert len(tokens) == 3001 and tokens["first"]["revoked_at"]
    assert "disk" in apply.end()


def test_an_apply_that_nobody_feeds_does_not_wait_for_room(small_disk: Path) -> None:
    store = Patctl(small_disk / "store")
    store.run("init")
    apply = Apply(store)
    fill(small_disk)
    apply.send(*(put(n, n, name="x" * 200) for n in range(2, 3002)), commit(3002))
    apply.answer("waiting")
    apply.end(FAULT)
    assert stats(store)["cursor"] == ""


def test_a_disk_that_fills_up_while_a_snapshot_is_merged(small_disk: Path) -> None:
    store = Patctl(small_disk / "store")
    store.run("init")
    apply = Apply(store)
    apply.ask(begin("E", 1), kind="snapshot_begun")
    ballast = fill(small_disk)
    apply.send(*(put(n, 1) for n in range(20000)), end(1))
    apply.answer("waiting")
    apply.answer("waiting")
    ballast.unlink()
    while (line := json.loads(apply.process.stdout.readline()))["answer"] != "snapshot_committed":  # type: ignore[union-attr]
        assert line["answer"] in ("waiting", "snapshot_progress")
    assert (line["received"], line["written"]) == (20000, 20000)
    assert len(export(store)) == 20000 and stats(store)["state"] == "ready"
    store.run("verify")
    apply.kill()


def test_a_snapshot_that_does_not_fit_is_told_and_the_next_one_completes_it(small_disk: Path) -> None:
    store = Patctl(small_disk / "store")
    store.run("init")
    ballast = fill(small_disk)
    lines = [begin("E", 5), *(put(n, 5, name="x" * 200) for n in range(60000)), end(5)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    assert "No space left" in store.run("apply", input=text, status=FAULT).stderr
    assert stats(store)["state"] == "resync"
    ballast.unlink()
    run(store, begin("E", 6), put("a", 5), end(6))
    assert set(export(store)) == {"a"}
