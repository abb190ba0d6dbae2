"""An answer that violates the contract is logged as an error, and --once ends with the cause as its last line."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from basics import free_port, wait_until
from feed_server import Feed, Handler, token
from sidecar import PatSync, once
from store import Store

FAST = ("--poll-interval", "0.05", "--heartbeat-interval", "0.2", "--query-timeout", "5", "--settle", "0.05")

Fault = Callable[[Handler], None]


def take_once(feed: Feed, store: Store) -> subprocess.CompletedProcess[str]:
    return once("--source", feed.url, "--store", store.folder, *FAST)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.splitlines()[-1]


def always(feed: Feed, fault: Fault) -> None:
    """Answer every request with this fault from now on."""

    def again(handler: Handler) -> None:
        feed.faults.append(again)
        fault(handler)

    feed.faults[:] = [again]


def say(status: int, body: str = "", **headers: str) -> Fault:
    return lambda handler: handler.answer(status, body, **headers)


def text(*lines: Any) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def truncated(handler: Handler) -> None:
    body = text({"op": "commit", "cursor": "1", "more": False}).encode()
    handler.send_response(200)
    handler.send_header("ETag", '"one"')
    handler.send_header("Content-Length", str(len(body) + 10))
    handler.end_headers()
    handler.wfile.write(body)


def truncated_chunk(handler: Handler) -> None:
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nETag: "one"\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{"op":')


def blank(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("ETag", '"one"')
    handler.end_headers()
    while True:
        handler.wfile.write(b"\n" * 4096)


def without_etag(handler: Handler) -> None:
    body = text({"op": "commit", "cursor": "2"}).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def bare_etag(handler: Handler) -> None:
    handler.send_response(204)
    handler.send_header("ETag", "one")
    handler.end_headers()


def greet(handler: Handler) -> None:
    """Like a server of another protocol."""
    handler.wfile.write(b"SSH-2.0-x\r\n")


def redirect(handler: Handler) -> None:
    handler.answer(302, Location=handler.path)


_number = iter(range(2, 1_000_000))


def on_and_on(handler: Handler) -> None:
    handler.lines({"op": "commit", "cursor": str(next(_number)), "more": True})


def round_and_round(handler: Handler) -> None:
    """Each answer has changes, so that it looks like progress."""
    after = "after=2" in handler.path
    change = {"op": "put", **token("b", seq=2)}
    handler.lines(change, {"op": "commit", "cursor": "1" if after else "2", "more": True})


PAGE = "<!DOCTYPE html>\n<title>Sign in</title>\n"

WRONG: dict[str, tuple[Fault, str]] = {
    "an empty answer": (say(200), "its answer with status 200 is empty: without changes, the status must be 204"),
    "blank lines": (say(200, "\n\r\n \n"), "its answer with status 200 is empty"),
    "blank lines for ever": (blank, "more than 65536 bytes of blank lines"),
    "a page": (say(200, PAGE, Content_Type="text/html; charset=utf-8"), 'its Content-Type is "text/html", not'),
    "a page that says nothing about itself": (say(200, PAGE), "the answer ends without a commit"),
    "an array": (say(200, "[]\n", Content_Type="application/json"), 'its Content-Type is "application/json", not'),
    "another charset": (
        say(200, "x", Content_Type='application/jsonl; Charset="latin1"'), 'its answer is in "latin1", not in UTF-8',
    ),
    "no ETag": (without_etag, "the answer has no ETag with the epoch"),
    "a bare ETag": (bare_etag, "the answer has no ETag with the epoch in quotation marks"),
    "fewer bytes than were promised": (truncated, "its answer was cut off"),
    "half a chunk": (truncated_chunk, "its answer was cut off"),
    "half a line": (say(200, '{"op":"commit","cursor":"2"'), "the answer ends in the middle of line 1"),
    "no commit": (say(200, text({"op": "put", **token("b", seq=2)})), "the answer ends without a commit"),
    "no commit at the end": (
        say(200, text({"op": "commit", "cursor": "2"}, {"op": "put", **token("b", seq=3)})),
        "the answer ends without a commit",
    ),
    "a commit without a cursor": (say(200, text({"op": "commit"})), "cursor is not a string of 1 to 256"),
    "a cursor that is a number": (say(200, text({"op": "commit", "cursor": 2})), "cursor is not a string of 1 to 256"),
    "an after that is a number": (
        say(200, text({"op": "commit", "cursor": "2", "after": 1})), "after is not a string of 1 to 256",
    ),
    "a more that is a string": (
        say(200, text({"op": "commit", "cursor": "2", "more": "false"})), "more is not a boolean",
    ),
    "a cursor that leads nowhere": (
        say(200, text({"op": "commit", "cursor": "1", "more": True})),
        'its answer makes no progress: the cursor is still "1", and there is more',
    ),
    "a cursor that leads nowhere, with changes": (
        say(200, text({"op": "put", **token("b", seq=2)}, {"op": "commit", "cursor": "1"})), "its answer makes no progress",
    ),
    "cursors that go round": (round_and_round, 'its cursors go round in circles: "1" is repeated, and there is still more'),
    "cursors without an end": (on_and_on, "100 answers in a row have no changes, and promise more"),
    "redirects without an end": (redirect, "more than 5 redirects"),
    "a redirect to nowhere": (say(302), "more than 5 redirects"),
    "no HTTP": (greet, "its answer is not HTTP"),
    "gzip": (say(200, "x", Content_Encoding="gzip"), 'its answer has the Content-Encoding "gzip", which was not requested'),
    "a cursor that is always unknown": (say(410), "it answers 410 Gone"),
    **{
        str(status): (say(status), f"it answers {status}")
        for status in (201, 202, 203, 205, 206, 207, 300, 305, 400, 401, 403, 404, 405, 418, 429, 500, 502, 503, 599)
    },
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_to_a_request_for_changes(name: str, feed: Feed, store: Store) -> None:
    assert take_once(feed, store).returncode == 0
    heartbeat = store.stats()["heartbeat"]
    fault, cause = WRONG[name]
    always(feed, fault)
    done = take_once(feed, store)
    assert done.returncode == 1, done.stderr
    assert last_line(done).startswith(f'error: source "{feed.url}" failed: ')
    assert cause in last_line(done)
    assert store.stats()["heartbeat"] == heartbeat


@pytest.mark.parametrize("name", ["an empty answer", "a page", "fewer bytes than were promised", "206", "blank lines"])
def test_a_wrong_answer_is_logged_and_the_next_right_one_taken(name: str, feed: Feed, store: Store) -> None:
    fault, cause = WRONG[name]
    with PatSync("--source", feed.url, "--store", store.folder, *FAST) as sync:
        wait_until(lambda: store.tokens() == {"a": "ok"}, "the token")
        feed.faults.append(fault)
        sync.wait_for_line(f"warning: source .* failed, trying again in .*: {cause}")
        feed.revoke("a")
        wait_until(lambda: store.tokens() == {"a": "revoked"}, "the revocation")
        sync.wait_for_line("info: source .* is back after")


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (say(200), "the snapshot does not begin with snapshot_begin"),
        (say(200, PAGE, Content_Type="text/html"), 'its Content-Type is "text/html", not application/jsonl'),
        (say(204), "it answers 204 No Content"),
        (say(304), "it answers 304 Not Modified"),
        (say(206), "it answers 206 Partial Content"),
        (say(412), "it answers 412 Precondition Failed"),
        (blank, "more than 65536 bytes of blank lines"),
        (
            say(200, text({"op": "snapshot_begin", "epoch": "one", "seq": 1}, {"op": "put", **token("b")})),
            "the answer ends without snapshot_end",
        ),
    ],
)
def test_a_wrong_answer_to_a_request_for_a_snapshot(fault: Fault, cause: str, feed: Feed, store: Store) -> None:
    always(feed, fault)
    done = take_once(feed, store)
    assert done.returncode == 1
    assert cause in last_line(done)
    assert store.tokens() == {}


def test_snapshots_that_do_not_help_end(feed: Feed, store: Store) -> None:
    """A change follows each snapshot, so that it seems to have helped."""
    number = iter(range(2, 1000))

    def fault(handler: Handler) -> None:
        if "after=" not in handler.path:
            begin = {"op": "snapshot_begin", "epoch": "one", "seq": next(number)}
            handler.lines(begin, {"op": "put", **token("a")}, {"op": "snapshot_end", "cursor": "1"})
        elif "after=1&" in handler.path:
            handler.lines({"op": "put", **token("b", seq=next(number))}, {"op": "commit", "cursor": "x"})
        else:
            handler.answer(410)

    always(feed, fault)
    done = take_once(feed, store)
    assert done.returncode == 1
    assert 'the feed no longer knows the cursor "x", and 3 snapshots did not help' in last_line(done)


def test_a_type_that_says_what_it_is(feed: Feed, store: Store) -> None:
    for content_type in ("application/jsonl", "application/x-ndjson; charset=UTF-8", 'Application/JSONL;charset="utf-8"'):
        feed.faults.append(
            say(200, text({"op": "commit", "cursor": "1", "more": False}), Content_Type=content_type)
            if store.stats()["state"] == "ready"
            else lambda handler: handler.send_snapshot()
        )
        assert take_once(feed, store).returncode == 0


# --- other sources, and patctl ---


def test_the_last_line_of_a_file_says_why(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "tokens.jsonl"
    for content, cause in (
        (None, f'cannot read "{path}": No such file or directory'),
        (text(token("a"), {"digest": "12"}), f'"{path}" is not used: line 2: '),
    ):
        if content is not None:
            path.write_text(content)
        done = once("--source", f"file://{path}", "--store", store.folder, *FAST)
        assert done.returncode == 1
        assert last_line(done).startswith(f'error: source "file://{path}" failed: {cause}')


def test_a_file_that_is_always_written_to_ends(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "tokens.jsonl"
    path.write_text(text(token("a")))
    ends = threading.Event()

    def write() -> None:
        while not ends.wait(0.005):
            os.utime(path)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        done = once("--source", f"file://{path}", "--store", store.folder, *FAST)
    finally:
        ends.set()
        writer.join()
    assert done.returncode == 1
    assert "is being written to: replace it by renaming" in last_line(done)


def test_the_last_line_of_a_database_says_why(store: Store) -> None:
    done = once("--source", f"postgresql://edge@127.0.0.1:{free_port()}/p", "--store", store.folder)
    assert done.returncode == 1
    assert last_line(done).startswith('error: source "postgresql://edge@127.0.0.1:')
    assert "Connection refused" in last_line(done)


def test_the_last_line_says_what_patctl_said(feed: Feed, store: Store, tmp_path: Path) -> None:
    done = once("--source", feed.url, "--store", tmp_path / "nowhere")
    assert done.returncode == 1
    assert last_line(done).startswith("error: patctl failed: it ended with status 3: ")
    assert "nowhere" in last_line(done)

    with PatSync("--source", feed.url, "--store", store.folder):
        wait_until(lambda: store.tokens() == {"a": "ok"}, "the token")
        done = take_once(feed, store)
    assert done.returncode == 1
    assert 'another "patctl apply" is running on it' in last_line(done)
