"""Snapshots that remove what only an operator may give away."""

from __future__ import annotations

import json
from typing import Any

import pytest

from conftest import NO, Patctl
from test_apply import Apply, apply, begin, commit, end, export, put, revoke, run, stats  # noqa: F401


def fill(patctl: Patctl, count: int, epoch: str = "E") -> None:
    """A store of a source with so many tokens."""
    run(patctl, begin(epoch, 1), *(put(i, 1) for i in range(count)), end(1))


def held(patctl: Patctl) -> dict[str, Any]:
    found: dict[str, Any] = stats(patctl)["held_snapshot"]
    return found


# --- a store that holds tokens which no source gave ---


@pytest.mark.parametrize("how", ["issued", "imported", "imported with numbers", "issued beside a source without snapshots"])
def test_a_store_of_local_tokens_becomes_a_sources_only_by_a_word_of_the_operator(patctl: Patctl, how: str) -> None:
    if how.startswith("issued"):
        if "beside" in how:
            run(patctl, put("a", 5), commit(5))
        patctl.issue()
    else:
        patctl.load({"digest": "ab" * 32, "id": "1", "subject": "s", **({"seq": 7} if "numbers" in how else {})})
    before = export(patctl)

    snapshot = [begin("E", 9), put("a", 5), end(9)]
    for _ in range(2):
        answers = run(patctl, *snapshot)
        assert answers[0]["answer"] == "rejected" and answers[0]["held"]
        assert "patctl accept-snapshot" in answers[0]["cause"]
        assert export(patctl) == before
        assert (stats(patctl)["epoch"], held(patctl)["first"], held(patctl)["accepted"]) == ("", True, False)
    patctl.run("verify")

    patctl.run("accept-snapshot")
    assert run(patctl, *snapshot)[-1]["answer"] == "snapshot_committed"
    assert set(export(patctl)) == {"a"}
    assert "held_snapshot" not in stats(patctl)
    patctl.run("accept-snapshot", status=NO)


def test_the_word_may_be_said_before_the_source_comes(patctl: Patctl) -> None:
    patctl.issue()
    assert "takes over the store" in patctl.run("accept-snapshot").stderr
    assert run(patctl, begin("E", 1), put("a", 1), end(1))[-1]["answer"] == "snapshot_committed"
    assert set(export(patctl)) == {"a"}


def test_the_word_for_a_first_snapshot_is_none_for_one_without_tokens(patctl: Patctl) -> None:
    patctl.issue()
    patctl.run("accept-snapshot")
    assert run(patctl, begin("E", 1), end(1), status=NO)[-1]["answer"] == "snapshot_held"
    assert stats(patctl)["meta_tokens"] == 1
    patctl.run("accept-snapshot")
    assert run(patctl, begin("E", 1), end(1))[-1]["answer"] == "snapshot_committed"
    assert stats(patctl)["meta_tokens"] == 0


def test_a_new_store_and_one_whose_tokens_came_from_a_source_need_no_word(patctl: Patctl) -> None:
    assert run(patctl, begin("E", 1), end(1))[-1]["answer"] == "snapshot_committed"
    patctl.run("accept-snapshot", status=NO)


def test_a_store_that_was_filled_by_changes_alone_needs_no_word(patctl: Patctl) -> None:
    run(patctl, put("a", 1), commit(1))
    assert run(patctl, begin("E", 2), put("b", 2), end(2))[-1]["answer"] == "snapshot_committed"


def test_what_is_made_beside_a_source_is_warned_of(patctl: Patctl) -> None:
    line = json.dumps({"digest": "ab" * 32, "id": "1", "subject": "s"})
    for command, input in ((("issue", "--subject", "s"), ""), (("import", "-"), line)):
        assert "warning" not in patctl.run(*command, input=input).stderr
    patctl.run("accept-snapshot")
    run(patctl, begin("E", 1), put("a", 1), end(1))
    for command, input in ((("issue", "--subject", "s"), ""), (("import", "-"), line)):
        assert "warning: the store has a source" in patctl.run(*command, input=input).stderr


