"""A heartbeat proves that the feed has answered, not a cache."""

from __future__ import annotations

import email.utils
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from basics import free_port, wait_until
from feed_server import Feed, Handler
from nginx import Nginx
from sidecar import PatSync, once, pat_sync, scrape
from store import Store

FAST = ("--poll-interval", "0.1", "--heartbeat-interval", "0.2", "--query-timeout", "5")
HELD = 'pat_sync_heartbeat_held{reason="unproven"}'
STANDS_STILL = "error: the heartbeat stands still: the feed's answer is not known to be fresh: "


class Cache(Nginx):
    """A cache that keeps answers for a minute, regardless of Cache-Control."""

    def __init__(self, feed: Feed, key: str, folder: Path) -> None:
        http = """
            proxy_cache_path FOLDER/cache keys_zone=answers:1m;
            log_format cache '$upstream_cache_status $status';
            server {
                listen 127.0.0.1:PORT;
                location / {
                    proxy_pass http://FEED;
                    proxy_cache answers;
                    proxy_cache_key KEY;
                    proxy_cache_valid 200 204 60s;
                    # What nginx takes out where it caches.
                    proxy_set_header If-Match $http_if_match;
                    proxy_ignore_headers Cache-Control Expires Vary;
                }
            }"""
        log = f"{folder}/access.log cache"
        super().__init__(folder, http, access_log=log, FEED=urlsplit(feed.url).netloc, KEY=key)

    @property
    def feed_url(self) -> str:
        return f"{self.url}/feed"

    def hits(self) -> int:
        """How many requests the cache has answered."""
        return "\n".join(self.access_log()).count("HIT")


def follow(url: str, store: Store, *arguments: str) -> PatSync:
    return PatSync("--source", url, "--store", store.folder, *FAST, *arguments)


def status(url: str, store: Store) -> subprocess.CompletedProcess[str]:
    return pat_sync("status", "--source", url, "--store", store.folder, *FAST)


def heartbeat(store: Store) -> int:
    return store.stats()["heartbeat"] or 0


def wait_for_heartbeat(store: Store) -> None:
    before = heartbeat(store)
    wait_until(lambda: heartbeat(store) > max(before, 1), "a heartbeat")


@pytest.mark.parametrize("echoes", [True, False])
def test_a_cache_has_no_answer_to_a_request(echoes: bool, store: Store, tmp_path: Path) -> None:
    """For a cache whose key includes the query."""
    with Feed(echoes=echoes) as feed, Cache(feed, "$request_uri", tmp_path / "cache") as cache:
        feed.put("a")
        with follow(cache.feed_url, store):
            wait_for_heartbeat(store)
            feed.revoke("a")
            wait_until(lambda: store.tokens() == {"a": "revoked"}, "the revocation")
            wait_for_heartbeat(store)
        nonces = [query["nonce"] for query, _ in feed.requests]
        assert len(set(nonces)) == len(nonces)
        assert all(len(nonce) >= 16 for nonce in nonces)
        assert all("no-store" in headers["cache-control"] for _, headers in feed.requests)
        assert cache.hits() == 0


@pytest.mark.parametrize("key", ["$uri", "$uri$arg_after"])
def test_a_cache_that_knows_no_query_moves_no_heartbeat(key: str, store: Store, tmp_path: Path) -> None:
    port = free_port()
    with Feed() as feed, Cache(feed, key, tmp_path / "cache") as cache:
        feed.put("a")
        with follow(cache.feed_url, store, "--metrics-listen", f"127.0.0.1:{port}") as sync:
            wait_until(lambda: store.tokens() == {"a": "ok"}, "the token")
            hits = cache.hits()
            wait_until(lambda: cache.hits() >= hits + 2, "answers of the cache")
            feed.revoke("a")
            revoked_at = time.time()
            wait_until(lambda: time.time() > revoked_at + 2, "two seconds")
            hits = cache.hits()
            wait_until(lambda: cache.hits() >= hits + 2, "answers of the cache")
            # As it has not arrived yet, nothing says that the store is younger.
            assert store.tokens() == {"a": "ok"}
            assert heartbeat(store) <= revoked_at
            if key == "$uri":
                # It has the snapshot for everything.
                sync.wait_for_line('warning: .*"snapshot_begin" is not allowed among changes')
            else:
                cause = "its Pat-Nonce belongs to another request, so it comes from a cache"
                sync.wait_for_line(STANDS_STILL + cause)
                assert f"{HELD} 1.0" in scrape(port)
                shown = status(cache.feed_url, store)
                assert shown.returncode == 1
                assert f"wrong: the heartbeat stands still: the feed's answer is not known to be fresh: {cause}" in (
                    shown.stdout
                )


