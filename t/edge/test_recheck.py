"""auth_pat_recheck with requests that last: they end soon after their token does, and the others feel nothing."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from basics import DEADLINE, wait_until
from nginx import Nginx, nginx_version
from store import Issued, Store
from upstream import Upstream
from websockets.exceptions import ConnectionClosed
from websockets.legacy.client import WebSocketClientProtocol, connect

# nginx looks each quarter of a second; the rest is for a machine that is busy.
CLOSED_WITHIN = 5.0
# How long a request that may go on is watched: several looks.
WATCHED = 1.0

LISTEN_H2 = "listen 127.0.0.1:PORT2 http2;"
if nginx_version() >= (1, 25, 1):
    LISTEN_H2 = "listen 127.0.0.1:PORT2; http2 on;"

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
    log_format test '$request_uri $status $auth_pat_status "$auth_pat_id"';
    auth_pat_zone pat:1m;
    auth_pat_store FOLDER/store;
    map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
    auth_pat API;
    auth_pat_recheck 250ms;
    server {{ listen 127.0.0.1:PORT; server_name test; {LOCATIONS}
              location = /status {{ auth_pat off; auth_pat_status json; }} }}
    server {{ {LISTEN_H2} server_name test; {LOCATIONS} }}
"""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as started:
        yield started


@pytest.fixture
def nginx(folder: Path, store: Store, upstream: Upstream) -> Iterator[Nginx]:
    log = f"{folder}/access.log test"
    site = Nginx(folder, SITE, access_log=log, UPSTREAM=upstream.port, WEBSOCKET=upstream.websocket_port)
    (folder / "html" / "file").write_bytes(b"x" * 10_000_000)
    with site as started:
        yield started


class Running:
    """A request whose answer goes on and on."""

    def __init__(self, url: str, token: Issued, http2: bool = False) -> None:
        self._client = httpx.AsyncClient(http1=not http2, http2=http2, timeout=DEADLINE)
        self._request = self._client.build_request("GET", url, headers=token.header)
        self.received = 0
        self.error: httpx.HTTPError | None = None

    async def start(self) -> Running:
        self.response = await self._client.send(self._request, stream=True)
        assert self.response.status_code == 200
        self._task = asyncio.create_task(self._read())
        await self.goes_on()
        return self

    async def _read(self) -> None:
        try:
            async for part in self.response.aiter_raw():
                self.received += len(part)
        except httpx.HTTPError as error:
            self.error = error

    async def goes_on(self) -> None:
        """Something more arrives."""
        before = self.received
        await until(lambda: self.received > before or self._task.done(), "more of the answer")
        assert not self._task.done(), self.error

    async def ends(self, seconds: float = CLOSED_WITHIN) -> None:
        await asyncio.wait_for(self._task, seconds)

    async def close(self) -> None:
        self._task.cancel()
        await self.response.aclose()
        await self._client.aclose()


async def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.005)


@asynccontextmanager
async def running(url: str, token: Issued, http2: bool = False) -> AsyncIterator[Running]:
    request = await Running(url, token, http2).start()
    try:
        yield request
    finally:
        await request.close()


async def goes_on_for(request: Running, seconds: float = WATCHED) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        await request.goes_on()


async def echo(client: WebSocketClientProtocol) -> None:
    await client.send("hello")
    assert await asyncio.wait_for(client.recv(), DEADLINE) == "hello"


def test_a_websocket_is_closed_when_its_token_is_revoked_and_another_is_not(nginx: Nginx, store: Store) -> None:
    good, bad = store.issue(), store.issue()

    async def scenario() -> None:
        url = f"ws://127.0.0.1:{nginx.port}/socket"
        async with connect(url, extra_headers=good.header) as kept, connect(url, extra_headers=bad.header) as closed:
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
    nginx.accessed(f'/socket 101 revoked "{bad.id}"')
    nginx.accessed(f'/socket 101 ok "{good.id}"')
    nginx.logged(rf'\[info\].*access token "{bad.id}" was revoked, closing its request')
    assert "[alert]" not in nginx.error_log()


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
@pytest.mark.parametrize("path", ["/events", "/buffered", "/file", "/handed"])
def test_an_answer_that_goes_on_is_cut_off(nginx: Nginx, store: Store, path: str, http2: bool) -> None:
    """Events, with and without nginx's buffers; a download at a limited rate; one that was handed on inside nginx."""
    good, bad = store.issue(), store.issue()
    port = nginx.port2 if http2 else nginx.port

    async def scenario() -> None:
        url = f"http://127.0.0.1:{port}{path}"
        async with running(url, good, http2) as kept, running(url, bad, http2) as closed:
            store.revoke(bad)
            await closed.ends()
            assert isinstance(closed.error, httpx.RemoteProtocolError), "the client can tell it from an end"
            await goes_on_for(kept)

    asyncio.run(scenario())
    nginx.accessed(f'{path} 200 revoked "{bad.id}"')
    nginx.accessed(f'{path} 200 ok "{good.id}"')
    nginx.logged(rf'access token "{bad.id}" was revoked, closing its request')
    assert "[alert]" not in nginx.error_log()
    assert nginx.status()["closed"]["revoked"] == 1