# --- snapshots that remove nearly all ---


@pytest.mark.parametrize("epoch", ["E", "F"])
def test_a_snapshot_without_tokens_is_held_back_until_it_is_accepted(patctl: Patctl, epoch: str) -> None:
    fill(patctl, 3)
    heartbeat = stats(patctl)["heartbeat"]
    apply = Apply(patctl)  # noqa: F811
    try:
        apply.ask(begin(epoch, 2), kind="snapshot_begun")
        answer = apply.ask(end(2), kind="snapshot_held")
        assert (answer["removed"], answer["tokens"]) == (3, 3)
        assert "accept-snapshot" in answer["cause"]

        # Changes go on, with the numbers of the new epoch; no heartbeat does.
        assert apply.ask(revoke(0, 3), commit(3, after="2"))["applied"] == 1
        assert apply.ask(put("new", 4), commit(4, after="3"))["applied"] == 1
        assert apply.ask({"op": "heartbeat"}, kind="heartbeat")["at"] == 0
        assert "revoked_at" in export(patctl)["0"] and "revoked_at" not in export(patctl)["1"]
        assert (stats(patctl)["state"], stats(patctl)["heartbeat"]) == ("resync", heartbeat)

        assert "may remove 3 of 3" in patctl.run("accept-snapshot").stderr
        done = apply.answer("snapshot_committed")
        assert (done["removed"], done["cursor"]) == (2, "4"), "the one that was revoked is newer"
        assert set(export(patctl)) == {"0", "new"}
        assert "held_snapshot" not in stats(patctl)
        assert apply.ask({"op": "heartbeat"}, kind="heartbeat")["at"] > 0
        apply.end()
    finally:
        apply.kill()
    patctl.run("verify")


def test_what_is_accepted_counts_once_and_for_the_next_process_too(patctl: Patctl) -> None:
    fill(patctl, 3)
    assert "would remove 3 of the 3" in patctl.run("apply", input=lines(begin("E", 2), end(2)), status=NO).stderr
    assert set(export(patctl)) == {"0", "1", "2"}
    patctl.run("accept-snapshot")
    patctl.run("accept-snapshot")
    assert run(patctl, begin("E", 3), end(3))[-1]["answer"] == "snapshot_committed"
    assert export(patctl) == {}

    run(patctl, begin("E", 4), put("a", 4), end(4))
    assert run(patctl, begin("E", 5), end(5), status=NO)[-1]["answer"] == "snapshot_held"
    assert set(export(patctl)) == {"a"}


def lines(*messages: dict[str, Any]) -> str:
    return "".join(json.dumps(message) + "\n" for message in messages)


def test_a_good_snapshot_takes_the_place_of_the_one_that_is_held_back(patctl: Patctl) -> None:
    fill(patctl, 3)
    apply = Apply(patctl)  # noqa: F811
    try:
        apply.ask(begin("E", 2), kind="snapshot_begun")
        apply.ask(end(2), kind="snapshot_held")
        assert "replaces" in apply.ask(begin("E", 3), kind="rejected")["cause"]
        apply.answer("snapshot_begun")
        apply.ask(*(put(i, 1) for i in range(2)), end(3), kind="snapshot_committed")
        assert set(export(patctl)) == {"0", "1"}
        assert "held_snapshot" not in stats(patctl)
    finally:
        apply.kill()


def test_what_was_accepted_for_few_is_not_for_none(patctl: Patctl) -> None:
    fill(patctl, 200)
    assert run(patctl, begin("E", 2), put(0, 1), end(2), status=NO)[-1]["answer"] == "snapshot_held"
    patctl.run("accept-snapshot")
    assert run(patctl, begin("E", 3), end(3), status=NO)[-1]["answer"] == "snapshot_held"
    assert stats(patctl)["meta_tokens"] == 200