def test_a_snapshot_of_a_cache_moves_no_heartbeat(store: Store, tmp_path: Path) -> None:
    with Feed() as feed, Cache(feed, "$uri$arg_after", tmp_path / "cache") as cache:
        feed.put("a")
        other = Store(tmp_path / "other")
        assert once("--source", cache.feed_url, "--store", other.folder).returncode == 0
        assert other.stats()["heartbeat"] > 1
        feed.put("b")
        with follow(cache.feed_url, store) as sync:
            sync.wait_for_line(STANDS_STILL)
            wait_until(lambda: store.tokens() == {"a": "ok"}, "the token")
            assert heartbeat(store) <= 1
        done = once("--source", cache.feed_url, "--store", store.folder)
        assert done.returncode == 1
        assert "belongs to another request, so it comes from a cache" in done.stderr.splitlines()[-1]


# --- feeds that do not send the nonce back ---


@pytest.fixture
def feed() -> Iterator[Feed]:
    with Feed(echoes=False) as made:
        made.put("a")
        yield made


@pytest.mark.parametrize("offset", [0, -100_000_000, 100_000_000])
def test_a_clock_that_is_wrong_stops_nothing(offset: int, feed: Feed, store: Store) -> None:
    feed.date = lambda: email.utils.formatdate(time.time() + offset, usegmt=True)
    with follow(feed.url, store) as sync:
        wait_for_heartbeat(store)
        wait_for_heartbeat(store)
        assert not sync.find("stands still")


def test_the_first_answer_proves_nothing(feed: Feed, store: Store) -> None:
    """This is not a failure: the answer may be fresh."""
    assert once("--source", feed.url, "--store", store.folder, *FAST).returncode == 0
    done = once("--source", feed.url, "--store", store.folder, *FAST)
    assert done.returncode == 0
    assert "info: no heartbeat yet: without Pat-Nonce, only the feed's next answer can be known" in done.stderr


@pytest.mark.parametrize(
    ("date", "cause"),
    [
        (email.utils.formatdate(0, usegmt=True), 'its Date, "Thu, 01 Jan 1970 00:00:00 GMT", is not later than that of an earlier answer'),
        ("tomorrow", "it has neither Pat-Nonce nor Date"),
        ("Thu, 01 Jan 99999999999999999999 00:00:00 GMT", "it has neither Pat-Nonce nor Date"),
        ("", "it has neither Pat-Nonce nor Date"),
    ],
)
def test_a_date_that_does_not_move_moves_no_heartbeat(date: str, cause: str, feed: Feed, store: Store) -> None:
    port = free_port()
    with follow(feed.url, store, "--metrics-listen", f"127.0.0.1:{port}") as sync:
        wait_for_heartbeat(store)
        assert f"{HELD} 0.0" in scrape(port)
        feed.date = lambda: date
        sync.wait_for_line(STANDS_STILL + cause)
        before = heartbeat(store)
        assert f"{HELD} 1.0" in scrape(port)
        # Changes go on, and each second brings several looks.
        feed.revoke("a")
        wait_until(lambda: store.tokens() == {"a": "revoked"}, "the revocation")
        held_at = time.time()
        wait_until(lambda: time.time() > held_at + 1.5, "more answers")
        assert heartbeat(store) == before
        assert len(sync.find("stands still")) == 1

        feed.date = None
        wait_for_heartbeat(store)
        sync.wait_for_line("info: the feed's answers are fresh again")
        wait_until(lambda: f"{HELD} 0.0" in scrape(port), "that nothing holds the heartbeat")


@pytest.mark.parametrize("age", ["58", "1", "-1", "0, 3", "nonsense"])
def test_an_answer_with_an_age_moves_no_heartbeat(age: str, feed: Feed, store: Store) -> None:
    with follow(feed.url, store) as sync:
        wait_for_heartbeat(store)
        feed.faults.extend([lambda handler: handler.answer(204, Age=age)] * 10_000)
        sync.wait_for_line(f'{STANDS_STILL}its Age is "{age}", so it comes from a cache')
        before = heartbeat(store)
        held_at = time.time()
        wait_until(lambda: time.time() > held_at + 1.5, "more answers")
        assert heartbeat(store) == before
        feed.faults.clear()
        wait_for_heartbeat(store)
    feed.faults.append(lambda handler: handler.answer(204, Age=age))
    done = once("--source", feed.url, "--store", store.folder)
    assert done.returncode == 1
    assert f'its Age is "{age}"' in done.stderr.splitlines()[-1]