def test_one_stream_of_a_connection_is_closed_and_not_the_others(nginx: Nginx, store: Store) -> None:
    good, bad = store.issue(), store.issue()

    async def scenario() -> None:
        kept = Running(f"http://127.0.0.1:{nginx.port2}/events", good, http2=True)
        closed = Running(f"http://127.0.0.1:{nginx.port2}/events", bad, http2=True)
        closed._client = kept._client
        await kept.start()
        await closed.start()
        store.revoke(bad)
        await closed.ends()
        assert isinstance(closed.error, httpx.RemoteProtocolError), "the stream was reset"
        await goes_on_for(kept)
        answer = await kept._client.get(f"http://127.0.0.1:{nginx.port2}/short", headers=good.header)
        assert answer.status_code == 200, "the connection takes further requests"
        await kept.close()

    asyncio.run(scenario())
    connections = {line.split("*")[1].split()[0] for line in nginx.error_log().splitlines() if "closing its" in line}
    assert len(connections) == 1


def test_the_end_of_a_stream_does_not_wait_for_another_stream(nginx: Nginx, store: Store) -> None:
    """On a connection on which nothing else is sent."""
    good, bad = store.issue(), store.issue()
    url = f"http://127.0.0.1:{nginx.port2}/silence"

    async def scenario() -> None:
        async with httpx.AsyncClient(http1=False, http2=True, timeout=DEADLINE) as client:
            kept = asyncio.create_task(client.get(url, headers=good.header))
            closed = asyncio.create_task(client.get(url, headers=bad.header))
            await until(lambda: nginx.status()["requests"]["ok"] == 2, "both are under way")
            store.revoke(bad)
            with pytest.raises(httpx.RemoteProtocolError):
                await asyncio.wait_for(closed, CLOSED_WITHIN)
            assert not kept.done()
            kept.cancel()

    asyncio.run(scenario())


def test_a_token_that_expires_ends_its_request(nginx: Nginx, store: Store) -> None:
    token = store.issue("--subject", "alice", "--expires-in", "3s")

    async def scenario() -> None:
        async with running(f"{nginx.url}/events", token) as request:
            await request.ends()

    asyncio.run(scenario())
    nginx.accessed(f'/events 200 expired "{token.id}"')
    assert nginx.status()["closed"]["expired"] == 1


def send(nginx: Nginx, head: str) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", nginx.port), DEADLINE)
    client.sendall(head.replace("\n", "\r\n").encode())
    return client


@pytest.mark.parametrize("path", ["/upload", "/stream", "/silence"])
def test_a_request_without_an_answer_yet_is_closed_without_one(nginx: Nginx, store: Store, path: str) -> None:
    """An upload that is under way, to a file or to the upstream, and an upstream that does not answer."""
    token = store.issue()
    method = "GET" if path == "/silence" else "PUT"
    body = "" if path == "/silence" else "Content-Length: 1000000\n"
    with send(nginx, f"{method} {path} HTTP/1.1\nHost: test\nAuthorization: Bearer {token.token}\n{body}\n") as client:
        client.settimeout(0.1)
        deadline = time.monotonic() + WATCHED
        while time.monotonic() < deadline:
            if body:
                client.sendall(b"x" * 100)
            with pytest.raises(TimeoutError):
                client.recv(1)

        store.revoke(token)
        client.settimeout(CLOSED_WITHIN)
        assert client.recv(1) == b""
    nginx.accessed(f'{path} 444 revoked "{token.id}"')


def test_an_upload_over_http2_is_closed(nginx: Nginx, store: Store) -> None:
    good, bad = store.issue(), store.issue()

    def upload(token: Issued) -> subprocess.Popen[bytes]:
        header = f"Authorization: Bearer {token.token}"
        url = f"http://127.0.0.1:{nginx.port2}/upload"
        return subprocess.Popen(
            ["curl", "-q", "-s", "--http2-prior-knowledge", "-T", "-", "-H", header, url],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0)

    with upload(good) as kept, upload(bad) as closed:
        assert kept.stdin is not None and closed.stdin is not None
        wait_until(lambda: nginx.status()["requests"]["ok"] == 2, "both are under way")
        store.revoke(bad)
        deadline = time.monotonic() + CLOSED_WITHIN
        while closed.poll() is None:
            assert time.monotonic() < deadline
            closed.stdin.write(b"x" * 100)
            kept.stdin.write(b"x" * 100)
            time.sleep(0.02)
        assert closed.returncode == 92, "the stream was reset"
        deadline = time.monotonic() + WATCHED
        while time.monotonic() < deadline:
            assert kept.poll() is None
            kept.stdin.write(b"x" * 100)
            time.sleep(0.02)
        kept.terminate()
    nginx.accessed(f'/upload 444 revoked "{bad.id}"')


