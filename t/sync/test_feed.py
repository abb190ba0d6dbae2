"""The source https://: what the contract in docs/pat-sync.md promises, against a server that does not keep to it."""

from __future__ import annotations

import gzip
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from authority import Authority
from basics import PATCTL, wait_until
from feed_server import Feed, Handler, digest, token
from sidecar import PatSync, once
from store import Store

# Short times, so that nothing has to be waited for.
FAST = ("--poll-interval", "0.1", "--heartbeat-interval", "0.3", "--query-timeout", "1")


@pytest.fixture
def feed() -> Iterator[Feed]:
    with Feed() as made:
        yield made


def follow(feed: Feed, store: Store, *arguments: str | Path) -> PatSync:
    return PatSync("--source", feed.url, "--store", store.folder, *FAST, *arguments)


def take_once(feed: Feed, store: Store, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return once("--source", feed.url, "--store", store.folder, *FAST, *arguments)


def wait_for_tokens(store: Store, **wanted: str) -> None:
    wait_until(lambda: store.tokens() == wanted, f"{wanted}, and not {store.tokens()}")


# --- what works ---


def test_a_snapshot_and_then_changes(feed: Feed, store: Store) -> None:
    feed.put("a")
    with follow(feed, store) as sync:
        wait_for_tokens(store, a="ok")
        feed.put("b", expires_at=4102444800)
        feed.revoke("a")
        wait_for_tokens(store, a="revoked", b="ok")
        feed.add({"op": "delete", "digest": digest("a")})
        wait_for_tokens(store, b="ok")
        assert len(sync.find("taking a snapshot")) == 1
    assert (store.stats()["epoch"], store.stats()["cursor"]) == ("one", "4")


def test_more_changes_than_fit_into_an_answer(feed: Feed, store: Store) -> None:
    feed.put("a")
    assert take_once(feed, store).returncode == 0
    feed.page = 7
    for number in range(100):
        feed.put(f"t{number}")
    assert take_once(feed, store).returncode == 0
    assert len(store.tokens()) == 101


def test_nothing_is_asked_again_that_the_store_has(feed: Feed, store: Store) -> None:
    feed.put("a")
    assert take_once(feed, store).returncode == 0
    feed.requests.clear()
    assert take_once(feed, store).returncode == 0
    assert [query.get("after") for query, _ in feed.requests] == ["1"]
    assert feed.requests[0][1]["if-match"] == '"one"'


def test_the_heartbeat_is_the_time_before_the_request(feed: Feed, store: Store) -> None:
    """A delayed answer does not cover changes made in the meantime."""
    feed.put("a")
    with follow(feed, store, "--query-timeout", "20"):
        wait_until(lambda: store.stats()["heartbeat"], "a heartbeat")
        begun_at: list[float] = []
        asked_at: list[float] = []

        def next_second(handler: Handler) -> None:
            begun_at.append(time.time())
            wait_until(lambda: int(time.time()) > int(begun_at[0]), "the next second")
            handler.answer(500)

        def hold(handler: Handler) -> None:
            asked_at.append(time.time())
            wait_until(lambda: time.time() > asked_at[0] + 3, "three seconds")
            handler.answer(204)

        feed.faults.extend([next_second, hold, feed.hang])
        wait_until(lambda: asked_at, "a request that is held back")
        wait_until(lambda: store.stats()["heartbeat"] > begun_at[0], "the heartbeat after it")
        assert store.stats()["heartbeat"] <= asked_at[0]


def test_a_feed_that_does_not_wait_is_not_asked_all_the_time(feed: Feed, store: Store) -> None:
    feed.put("a")
    with follow(feed, store, "--poll-interval", "0.5"):
        wait_for_tokens(store, a="ok")
        feed.faults.extend([lambda handler: handler.answer(204)] * 1000)
        asked = len(feed.requests)
        age = store.stats()["commit"]
        wait_until(lambda: store.stats()["commit"] >= age + 3, "three heartbeats")
        assert len(feed.requests) - asked < 20


# --- what the feed repeats, mixes up, leaves out ---


def test_duplicates_and_disorder_do_no_harm(feed: Feed, store: Store) -> None:
    first = feed.put("a")
    assert take_once(feed, store).returncode == 0
    revoked = {"op": "put", **token("a", seq=3, revoked_at=5)}
    older = {"op": "put", **token("a", seq=2, name="older")}
    feed.faults.append(
        lambda handler: handler.lines(revoked, older, first, revoked, older, {"op": "commit", "cursor": "3"})
    )
    feed.oldest = 3
    assert take_once(feed, store).returncode == 0
    assert store.tokens() == {"a": "revoked"}
    assert store.stats()["cursor"] == "3"


def test_a_hole_is_answered_with_a_snapshot(feed: Feed, store: Store) -> None:
    feed.put("a")
    assert take_once(feed, store).returncode == 0
    feed.put("b")
    hole = [feed.put("c"), {"op": "commit", "after": "2", "cursor": "3"}]
    feed.faults.append(lambda handler: handler.lines(*hole))
    done = take_once(feed, store)
    assert done.returncode == 0
    assert 'continues from "2", and the store is at "1"' in done.stderr
    assert "taking a snapshot" in done.stderr
    assert store.tokens() == {"a": "ok", "b": "ok", "c": "ok"}


def test_another_epoch_is_answered_with_a_snapshot(feed: Feed, store: Store) -> None:
    for name in "abcdef":
        feed.put(name)
    with follow(feed, store) as sync:
        wait_for_tokens(store, **dict.fromkeys("abcdef", "ok"))
        with feed.news:
            feed.changes = []
            feed.oldest = 0
            feed.epoch = "two"
        feed.put("x")
        wait_for_tokens(store, x="ok")
        sync.wait_for_line('another epoch than the store, "one"')
    assert (store.stats()["epoch"], store.stats()["cursor"]) == ("two", "1")


def test_an_epoch_that_only_the_answer_tells_is_noticed(feed: Feed, store: Store) -> None:
    feed.put("a")
    with follow(feed, store) as sync:
        wait_for_tokens(store, a="ok")

        def other_epoch(handler: Handler) -> None:
            feed.epoch = "two"
            handler.lines({"op": "put", **token("z", seq=9)}, {"op": "commit", "cursor": "9"})

        feed.faults.append(other_epoch)
        sync.wait_for_line('the feed has another epoch, "two"')
        wait_until(lambda: store.stats()["epoch"] == "two", "the new epoch")
        assert store.tokens() == {"a": "ok"}


def test_a_cursor_that_is_too_old_is_answered_with_a_snapshot(feed: Feed, store: Store) -> None:
    feed.put("a")
    assert take_once(feed, store).returncode == 0
    feed.put("b")
    feed.oldest = 2
    done = take_once(feed, store)
    assert done.returncode == 0
    assert 'no longer knows the cursor "1"' in done.stderr
    assert store.tokens() == {"a": "ok", "b": "ok"}


def test_a_feed_that_never_knows_the_cursor_is_not_asked_all_the_time(feed: Feed, store: Store) -> None:
    feed.put("a")
    with follow(feed, store) as sync:
        wait_for_tokens(store, a="ok")

        def forgets(handler: Handler) -> None:
            feed.faults.append(forgets)
            if "after=" in handler.path:
                handler.answer(410)
            else:
                handler.send_snapshot()

        feed.faults.append(forgets)
        sync.wait_for_line("and a snapshot did not help", 3)


# --- what is broken ---


def test_errors_are_tried_again(feed: Feed, store: Store) -> None:
    feed.put("a")
    feed.faults.extend([lambda handler: handler.answer(500)] * 3)
    with follow(feed, store) as sync:
        wait_for_tokens(store, a="ok")
        assert len(sync.find(r"warning: source .* failed, trying again in .* s: it answers 500")) == 3
        sync.wait_for_line("info: source .* is back after")
    feed.faults.append(lambda handler: handler.answer(500))
    assert take_once(feed, store).returncode == 1


def test_retry_after_is_kept_to(feed: Feed, store: Store) -> None:
    feed.put("a")
    feed.faults.append(lambda handler: handler.answer(503, Retry_After="2"))
    with follow(feed, store) as sync:
        sync.wait_for_line("trying again in 2.0 s: it answers 503")
        wait_for_tokens(store, a="ok")
    assert len(feed.requests) >= 2


def test_a_feed_that_hangs_is_left(feed: Feed, store: Store) -> None:
    feed.put("a")
    feed.faults.append(feed.hang)
    with follow(feed, store) as sync:
        sync.wait_for_line("did not answer in time")
        wait_for_tokens(store, a="ok")


def test_a_feed_that_hangs_in_the_middle_is_left(feed: Feed, store: Store) -> None:
    feed.put("a")

    def half(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("ETag", '"one"')
        handler.end_headers()
        handler.wfile.write(b'{"op":"snapshot_begin","epoch":"one","seq":1}\n')
        feed.hang(handler)

    feed.faults.append(half)
    with follow(feed, store) as sync:
        sync.wait_for_line("did not answer in time")
        wait_for_tokens(store, a="ok")


@pytest.mark.parametrize("is_encrypted", [False, True])
def test_a_connection_is_used_again(store: Store, authority: Authority, is_encrypted: bool) -> None:
    with Feed(authority if is_encrypted else None, "HTTP/1.1") as feed:
        feed.put("a")
        with follow(feed, store, "--ca-file", authority.ca):
            wait_for_tokens(store, a="ok")
            for number in range(5):
                feed.put(f"t{number}")
                wait_until(lambda: f"t{number}" in store.tokens(), "the change")
            asked = len(feed.requests)
            wait_until(lambda: len(feed.requests) > asked + 3, "more requests")
        assert len(feed.clients) == 1


def drip(handler: Handler) -> None:
    """The answer keeps coming, but never ends."""
    handler.wfile.write(b"x: ")
    while handler.feed.goes_on():
        handler.wfile.write(b"y")
        handler.wfile.flush()


def drip_headers(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    drip(handler)


def drip_body(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("ETag", '"one"')
    handler.end_headers()
    drip(handler)


def drip_chunks(handler: Handler) -> None:
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nETag: "one"\r\nTransfer-Encoding: chunked\r\n\r\n')
    while handler.feed.goes_on():
        handler.wfile.write(b"1\r\n{\r\n")
        handler.wfile.flush()


@pytest.mark.parametrize("fault", [drip_headers, drip_body, drip_chunks])
@pytest.mark.parametrize("is_encrypted", [False, True])
def test_a_feed_that_drips_is_left(
    store: Store, authority: Authority, fault: Callable[[Handler], None], is_encrypted: bool
) -> None:
    with Feed(authority if is_encrypted else None) as feed:
        feed.put("a")
        feed.faults.append(fault)
        done = take_once(feed, store, "--ca-file", authority.ca)
        assert done.returncode == 1
        assert "it did not answer in time" in done.stderr
        assert take_once(feed, store, "--ca-file", authority.ca).returncode == 0


def test_it_is_stopped_while_it_waits_for_a_feed(feed: Feed, store: Store) -> None:
    feed.faults.append(feed.hang)
    with follow(feed, store, "--query-timeout", "200") as sync:
        wait_until(lambda: feed.requests, "a request")
        # Which is for half a minute at most.
        assert sync.stop() == 0


def test_what_was_to_be_done_once_and_was_stopped_has_failed(feed: Feed, store: Store) -> None:
    feed.faults.append(feed.hang)
    with follow(feed, store, "--once", "--query-timeout", "200") as sync:
        wait_until(lambda: feed.requests, "a request")
        assert sync.stop() == 1
        assert sync.log[-1] == "info: stopping: SIGTERM"


def test_no_request_waits_for_longer_than_half_a_minute(feed: Feed, store: Store) -> None:
    feed.put("a")
    with follow(feed, store, "--heartbeat-interval", "3600"):
        wait_until(lambda: [query for query, _ in feed.requests if float(query.get("wait", 0)) > 0], "a request")
        assert feed.requests[-1][0]["wait"] == "30"


def test_a_connection_that_is_closed_is_told_as_that(feed: Feed, store: Store) -> None:
    def close(handler: Handler) -> None:
        handler.connection.shutdown(socket.SHUT_RDWR)

    feed.faults.append(close)
    done = take_once(feed, store)
    assert done.returncode == 1
    assert "failed: Remote end closed connection without response" in done.stderr


@pytest.mark.parametrize("text", ["é1", "\ud800", "a\nb", ""])
def test_epochs_and_cursors_are_printable_ascii(feed: Feed, store: Store, text: str) -> None:
    feed.put("a")
    assert take_once(feed, store).returncode == 0
    commit = {"op": "commit", "cursor": text}
    feed.faults.append(lambda handler: handler.lines(commit))
    done = take_once(feed, store)
    assert done.returncode == 1
    assert "cursor is not a string of 1 to 256 printable ASCII characters" in done.stderr
    begin = {"op": "snapshot_begin", "epoch": text, "seq": 9}
    feed.faults.extend([lambda handler: handler.answer(412), lambda handler: handler.lines(begin)])
    done = take_once(feed, store)
    assert done.returncode == 1
    assert "epoch is not a string of 1 to 64 printable ASCII characters" in done.stderr


def test_an_etag_is_printable_ascii(feed: Feed, store: Store) -> None:
    feed.put("a")
    feed.epoch = "é1"
    done = take_once(feed, store)
    assert done.returncode == 1
    assert "printable ASCII" in done.stderr


def test_what_an_answer_says_never_breaks_the_log(feed: Feed, store: Store, tmp_path: Path) -> None:
    feed.put("a")
    assert take_once(feed, store).returncode == 0
    feed.faults.append(lambda handler: handler.lines({"op": "\ud800"}, {"op": "commit", "cursor": "2"}))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        arguments = ("--source", feed.url, "--store", store.folder, *FAST)
        with PatSync(*arguments, env={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as sync:
            sync.wait_for_line("is not allowed among changes")
            sync.wait_for_line("is back after")


@pytest.mark.parametrize("to", ["http://[x", "http://127.0.0.1:x/", "//[::1"])
def test_a_redirect_to_what_is_no_url(feed: Feed, store: Store, to: str) -> None:
    feed.faults.append(lambda handler: handler.answer(302, Location=to))
    done = take_once(feed, store)
    assert done.returncode == 1
    assert "it redirects to an invalid URL" in done.stderr


@pytest.mark.parametrize("seq", [-1, 2**63, 1.5, "1", True, None])
def test_the_number_of_a_snapshot(feed: Feed, store: Store, seq: object) -> None:
    feed.faults.append(lambda handler: handler.lines({"op": "snapshot_begin", "epoch": "one", "seq": seq}))
    done = take_once(feed, store)
    assert done.returncode == 1
    assert "snapshot_begin has no seq from 0 to" in done.stderr


def test_a_compressed_answer_is_refused(feed: Feed, store: Store) -> None:
    feed.put("a")

    def compressed(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("ETag", '"one"')
        handler.send_header("Content-Encoding", "gzip")
        handler.end_headers()
        handler.wfile.write(gzip.compress(b'{"op":"snapshot_begin","epoch":"one","seq":1}\n'))

    feed.faults.append(compressed)
    done = take_once(feed, store)
    assert done.returncode == 1
    assert 'its answer has the Content-Encoding "gzip", which was not requested' in done.stderr
    assert feed.requests[0][1]["accept-encoding"] == "identity"


def test_half_a_line_is_not_used(feed: Feed, store: Store) -> None:
    feed.put("a")
    assert take_once(feed, store).returncode == 0
    feed.put("b")
    half = '{"op":"revoke","seq":3,"digest":"' + digest("a") + '"}\n{"op":"commit","cursor":"3"}\n{"op":"del'
    feed.faults.append(lambda handler: handler.answer(200, half.rpartition("\n")[0][:-3]))
    done = take_once(feed, store)
    assert done.returncode == 1
    assert "the answer ends in the middle of line 2" in done.stderr
    assert store.tokens() == {"a": "ok"}
    assert store.stats()["cursor"] == "1"


def test_an_answer_without_a_commit_is_not_used(feed: Feed, store: Store) -> None:
    feed.put("a")
    with follow(feed, store) as sync:
        wait_for_tokens(store, a="ok")
        feed.faults.append(lambda handler: handler.lines({"op": "put", **token("b", seq=7)}))
        sync.wait_for_line("the answer ends without a commit")
        # What came without a commit is not a part of the next one, either.
        feed.revoke("a")
        wait_for_tokens(store, a="revoked")


def test_a_snapshot_without_its_end_is_not_used(feed: Feed, store: Store) -> None:
    feed.put("a")
    assert take_once(feed, store).returncode == 0
    feed.epoch = "two"
    feed.put("b")
    begin = {"op": "snapshot_begin", "epoch": "two", "seq": 2}
    feed.faults.append(lambda handler: handler.answer(412))
    feed.faults.append(lambda handler: handler.lines(begin, {"op": "put", **token("z")}))
    done = take_once(feed, store)
    assert done.returncode == 1
    assert "the answer ends without snapshot_end" in done.stderr
    assert store.tokens() == {"a": "ok"}
    assert store.stats()["state"] == "resync"
    assert take_once(feed, store).returncode == 0
    assert store.tokens() == {"a": "ok", "b": "ok"}


def test_a_bad_record_denies_its_token_and_the_rest_goes_on(feed: Feed, store: Store) -> None:
    feed.put("a")
    feed.put("b")
    with follow(feed, store) as sync:
        wait_for_tokens(store, a="ok", b="ok")
        bad = '{"op":"put","seq":3,"digest":"' + digest("a") + '","id":"a","revoked_at":tomorrow}'
        feed.faults.append(
            lambda handler: handler.lines(
                bad, {"op": "put", **token("c", seq=4)}, {"op": "commit", "cursor": "4"}
            )
        )
        feed.oldest = 4
        wait_until(lambda: store.tokens().get("c") == "ok", "the good record")
        assert store.tokens()["a"] != "ok"
        assert store.tokens()["b"] == "ok"
        sync.wait_for_line(f'warning: line .* was rejected.* digest "{digest("a")}"')


def test_a_line_that_says_two_things_is_not_taken_for_the_harmless_one(feed: Feed, store: Store) -> None:
    feed.put("a")
    assert take_once(feed, store).returncode == 0
    both = '{"op":"revoke","seq":2,"digest":"' + digest("a") + '","op":"commit","cursor":"2"}'
    feed.faults.append(lambda handler: handler.lines(both, {"op": "commit", "cursor": "2", "more": False}))
    feed.oldest = 2
    take_once(feed, store)
    assert store.tokens()["a"] != "ok"
    assert store.stats()["cursor"] == "2"


REVOKE = '{"op":"revoke","seq":2,'
FIELD = '"digest":"' + digest("a") + '"'


@pytest.mark.parametrize(
    "line",
    [REVOKE + FIELD[:41], REVOKE + FIELD[:-1] + ' "}', REVOKE[:-1] + "}", REVOKE + FIELD.title() + "}", "\0", "nonsense",
     # It is within another value.
     REVOKE + '"token":{' + FIELD + "}", REVOKE + '"token":{' + FIELD + "," + FIELD + "}}", "[" + REVOKE[1:] + FIELD + "}",
     # The digest is too long, in JSON that patctl can read.
     REVOKE + FIELD[:-1] + '2c","x":1,"x":1}',
     # patctl does not see it, or sees another one.
     REVOKE + FIELD.replace("digest", "\\u0064igest") + ',"x":NaN}',
     REVOKE + FIELD.replace("digest", "\\u0064igest") + ',"x":{"digest":"' + digest("b") + '"},"y":NaN}',
     REVOKE + FIELD.replace(":", ":\f") + "}"])
def test_a_line_that_names_no_token_loses_no_revocation(feed: Feed, store: Store, line: str) -> None:
    feed.put("a")
    feed.put("b")
    assert take_once(feed, store).returncode == 0
    feed.revoke("a")
    feed.faults.append(lambda handler: handler.lines(line, {"op": "commit", "cursor": "3", "more": False}))
    done = take_once(feed, store)
    assert done.returncode == 0
    assert "taking a snapshot of the source: line 1 of the answer does not identify its token" in done.stderr
    assert store.tokens() == {"a": "revoked", "b": "ok"}
    # If it comes again after the snapshot, that is an error, and no circle.
    feed.faults.extend([lambda handler: handler.lines(line, {"op": "commit", "cursor": "9", "more": False}),
                        lambda handler: handler.send_snapshot()] * 2)
    done = take_once(feed, store)
    assert done.returncode == 1
    assert "and a snapshot did not help" in done.stderr.splitlines()[-1]


def test_what_comes_with_a_line_that_names_no_token_waits_for_no_snapshot(feed: Feed, store: Store) -> None:
    for name in ("a", "b", "c", "d"):
        feed.put(name)
    with follow(feed, store) as sync:
        wait_for_tokens(store, a="ok", b="ok", c="ok", d="ok")

        def changes(handler: Handler) -> None:
            a, b, _, d = (feed.revoke(name) for name in ("a", "b", "c", "d"))
            handler.lines(
                a, {"op": "commit", "after": "4", "cursor": "5"},
                b, '{"op":"revoke","seq":7}', {"op": "commit", "after": "5", "cursor": "7"},
                d, {"op": "commit", "after": "7", "cursor": "8", "more": False},
            )  # fmt: skip

        feed.faults.extend([changes, *[lambda handler: handler.answer(503)] * 10_000])
        wait_for_tokens(store, a="revoked", b="revoked", c="ok", d="revoked")
        before = store.stats()
        assert before["cursor"] == "5"
        sync.wait_for_line("taking a snapshot of the source: line 4 of the answer does not identify its token", 2)
        assert store.stats()["heartbeat"] == before["heartbeat"]
        feed.faults.clear()
        wait_for_tokens(store, a="revoked", b="revoked", c="revoked", d="revoked")
        wait_until(lambda: store.stats()["heartbeat"] > before["heartbeat"], "a heartbeat")


@pytest.mark.parametrize("status", [204, 304])
def test_an_epoch_counts_where_there_is_nothing_new_too(feed: Feed, store: Store, status: int) -> None:
    """The feed ignores If-Match, and its history has changed since."""
    feed.put("a")
    feed.put("b")
    assert take_once(feed, store).returncode == 0
    feed.epoch = "two"
    feed.revoke("a")
    feed.faults.append(lambda handler: handler.answer(status))
    assert take_once(feed, store).returncode == 0
    assert store.tokens() == {"a": "revoked", "b": "ok"}
    assert store.stats()["epoch"] == "two"


@pytest.mark.parametrize("status", [204, 304])
def test_an_etag_that_is_not_the_epoch_is_named(feed: Feed, store: Store, status: int) -> None:
    """Frameworks add an ETag on their own."""
    feed.put("a")
    assert take_once(feed, store).returncode == 0

    def add(handler: Handler) -> None:
        if "after=" in handler.path:
            feed.epoch, before = "d41d8cd9", feed.epoch
            handler.answer(status)
            feed.epoch = before
        else:
            handler.send_snapshot()

    feed.faults.extend([add] * 3)
    done = take_once(feed, store)
    assert done.returncode == 1
    assert (
        'the feed has another epoch than the store, "one", if "d41d8cd9" is its epoch: this is the ETag of an answer'
        f" with status {status}, to which a proxy may have added it, and a snapshot did not help"
    ) in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("op", ["snapshot_begin", "snapshot_end", "heartbeat", "nonsense"])
def test_a_line_of_another_kind_among_changes(feed: Feed, store: Store, op: str) -> None:
    feed.put("a")
    assert take_once(feed, store).returncode == 0
    wrong = {"op": op, "epoch": "x", "seq": 9, "cursor": "9"}
    feed.faults.append(lambda handler: handler.lines(wrong, {"op": "commit", "cursor": "9"}))
    done = take_once(feed, store)
    assert done.returncode == 1
    assert f'"{op}" is not allowed among changes' in done.stderr
    assert store.stats()["cursor"] == "1"


def test_a_commit_inside_a_snapshot_is_refused(feed: Feed, store: Store) -> None:
    begin = {"op": "snapshot_begin", "epoch": "one", "seq": 2}
    feed.faults.append(lambda handler: handler.lines(begin, {"op": "commit", "cursor": "9"}))
    done = take_once(feed, store)
    assert done.returncode == 1
    assert '"commit" is not allowed in a snapshot' in done.stderr


def test_a_line_without_end_does_not_fill_the_memory(feed: Feed, store: Store) -> None:
    feed.put("a")
    assert take_once(feed, store).returncode == 0
    sent: list[int] = []

    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("ETag", '"one"')
        handler.end_headers()
        for _ in range(10000):
            handler.wfile.write(b"x" * 100000)
            sent.append(1)

    feed.faults.append(endless)
    done = take_once(feed, store)
    assert done.returncode == 1
    assert "is longer than 65536 bytes" in done.stderr
    assert len(sent) < 1000


# --- whom it trusts ---


def test_https_with_a_private_authority(store: Store, authority: Authority) -> None:
    with Feed(authority) as feed:
        feed.put("a")
        assert take_once(feed, store, "--ca-file", authority.ca).returncode == 0
    assert store.tokens() == {"a": "ok"}


def test_a_certificate_that_does_not_verify(store: Store, authority: Authority) -> None:
    with Feed(authority) as feed:
        feed.put("a")
        done = take_once(feed, store)
        assert done.returncode == 1
        assert "its certificate is not accepted" in done.stderr
        assert not feed.requests
    assert store.tokens() == {}


def test_a_certificate_of_another_host(store: Store, authority: Authority) -> None:
    with Feed(authority) as feed:
        url = feed.url.replace("127.0.0.1", "localhost")
        done = once("--source", url, "--store", store.folder, "--ca-file", authority.ca, *FAST)
        assert done.returncode == 1
        # From urllib3 2, OpenSSL compares the names.
        assert re.search("(its certificate is not accepted|TLS failed): .*'localhost'", done.stderr)


def test_plain_http_to_another_host_is_refused(store: Store) -> None:
    done = once("--source", "http://192.0.2.1/feed", "--store", store.folder)
    assert done.returncode == 2
    assert "--insecure-http" in done.stderr
    done = once("--source", "http://192.0.2.1:1/feed", "--store", store.folder, "--insecure-http", *FAST)
    assert done.returncode == 1


def test_a_redirect_to_another_server_is_not_followed(feed: Feed, store: Store, tmp_path: Path) -> None:
    secret = tmp_path / "bearer"
    secret.write_text("s3cr3t-bearer\n")
    secret.chmod(0o600)
    with Feed() as other:
        other.put("evil")
        feed.faults.append(lambda handler: handler.answer(302, Location=other.url))
        done = take_once(feed, store, "--token-file", secret)
        assert done.returncode == 1
        assert "redirects to another server" in done.stderr
        assert not other.requests
    feed.put("a")
    feed.faults.append(lambda handler: handler.answer(307, Location="/elsewhere"))
    assert take_once(feed, store, "--token-file", secret).returncode == 0


def test_the_credential_is_sent_and_never_shown(feed: Feed, store: Store, tmp_path: Path) -> None:
    feed.bearer = "s3cr3t-bearer"
    feed.put("a")
    secret = tmp_path / "bearer"
    secret.write_text("wrong-s3cr3t\n")
    secret.chmod(0o600)
    done = take_once(feed, store, "--token-file", secret)
    assert done.returncode == 1
    assert "it answers 401" in done.stderr
    assert "s3cr3t" not in done.stderr

    secret.write_text("s3cr3t-bearer\n")
    # A feed may even say it in its answer, where it gets into the text of an error.
    begin = {"op": "snapshot_begin", "epoch": "one", "seq": 1}
    feed.faults.append(lambda handler: handler.lines(begin, {"op": "s3cr3t-bearer"}))
    done = take_once(feed, store, "--token-file", secret)
    assert done.returncode == 1
    assert '"***" is not allowed in a snapshot' in done.stderr
    assert "s3cr3t" not in done.stderr
    assert take_once(feed, store, "--token-file", secret).returncode == 0

    secret.chmod(0o604)
    done = take_once(feed, store, "--token-file", secret)
    assert done.returncode == 0
    assert "others can read it" in done.stderr


# --- patctl ---


def test_patctl_is_killed_again_and_again(feed: Feed, store: Store) -> None:
    feed.put("t0")
    with follow(feed, store) as sync:
        for number in range(1, 6):
            os.kill(sync.child(), 9)
            feed.put(f"t{number}")
            sync.wait_for_line("warning: patctl failed, trying again in .*: it was killed by signal 9", number)
        wait_for_tokens(store, **{f"t{number}": "ok" for number in range(6)})


def test_a_second_pat_sync_does_not_get_the_store(feed: Feed, store: Store) -> None:
    feed.put("a")
    with follow(feed, store):
        wait_for_tokens(store, a="ok")
        done = take_once(feed, store)
        assert done.returncode == 1
        assert 'another "patctl apply" is running on it' in done.stderr


def test_patctl_that_ends_at_once_is_not_started_all_the_time(feed: Feed, tmp_path: Path) -> None:
    with PatSync("--source", feed.url, "--store", tmp_path / "nothing", "--patctl", PATCTL) as sync:
        started = time.monotonic()
        sync.wait_for_line("warning: patctl failed, trying again", 4)
        wait_until(lambda: time.monotonic() > started + 2, "two seconds")
        assert len(sync.find("patctl failed")) < 20