def test_an_age_of_nothing_is_none(feed: Feed, store: Store) -> None:
    feed.faults.extend([lambda handler: handler.answer(204, Age="0")] * 10_000)
    feed.faults.insert(0, lambda handler: handler.send_snapshot())
    with follow(feed.url, store):
        wait_for_heartbeat(store)


@pytest.mark.parametrize(("form", "is_good"), [(" {} \t", True), ("{}, {}", False), ("x{}", False)])
def test_the_nonce_is_sent_back_as_it_is(form: str, is_good: bool, feed: Feed, store: Store) -> None:
    """Spaces around a value are not part of it. Two header fields of one name read as a single value."""
    def answer(handler: Handler) -> None:
        nonce = parse_qs(urlsplit(handler.path).query)["nonce"][0]
        handler.answer(204, Pat_Nonce=form.format(nonce, nonce))

    feed.faults.extend([lambda handler: handler.send_snapshot(), *[answer] * 10_000])
    with follow(feed.url, store) as sync:
        if is_good:
            wait_for_heartbeat(store)
        else:
            sync.wait_for_line(f'{STANDS_STILL}its Pat-Nonce is ".*", not the unchanged nonce of the request')


def test_a_feed_that_has_sent_the_nonce_back_must_go_on(feed: Feed, store: Store) -> None:
    """A cache may hold answers from before the feed sent nonces."""
    feed.echoes = True
    with follow(feed.url, store) as sync:
        wait_for_heartbeat(store)
        feed.echoes = False
        sync.wait_for_line(f"{STANDS_STILL}it has no Pat-Nonce, unlike earlier answers")
        feed.echoes = True
        wait_for_heartbeat(store)


def test_a_redirect_keeps_the_nonce(feed: Feed, store: Store) -> None:
    feed.echoes = True
    feed.faults.append(lambda handler: handler.answer(307, Location="/elsewhere"))
    done = once("--source", feed.url, "--store", store.folder)
    assert done.returncode == 0
    assert feed.requests[0][0]["nonce"] == feed.requests[1][0]["nonce"]
    assert heartbeat(store) > 1


def test_an_age_speaks_against_the_nonce(feed: Feed, store: Store) -> None:
    """A proxy in front of the cache may add the nonce to a cached answer."""
    feed.echoes = True
    assert once("--source", feed.url, "--store", store.folder).returncode == 0
    feed.faults.append(lambda handler: handler.answer(204, Age="58"))
    done = once("--source", feed.url, "--store", store.folder)
    assert done.returncode == 1
    assert 'its Age is "58", so it comes from a cache' in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("sign", ["Age", "Pat_Nonce"])
def test_a_snapshot_of_a_cache_brings_no_other_epoch(sign: str, feed: Feed, store: Store) -> None:
    """The snapshot may be from an earlier epoch, with tokens that were revoked since."""

    def kept(handler: Handler) -> None:
        handler.answer(200, '{"op":"snapshot_begin","epoch":"two","seq":9}\n{"op":"snapshot_end","cursor":"9"}\n',
                       **{sign: "30"})  # fmt: skip

    feed.put("a")
    assert once("--source", feed.url, "--store", store.folder).returncode == 0
    feed.epoch = "two"
    feed.faults.extend([lambda handler: handler.answer(412), kept])
    done = once("--source", feed.url, "--store", store.folder)
    assert done.returncode == 1
    assert "its snapshot has another epoch, and may be old: its " in done.stderr.splitlines()[-1]
    assert (store.stats()["epoch"], store.tokens()) == ("one", {"a": "ok"})
    assert once("--source", feed.url, "--store", store.folder).returncode == 0
    assert (store.stats()["epoch"], store.tokens()) == ("two", {"a": "ok"})


def test_a_feed_that_says_nothing_of_itself_can_have_another_epoch(feed: Feed, store: Store) -> None:
    """Its revocations still arrive, without a heartbeat."""
    feed.date = lambda: ""
    feed.put("a")
    for epoch in ("one", "two"):
        feed.epoch = epoch
        assert once("--source", feed.url, "--store", store.folder).returncode == 1
        assert (store.stats()["epoch"], store.tokens()) == (epoch, {"a": "ok"})