def test_a_request_is_closed_when_the_store_cannot_be_read_unless_it_fails_open(nginx: Nginx, store: Store) -> None:
    token = store.issue()

    async def scenario() -> None:
        async with running(f"{nginx.url}/events", token) as closed, running(f"{nginx.url}/open", token) as kept:
            os.rename(store.folder, store.folder.with_suffix(".away"))
            await closed.ends()
            await goes_on_for(kept)
            os.rename(store.folder.with_suffix(".away"), store.folder)

            # Once the store is back, a revocation counts there, too.
            store.revoke(token)
            await kept.ends()

    asyncio.run(scenario())
    nginx.accessed(f'/events 200 store_error "{token.id}"')
    nginx.accessed(f'/open 200 revoked "{token.id}"')
    nginx.logged(rf'access token "{token.id}" could not be validated, closing its request')
    nginx.logged(r"\[crit\].*auth_pat store")


def test_a_request_is_closed_when_the_store_becomes_stale(nginx: Nginx, store: Store) -> None:
    token = store.issue()
    store.heartbeat(time.time() - 3595)

    async def scenario() -> None:
        async with running(f"{nginx.url}/fresh", token) as closed, running(f"{nginx.url}/events", token) as kept:
            await closed.ends(5 + CLOSED_WITHIN)
            await goes_on_for(kept)

    asyncio.run(scenario())
    nginx.accessed(f'/fresh 200 stale "{token.id}"')
    nginx.logged(r"\[crit\].*is stale: its source was reached 36\d\d seconds ago, and at most 3600 are allowed")


def test_a_request_is_closed_when_its_token_loses_what_it_needs(nginx: Nginx, store: Store) -> None:
    token = Issued("made-elsewhere-0123456789", "pat_1")
    record = {"op": "put", "digest": hashlib.sha256(token.token.encode()).hexdigest(), "id": "pat_1", "subject": "alice"}
    store.apply({**record, "seq": 1, "scopes": ["read"]}, {"op": "commit", "cursor": "1"})

    async def scenario() -> None:
        async with running(f"{nginx.url}/scope", token) as closed, running(f"{nginx.url}/events", token) as kept:
            store.apply({**record, "seq": 2, "scopes": ["write"]}, {"op": "commit", "cursor": "2"})
            await closed.ends()
            await goes_on_for(kept)
            store.apply({**record, "seq": 3, "cidrs": ["192.0.2.0/24"]}, {"op": "commit", "cursor": "3"})
            await kept.ends()

    asyncio.run(scenario())
    nginx.accessed('/scope 200 scope_denied "pat_1"')
    nginx.accessed('/events 200 address_denied "pat_1"')


def test_nothing_is_closed_without_a_recheck_or_in_a_dry_run(nginx: Nginx, store: Store) -> None:
    token = store.issue()

    async def scenario() -> None:
        async with running(f"{nginx.url}/never", token) as never, running(f"{nginx.url}/dry", token) as dry:
            store.revoke(token)
            await goes_on_for(never)
            await goes_on_for(dry)

    asyncio.run(scenario())
    assert sum(nginx.status()["closed"].values()) == 0


def test_a_connection_is_not_closed_for_a_request_that_is_over(nginx: Nginx, store: Store) -> None:
    token = store.issue()
    with httpx.Client(timeout=DEADLINE) as client:
        assert client.get(f"{nginx.url}/short", headers=token.header).status_code == 200
        store.revoke(token)
        opened = nginx.error_log().count("closed keepalive connection")
        deadline = time.monotonic() + WATCHED
        while time.monotonic() < deadline:
            assert client.get(f"{nginx.url}/short", headers=token.header).status_code == 401
        assert nginx.error_log().count("closed keepalive connection") == opened
    assert sum(nginx.status()["closed"].values()) == 0


def test_an_old_worker_looks_too_and_ends_with_its_last_request(nginx: Nginx, store: Store) -> None:
    token = store.issue()

    async def scenario() -> None:
        async with running(f"{nginx.url}/events", token) as request:
            (old,) = nginx.reload()
            await goes_on_for(request)
            assert old in nginx.workers(), "it serves the request that is under way"
            store.revoke(token)
            await request.ends()
            await until(lambda: old not in nginx.workers(), "the old worker ends")

    asyncio.run(scenario())
    nginx.accessed(f'/events 200 revoked "{token.id}"')


def test_looking_again_keeps_no_worker_from_ending(folder: Path, store: Store) -> None:
    site = """
        auth_pat_zone pat:1m;
        auth_pat_store FOLDER/store;
        server { listen 127.0.0.1:PORT; auth_pat API; auth_pat_recheck 1d; location / { empty_gif; } }
    """
    token = store.issue()
    with Nginx(folder, site) as nginx, httpx.Client(timeout=DEADLINE) as client:
        assert client.get(nginx.url, headers=token.header).status_code == 200
        (old,) = nginx.reload()
        wait_until(lambda: old not in nginx.workers(), "the old worker ends", CLOSED_WITHIN)
