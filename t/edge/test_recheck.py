"""auth_pat_recheck with requests that last: they end soon after their token does, and the others feel nothing."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from authority import Authority
from basics import DEADLINE, wait_until
from client import Connection, End, Exchange, connect, until
from nginx import Nginx
from store import Issued, Record, Store
from transport import ALL, WITH_STREAMS, WITHOUT_STREAMS, Site, Transport
from upstream import Upstream
from websockets.exceptions import ConnectionClosed
from websockets.legacy import client as websockets

# nginx looks each quarter of a second; the rest is for a machine that is busy.
CLOSED_WITHIN = 5.0
# How long a request that may go on is watched: several looks.
WATCHED = 1.0

LOCATIONS = """
    location /short    { empty_gif; }
    location /events   { proxy_buffering off; proxy_pass http://127.0.0.1:UPSTREAM; }
    location /buffered { proxy_pass http://127.0.0.1:UPSTREAM/events; }
    location /silence  { proxy_pass http://127.0.0.1:UPSTREAM; }
    location /upload   { client_max_body_size 0; proxy_pass http://127.0.0.1:UPSTREAM; }
    location /stream   { client_max_body_size 0; proxy_request_buffering off; proxy_http_version 1.1;
                         proxy_pass http://127.0.0.1:UPSTREAM/silence; }
    location /file     { limit_rate 20k; alias FOLDER/html/file; }
    location /handed   { try_files /nowhere /inside; }
    location /inside   { internal; auth_pat off; limit_rate 20k; alias FOLDER/html/file; }
    location /basic    { auth_pat API scheme=basic user=robot; limit_rate 20k; alias FOLDER/html/file; }
    location /key      { auth_pat API header=X-API-Key; limit_rate 20k; alias FOLDER/html/file; }
    location /never    { auth_pat_recheck 0; proxy_buffering off; proxy_pass http://127.0.0.1:UPSTREAM/events; }
    location /dry      { auth_pat_dry_run on; proxy_buffering off; proxy_pass http://127.0.0.1:UPSTREAM/events; }
    location /fresh    { auth_pat_max_age 1h; proxy_buffering off; proxy_pass http://127.0.0.1:UPSTREAM/events; }
    location /open     { auth_pat_fail_open on; proxy_buffering off; proxy_pass http://127.0.0.1:UPSTREAM/events; }
    location /scope    { auth_pat_require_scope read; proxy_buffering off;
                         proxy_pass http://127.0.0.1:UPSTREAM/events; }
    location /socket   { proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
                         proxy_set_header Connection $connection_upgrade; proxy_pass http://127.0.0.1:WEBSOCKET; }
"""
SITE = f"""
    log_format test '$server_protocol $request_uri $status $auth_pat_status "$auth_pat_id"';
    auth_pat_zone pat:1m;
    auth_pat_store FOLDER/store;
    map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
    auth_pat API;
    auth_pat_recheck 250ms;
    keepalive_requests 1000000;
    server {{ LISTEN server_name test; {LOCATIONS}
              location = /status {{ auth_pat off; auth_pat_status json; }} }}
"""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as started:
        yield started


@pytest.fixture
def nginx(folder: Path, store: Store, upstream: Upstream, authority: Authority) -> Iterator[Site]:
    log = f"{folder}/access.log test"
    site = Site(folder, SITE, authority, access_log=log, UPSTREAM=upstream.port, WEBSOCKET=upstream.websocket_port)
    (folder / "html" / "file").write_bytes(b"x" * 10_000_000)
    with site as started:
        yield started


def cut(transport: Transport) -> End:
    """The end of a request that was closed, which no client can take for the end of an answer."""
    return End.CLOSED if transport.is_http1 else End.RESET


async def start(connection: Connection, path: str, token: Issued) -> Exchange:
    """A request whose answer goes on and on."""
    fields = {"/basic": token.basic, "/key": {"X-API-Key": token.token}}.get(path, token.header)
    exchange = await connection.start("GET", path, fields.items())
    assert await exchange.answered() == 200
    await exchange.goes_on()
    return exchange


def put_elsewhere(store: Store, **fields: object) -> tuple[Issued, Record]:
    """A token from a source, which may put its record again with other fields."""
    token = Issued("made-elsewhere-0123456789", "pat_1")
    digest = hashlib.sha256(token.token.encode()).hexdigest()
    record = {"op": "put", "digest": digest, "id": token.id, "subject": "alice"}
    store.apply({**record, "seq": 1, **fields}, {"op": "commit", "cursor": "1"})
    return token, record


@asynccontextmanager
async def running(nginx: Site, path: str, token: Issued, transport: Transport) -> AsyncIterator[Exchange]:
    async with connect(nginx, transport) as connection:
        yield await start(connection, path, token)


async def goes_on_for(exchange: Exchange, seconds: float = WATCHED) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        await exchange.goes_on()


async def echo(client: websockets.WebSocketClientProtocol) -> None:
    await client.send("hello")
    assert await asyncio.wait_for(client.recv(), DEADLINE) == "hello"


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_a_websocket_is_closed_when_its_token_is_revoked_and_another_is_not(
    nginx: Site, store: Store, scheme: str
) -> None:
    good, bad = store.issue(), store.issue()
    is_encrypted = scheme == "wss"
    url = f"{scheme}://127.0.0.1:{nginx.tls_port if is_encrypted else nginx.port}/socket"
    context = ssl.create_default_context(cafile=nginx.authority.ca) if is_encrypted else None

    def socket(token: Issued) -> websockets.Connect:
        return websockets.connect(url, ssl=context, extra_headers=token.header)

    async def scenario() -> None:
        async with socket(good) as kept, socket(bad) as closed:
            deadline = time.monotonic() + WATCHED
            while time.monotonic() < deadline:
                await echo(kept)
                await echo(closed)

            store.revoke(bad)
            deadline = time.monotonic() + CLOSED_WITHIN
            with pytest.raises(ConnectionClosed):
                while time.monotonic() < deadline:
                    await echo(closed)

            deadline = time.monotonic() + WATCHED
            while time.monotonic() < deadline:
                await echo(kept)

    asyncio.run(scenario())
    nginx.accessed(f'HTTP/1.1 /socket 101 revoked "{bad.id}"')
    nginx.accessed(f'HTTP/1.1 /socket 101 ok "{good.id}"')
    nginx.logged(rf'\[info\].*access token "{bad.id}" was revoked, closing its request')
    assert "[alert]" not in nginx.error_log()


@pytest.mark.parametrize("transport", ALL)
@pytest.mark.parametrize("path", ["/events", "/buffered", "/file", "/handed", "/basic", "/key"])
def test_an_answer_that_goes_on_is_cut_off(nginx: Site, store: Store, path: str, transport: Transport) -> None:
    """Events, with and without nginx's buffers; a download at a limited rate; one that was handed on inside nginx; one
    with the token as a password, and one with the token in a header of its own."""
    good, bad = store.issue(), store.issue()

    async def scenario() -> None:
        async with running(nginx, path, good, transport) as kept, running(nginx, path, bad, transport) as closed:
            store.revoke(bad)
            assert await closed.ended(CLOSED_WITHIN) is cut(transport)
            await goes_on_for(kept)

    asyncio.run(scenario())
    nginx.accessed(f'{transport.protocol} {path} 200 revoked "{bad.id}"')
    nginx.accessed(f'{transport.protocol} {path} 200 ok "{good.id}"')
    nginx.logged(rf'access token "{bad.id}" was revoked, closing its request')
    assert "[alert]" not in nginx.error_log()
    assert nginx.status()["closed"]["revoked"] == 1


@pytest.mark.parametrize("transport", WITH_STREAMS)
def test_one_stream_of_a_connection_is_closed_and_not_the_others(
    nginx: Site, store: Store, transport: Transport
) -> None:
    good, bad = store.issue(), store.issue()

    async def scenario() -> None:
        async with connect(nginx, transport) as connection:
            kept = await start(connection, "/events", good)
            closed = await start(connection, "/events", bad)
            store.revoke(bad)
            assert await closed.ended(CLOSED_WITHIN) is End.RESET
            await goes_on_for(kept)
            answer = await connection.fetch("/short", good.header.items())
            assert answer.status == 200, "the connection takes further requests"

    asyncio.run(scenario())


@pytest.mark.parametrize("transport", WITH_STREAMS)
def test_the_end_of_a_stream_does_not_wait_for_another_stream(nginx: Site, store: Store, transport: Transport) -> None:
    """On a connection on which nothing else is sent."""
    good, bad = store.issue(), store.issue()

    async def scenario() -> None:
        async with connect(nginx, transport) as connection:
            kept = await connection.start("GET", "/silence", good.header.items())
            closed = await connection.start("GET", "/silence", bad.header.items())
            await until(lambda: nginx.status()["requests"]["ok"] == 2, "both are under way")
            store.revoke(bad)
            assert await closed.ended(CLOSED_WITHIN) is End.RESET
            assert kept.end is None

    asyncio.run(scenario())


@pytest.mark.parametrize("transport", ALL)
def test_a_token_that_expires_ends_its_request(nginx: Site, store: Store, transport: Transport) -> None:
    token, record = put_elsewhere(store)

    async def scenario() -> None:
        async with running(nginx, "/events", token, transport) as request:
            # Only now: however long the above has taken, the token was good.
            expires_at = int(time.time()) + 3
            store.apply({**record, "seq": 2, "expires_at": expires_at}, {"op": "commit", "cursor": "2"})
            assert await request.ended(3 + CLOSED_WITHIN) is cut(transport)
            assert time.time() >= expires_at

    asyncio.run(scenario())
    nginx.accessed(f'{transport.protocol} /events 200 expired "{token.id}"')
    assert nginx.status()["closed"]["expired"] == 1


@pytest.mark.parametrize("transport", ALL)
@pytest.mark.parametrize("path", ["/upload", "/stream", "/silence"])
def test_a_request_without_an_answer_yet_is_closed_without_one(
    nginx: Site, store: Store, path: str, transport: Transport
) -> None:
    """An upload that is under way, to a file or to the upstream, and an upstream that does not answer."""
    good, bad = store.issue(), store.issue()
    is_upload = path != "/silence"

    async def begin(connection: Connection, token: Issued) -> Exchange:
        fields = dict(token.header)
        if is_upload:
            fields["Content-Length"] = "1000000"
        return await connection.start("PUT" if is_upload else "GET", path, fields.items(), has_body=is_upload)

    async def watch(*exchanges: Exchange) -> None:
        deadline = time.monotonic() + WATCHED
        while time.monotonic() < deadline:
            for exchange in exchanges:
                assert (exchange.status, exchange.end) == (0, None)
                if is_upload:
                    await exchange.send(b"x" * 100)
            await asyncio.sleep(0.02)

    async def scenario() -> None:
        async with connect(nginx, transport) as first, connect(nginx, transport) as second:
            kept, closed = await begin(first, good), await begin(second, bad)
            await until(lambda: nginx.status()["requests"]["ok"] == 2, "both are under way")
            await watch(kept, closed)
            store.revoke(bad)
            assert await closed.ended(CLOSED_WITHIN) is cut(transport)
            assert closed.status == 0
            await watch(kept)

    asyncio.run(scenario())
    nginx.accessed(f'{transport.protocol} {path} 444 revoked "{bad.id}"')


@pytest.mark.parametrize("transport", ALL)
def test_a_request_is_closed_when_the_store_cannot_be_read_unless_it_fails_open(
    nginx: Site, store: Store, transport: Transport
) -> None:
    token = store.issue()

    async def scenario() -> None:
        async with (
            running(nginx, "/events", token, transport) as closed,
            running(nginx, "/open", token, transport) as kept,
        ):
            os.rename(store.folder, store.folder.with_suffix(".away"))
            assert await closed.ended(CLOSED_WITHIN) is cut(transport)
            await goes_on_for(kept)
            os.rename(store.folder.with_suffix(".away"), store.folder)

            # Once the store is back, a revocation counts there, too.
            store.revoke(token)
            assert await kept.ended(CLOSED_WITHIN) is cut(transport)

    asyncio.run(scenario())
    nginx.accessed(f'{transport.protocol} /events 200 store_error "{token.id}"')
    nginx.accessed(f'{transport.protocol} /open 200 revoked "{token.id}"')
    nginx.logged(rf'access token "{token.id}" could not be validated, closing its request')
    nginx.logged(r"\[crit\].*auth_pat store")


@pytest.mark.parametrize("transport", ALL)
def test_a_request_is_closed_when_the_store_becomes_stale(nginx: Site, store: Store, transport: Transport) -> None:
    token = store.issue()

    async def start_fresh(connection: Connection) -> tuple[Exchange, int]:
        """Shortly before its store becomes stale, and from when it is; again if it was too late for that."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            stale_at = int(time.time()) + 3
            store.heartbeat(stale_at - 3601)
            request = await connection.start("GET", "/fresh", token.header.items())
            if await request.answered() == 200:
                return request, stale_at
            assert (request.status, await request.ended()) == (503, End.COMPLETE)
        raise TimeoutError(f"a request while the store is fresh: not within {DEADLINE} s")

    async def scenario() -> None:
        async with running(nginx, "/events", token, transport) as kept, connect(nginx, transport) as connection:
            closed, stale_at = await start_fresh(connection)
            assert await closed.ended(3 + CLOSED_WITHIN) is cut(transport)
            assert time.time() >= stale_at
            await goes_on_for(kept)

    asyncio.run(scenario())
    nginx.accessed(f'{transport.protocol} /fresh 200 stale "{token.id}"')
    nginx.logged(r"\[crit\].*is stale: its source was reached 36\d\d seconds ago, and at most 3600 are allowed")


@pytest.mark.parametrize("transport", ALL)
def test_a_request_is_closed_when_its_token_loses_what_it_needs(
    nginx: Site, store: Store, transport: Transport
) -> None:
    token, record = put_elsewhere(store, scopes=["read"])

    async def scenario() -> None:
        async with (
            running(nginx, "/scope", token, transport) as closed,
            running(nginx, "/events", token, transport) as kept,
        ):
            store.apply({**record, "seq": 2, "scopes": ["write"]}, {"op": "commit", "cursor": "2"})
            assert await closed.ended(CLOSED_WITHIN) is cut(transport)
            await goes_on_for(kept)
            store.apply({**record, "seq": 3, "cidrs": ["192.0.2.0/24"]}, {"op": "commit", "cursor": "3"})
            assert await kept.ended(CLOSED_WITHIN) is cut(transport)

    asyncio.run(scenario())
    nginx.accessed(f'{transport.protocol} /scope 200 scope_denied "pat_1"')
    nginx.accessed(f'{transport.protocol} /events 200 address_denied "pat_1"')


@pytest.mark.parametrize("transport", ALL)
def test_nothing_is_closed_without_a_recheck_or_in_a_dry_run(nginx: Site, store: Store, transport: Transport) -> None:
    token = store.issue()

    async def scenario() -> None:
        async with running(nginx, "/never", token, transport) as never, running(nginx, "/dry", token, transport) as dry:
            store.revoke(token)
            await goes_on_for(never)
            await goes_on_for(dry)

    asyncio.run(scenario())
    assert sum(nginx.status()["closed"].values()) == 0


@pytest.mark.parametrize("transport", ALL)
def test_a_connection_is_not_closed_for_a_request_that_is_over(nginx: Site, store: Store, transport: Transport) -> None:
    token = store.issue()

    async def scenario() -> None:
        async with connect(nginx, transport) as connection:
            assert (await connection.fetch("/short", token.header.items())).status == 200
            store.revoke(token)
            deadline = time.monotonic() + WATCHED
            while time.monotonic() < deadline:
                assert (await connection.fetch("/short", token.header.items())).status == 401

    asyncio.run(scenario())
    assert sum(nginx.status()["closed"].values()) == 0


# Not HTTP/2: for h2, a connection is over when the old worker announces its end. Not HTTP/3: after a reload, packets of
# an old connection may reach the new worker, which knows nothing of it.
@pytest.mark.parametrize("transport", WITHOUT_STREAMS)
def test_an_old_worker_looks_too_and_ends_with_its_last_request(
    nginx: Site, store: Store, transport: Transport
) -> None:
    token = store.issue()

    async def scenario() -> None:
        async with running(nginx, "/events", token, transport) as request:
            (old,) = nginx.reload()
            await goes_on_for(request)
            assert old in nginx.workers(), "it serves the request that is under way"
            store.revoke(token)
            assert await request.ended(CLOSED_WITHIN) is cut(transport)
            await until(lambda: old not in nginx.workers(), "the old worker ends")

    asyncio.run(scenario())
    nginx.accessed(f'{transport.protocol} /events 200 revoked "{token.id}"')


def test_looking_again_keeps_no_worker_from_ending(folder: Path, store: Store) -> None:
    site = """
        auth_pat_zone pat:1m;
        auth_pat_store FOLDER/store;
        server { listen 127.0.0.1:PORT; auth_pat API; auth_pat_recheck 1d; location / { empty_gif; } }
    """
    token = store.issue()
    with Nginx(folder, site) as nginx:
        assert nginx.request("/", "test", headers=token.header) == 200
        (old,) = nginx.reload()
        wait_until(lambda: old not in nginx.workers(), "the old worker ends", CLOSED_WITHIN)
