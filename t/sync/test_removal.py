"""Snapshots that would remove more tokens than allowed without an operator's consent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from basics import free_port, wait_until
from feed_server import Feed, digest, token
from sidecar import PatSync, once, pat_sync, scrape
from store import Store

FAST = ("--poll-interval", "0.05", "--heartbeat-interval", "0.1", "--settle", "0.1")
HELD = 'pat_sync_heartbeat_held{reason="removal"}'


@pytest.fixture
def feed() -> Iterator[Feed]:
    with Feed() as made:
        yield made


def arguments(source: str, store: Store) -> tuple[str | Path, ...]:
    return "--source", source, "--store", store.folder, *FAST


def problems(source: str, store: Store) -> list[str]:
    done = pat_sync("status", "--json", *arguments(source, store))
    assert done.returncode == 1, done
    found: list[str] = json.loads(done.stdout)["problems"]
    return found


def test_an_empty_feed_of_another_epoch_removes_nothing_until_it_is_accepted(feed: Feed, store: Store) -> None:
    feed.put("a")
    feed.put("b")
    port = free_port()
    with PatSync(*arguments(feed.url, store), "--metrics-listen", f"127.0.0.1:{port}") as sync:
        wait_until(lambda: store.tokens() == {"a": "ok", "b": "ok"}, "the tokens")
        with feed.news:
            feed.epoch = "two"
            feed.changes.clear()
            feed.oldest = 1
            feed.news.notify_all()
        sync.wait_for_line("error: the snapshot is held back.*would remove 2 of the 2.*accept-snapshot")
        heartbeat = store.stats()["heartbeat"]
        wait_until(lambda: f"{HELD} 1.0" in scrape(port), "the alarm")
        assert any("held back" in problem for problem in problems(feed.url, store))

        # The platform goes on, with the numbers of the new epoch.
        feed.revoke("a")
        wait_until(lambda: store.tokens()["a"] == "revoked", "the revocation")
        feed.put("c")
        wait_until(lambda: store.tokens() == {"a": "revoked", "b": "ok", "c": "ok"}, "what is new")
        assert store.stats()["heartbeat"] == heartbeat

        store.patctl("accept-snapshot")
        wait_until(lambda: store.tokens() == {"a": "revoked", "c": "ok"}, "the removal")
        sync.wait_for_line("the snapshot is no longer held back")
        wait_until(lambda: f"{HELD} 0.0" in scrape(port), "the end of the alarm")
        wait_until(lambda: store.stats()["heartbeat"] >= heartbeat and store.stats()["state"] == "ready", "a heartbeat")


def test_a_file_that_was_emptied_is_told_by_once_and_taken_when_it_is_accepted(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "tokens.jsonl"
    path.write_text("")
    assert once(*arguments(f"file://{path}", store)).returncode == 0, "an empty store starts by itself"
    path.write_text(json.dumps(token("a")) + "\n")
    assert once(*arguments(f"file://{path}", store)).returncode == 0
    path.write_text("")
    for _ in range(2):
        done = once(*arguments(f"file://{path}", store))
        assert done.returncode == 1
        assert "would remove 1 of the 1" in done.stderr.splitlines()[-1]
        assert store.tokens() == {"a": "ok"}
    store.patctl("accept-snapshot")
    assert once(*arguments(f"file://{path}", store)).returncode == 0
    assert store.tokens() == {}


def test_a_store_of_local_tokens_waits_for_a_word(feed: Feed, store: Store) -> None:
    store.patctl("import", "-", input=json.dumps(token("local")) + "\n")
    for name in range(2000):
        feed.put(str(name))
    feed.page = 5000
    done = once(*arguments(feed.url, store))
    assert done.returncode == 1
    assert "the store holds 1 tokens that came from no source" in done.stderr.splitlines()[-1]
    assert "was rejected, and its token" not in done.stderr, "not a row is sent"
    assert any("came from no source" in problem for problem in problems(feed.url, store))

    port = free_port()
    with PatSync(*arguments(feed.url, store), "--metrics-listen", f"127.0.0.1:{port}") as sync:
        sync.wait_for_line("error: the snapshot is held back.*came from no source")
        wait_until(lambda: f"{HELD} 1.0" in scrape(port), "the alarm")
        assert store.tokens() == {"local": "ok"}
        store.patctl("accept-snapshot")
        wait_until(lambda: len(store.tokens()) == 2000 and digest("local") not in store.records(), "the tokens")
        wait_until(lambda: f"{HELD} 0.0" in scrape(port), "the end of the alarm")