def test_what_was_accepted_is_not_for_one_that_keeps_less(patctl: Patctl) -> None:
    fill(patctl, 2000)
    assert run(patctl, begin("E", 2), *(put(i, 1) for i in range(100)), end(2), status=NO)[-1]["removed"] == 1900
    patctl.run("accept-snapshot")
    worse = [begin("E", 3), *(put(i, 1) for i in range(89)), *(put(f"other {i}", 1) for i in range(100)), end(3)]
    assert run(patctl, *worse, status=NO)[-1]["removed"] == 1911
    assert (held(patctl)["accepted"], held(patctl)["removed"]) == (False, 1911)
    assert stats(patctl)["meta_tokens"] == 2000

    # The source goes on meanwhile: what is about as much needs no other word.
    patctl.run("accept-snapshot")
    assert run(patctl, begin("E", 4), *(put(i, 1) for i in range(81)), end(4))[-1]["answer"] == "snapshot_committed"
    assert stats(patctl)["meta_tokens"] == 81


def test_nearly_all_is_nine_tenths_of_at_least_a_hundred(patctl: Patctl) -> None:
    fill(patctl, 200)
    keep = [put(i, 1) for i in range(19)]
    others = [put(f"other {i}", 1) for i in range(500)]
    assert run(patctl, begin("F", 2), *keep, *others, end(2), status=NO)[-1]["removed"] == 181
    assert len(export(patctl)) == 200, "nothing of a snapshot that is held back comes in"
    run(patctl, begin("G", 2), *keep, put(19, 1), end(2))
    assert len(export(patctl)) == 20
    run(patctl, begin("H", 2), put("one", 1), end(2))
    assert set(export(patctl)) == {"one"}, "of few, it may be all but one"


def test_revocations_in_a_snapshot_that_is_held_back_go_through(patctl: Patctl) -> None:
    fill(patctl, 200)
    rows = [put(0, 2, revoked_at=5), put(1, 2, name="changed"), put(2, 2, subject=5), put("new", 2, revoked_at=5)]
    assert run(patctl, begin("F", 9), *rows, end(9), status=NO)[-1]["answer"] == "snapshot_held"
    records = export(patctl)
    assert "revoked_at" in records["0"] and "name" not in records["1"] and records["2"]["denied"]
    assert "new" not in records and len(records) == 200
    patctl.run("verify")
    patctl.run("accept-snapshot")
    run(patctl, begin("F", 9), *rows, end(9), status=0)
    assert set(export(patctl)) == {"0", "1", "2", "new"}


def test_what_no_request_is_let_in_with_may_go(patctl: Patctl) -> None:
    run(patctl, begin("E", 1), *(put(i, 1, expires_at=5) for i in range(150)), put("live", 1), end(1))
    run(patctl, begin("E", 2), put("live", 1), end(2))
    assert set(export(patctl)) == {"live"}


def test_what_was_revoked_here_and_stays_is_no_removal(patctl: Patctl) -> None:
    fill(patctl, 1)
    patctl.run("revoke", "0")
    for epoch, seq in (("E", 2), ("E", 3), ("F", 1)):
        assert run(patctl, begin(epoch, seq), end(seq))[-1]["answer"] == "snapshot_committed"
        assert export(patctl)["0"]["local_revoked_at"] > 0


def test_a_large_store_is_weighed_whole(patctl: Patctl) -> None:
    fill(patctl, 20000)
    few = [put(i, 1) for i in range(1900)]
    assert run(patctl, begin("E", 2), *few, end(2), status=NO)[-1]["removed"] == 18100
    assert stats(patctl)["meta_tokens"] == 20000
    run(patctl, begin("E", 3), *few, *(put(i, 1) for i in range(1900, 2100)), end(3))
    assert stats(patctl)["meta_tokens"] == 2100
