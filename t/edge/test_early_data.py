"""Early data (RFC 8446 2.3): a request that comes with the first packet of a connection, and may be a replay, counts as
any other does."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from authority import Authority
from basics import DEADLINE, NGINX, wait_until
from client import End, until
from nginx import nginx_version
from store import Issued, Store
from transport import Site, has_http3

# For about ten seconds, OpenSSL takes early data that its client has sent. Who is late records it again.
TAKEN_FOR = 8.0
RECORDINGS = 5

SITE = """
    log_format test '$server_protocol $request_uri $status $auth_pat_status "$auth_pat_id"';
    auth_pat_store FOLDER/store;
    auth_pat API;
    server {
        LISTEN
        server_name test;
        ssl_protocols TLSv1.3;
        ssl_early_data on;
        location / { try_files /nowhere =204; }
    }
"""


@pytest.fixture
def nginx(folder: Path, store: Store, authority: Authority) -> Iterator[Site]:
    with Site(folder, SITE, authority, access_log=f"{folder}/access.log test") as started:
        yield started


def request(path: str, token: Issued) -> str:
    fields = {"Host": "test", "Connection": "close", **token.header}
    return "\r\n".join([f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""])


def s_client(nginx: Site, port: int, *options: str | Path) -> list[str]:
    """OpenSSL's TLS client."""
    return ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(nginx.authority.ca),
            "-verify_return_error", "-tls1_3", "-ign_eof", *map(str, options)]


def openssl(nginx: Site, *options: str | Path, input: str = "") -> str:
    """What the client tells, and the answer."""
    command = s_client(nginx, nginx.tls_port, *options)
    done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=DEADLINE, check=True)
    return done.stdout


def test_over_tls(nginx: Site, store: Store) -> None:
    good, bad = store.issue(), store.issue()
    session = nginx.folder / "session"

    def early(path: str, token: Issued) -> int:
        """The status of a request that is sent with the first packet of a new connection."""
        data = nginx.folder / "request"
        data.write_text(request(path, token))
        answer = openssl(nginx, "-sess_in", session, "-early_data", data)
        assert "Early data was accepted" in answer
        (status,) = re.findall(r"^HTTP/1\.1 (\d+) ", answer, re.MULTILINE)
        return int(status)

    # A session, whose ticket comes with the answer.
    assert "HTTP/1.1 204 " in openssl(nginx, "-sess_out", session, input=request("/first", bad))

    assert early("/good", good) == 204
    assert early("/bad", bad) == 204
    store.revoke(bad)
    assert early("/bad", bad) == 401, "the same again"
    assert early("/good", good) == 204
    assert early("/unknown", Issued("x" * 40, "")) == 401

    nginx.accessed(f'HTTP/1.1 /first 204 ok "{bad.id}"')
    nginx.accessed(f'HTTP/1.1 /good 204 ok "{good.id}"')
    nginx.accessed(f'HTTP/1.1 /bad 204 ok "{bad.id}"')
    nginx.accessed(f'HTTP/1.1 /bad 401 revoked "{bad.id}"')
    nginx.accessed('HTTP/1.1 /unknown 401 unknown "-"')


def has_early_data(records: bytes) -> bool:
    """Whether there is a whole record of application data (RFC 8446 5.1)."""
    while len(records) >= 5:
        end = 5 + int.from_bytes(records[3:5], "big")
        if records[0] == 23:
            return len(records) >= end
        records = records[end:]
    return False


def record(nginx: Site, *options: str | Path) -> bytes:
    """What a client sends first. It does not reach nginx."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)
        command = s_client(nginx, listener.getsockname()[1], *options)
        unused = subprocess.DEVNULL
        with subprocess.Popen(command, stdin=unused, stdout=unused, stderr=unused) as process:
            try:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(DEADLINE)
                    recorded = b""
                    while not has_early_data(recorded):
                        part = connection.recv(65536)
                        assert part, recorded
                        recorded += part
            finally:
                process.kill()
    return recorded


def is_in_time(condition: Callable[[], object], recorded_at: float) -> bool:
    """Waits for the effect of a copy, for as long as OpenSSL takes it."""
    try:
        wait_until(condition, "a request", recorded_at + TAKEN_FOR - time.monotonic())
    except TimeoutError:
        return False
    return True


def test_copies_of_a_request_count_for_some_seconds_until_its_token_is_revoked(nginx: Site, store: Store) -> None:
    session, data = nginx.folder / "session", nginx.folder / "request"
    openssl(nginx, "-sess_out", session, input=request("/first", store.issue()))

    def is_replayed() -> bool:
        """Whether all copies were in time."""
        token = store.issue()
        data.write_text(request("/recorded", token))
        recorded_at = time.monotonic()
        recorded = record(nginx, "-sess_in", session, "-early_data", data)

        def lines() -> list[str]:
            return [line for line in nginx.access_log() if f'"{token.id}"' in line]

        def replay(requests: int) -> bool:
            with socket.create_connection(("127.0.0.1", nginx.tls_port), DEADLINE) as client:
                client.sendall(recorded)
                return is_in_time(lambda: len(lines()) == requests, recorded_at)

        if not (replay(1) and replay(2)):
            return False
        store.revoke(token)
        if not replay(3):
            return False
        assert lines() == [
            *[f'HTTP/1.1 /recorded 204 ok "{token.id}"'] * 2, f'HTTP/1.1 /recorded 401 revoked "{token.id}"']
        return True

    assert any(is_replayed() for _ in range(RECORDINGS))


def has_quic_early_data() -> bool:
    """With QuicTLS and BoringSSL: any nginx that has HTTP/3. With OpenSSL: nginx 1.29.1 and newer with 3.5.1 and newer;
    what makes up for the lack of QUIC in an older one takes none."""
    shown = subprocess.run([NGINX, "-V"], capture_output=True, text=True, check=True).stderr
    (library,) = re.findall(r"built with (.*SSL.*)", shown)
    if "+quic" in library or "BoringSSL" in library:
        return has_http3()
    version = re.match(r"OpenSSL (\d+)\.(\d+)\.(\d+)", library)
    is_new = version is not None and tuple(map(int, version.groups())) >= (3, 5, 1)
    return has_http3() and nginx_version() >= (1, 29, 1) and is_new


@pytest.mark.skipif(not has_http3(), reason="this nginx is built without HTTP/3")
def test_over_http3(nginx: Site, store: Store) -> None:
    """Where nginx takes no early data, it answers the same requests after the handshake."""
    from http3 import Http3

    good, bad = store.issue(), store.issue()
    is_taken = has_quic_early_data()

    async def scenario() -> None:
        first = await Http3.connect(nginx.authority.ca, nginx.tls_port)
        assert (await first.fetch("/first", bad.header.items())).status == 204
        await until(lambda: first.tickets, "a ticket")
        await first.close()
        store.revoke(bad)

        for path, token, status in (("/good", good, 204), ("/bad", bad, 401)):
            second = await Http3.connect(nginx.authority.ca, nginx.tls_port, ticket=first.tickets[-1])
            exchange = await second.start("GET", path, token.header.items())
            assert await exchange.ended() is End.COMPLETE
            assert exchange.status == status
            assert second.handshake.session_resumed
            assert second.handshake.early_data_accepted is is_taken
            await second.close()

    asyncio.run(scenario())
    nginx.accessed(f'HTTP/3.0 /first 204 ok "{bad.id}"')
    nginx.accessed(f'HTTP/3.0 /good 204 ok "{good.id}"')
    nginx.accessed(f'HTTP/3.0 /bad 401 revoked "{bad.id}"')


@pytest.mark.parametrize("retry", ["off", "on"])
@pytest.mark.skipif(not has_quic_early_data(), reason="this nginx takes no early data over HTTP/3")
def test_a_recorded_request_from_a_forged_address(
    folder: Path, store: Store, authority: Authority, retry: str
) -> None:
    """nginx takes it for that of a client there, unless quic_retry has it ask whether there is one."""
    from http3 import Http3

    elsewhere = "127.0.0.5"
    token = store.issue("--subject", "alice", "--cidr", f"{elsewhere}/32")
    http = SITE.replace("ssl_early_data on;", f"ssl_early_data on; quic_retry {retry};")

    async def record(ticket: Any) -> list[bytes]:
        """What a client sends first. It does not reach nginx, which would drop copies of what it has had already."""
        with socket.socket(type=socket.SOCK_DGRAM) as eavesdropper:
            eavesdropper.bind(("127.0.0.1", 0))
            client = await Http3.connect(authority.ca, eavesdropper.getsockname()[1], ticket=ticket)
            await client.start("GET", "/recorded", token.header.items())
            recorded = list(client.sent)
            await client.close()
            return recorded

    async def forge(nginx: Site, recorded: list[bytes]) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as forger:
            forger.bind((elsewhere, 0))
            forger.setblocking(False)
            for datagram in recorded:
                forger.sendto(datagram, ("127.0.0.1", nginx.tls_port))
            answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(forger, 65536), DEADLINE)
        is_retry = answer[0] & 0xF0 == 0xF0  # RFC 9000 17.2.5
        assert is_retry is (retry == "on")

    async def scenario(nginx: Site) -> None:
        first = await Http3.connect(authority.ca, nginx.tls_port)
        assert (await first.fetch("/first", token.header.items())).status == 403
        await until(lambda: first.tickets, "a ticket")
        await first.close()

        if retry == "off":
            line = f'HTTP/3.0 /recorded 204 ok "{token.id}"'
            for _ in range(RECORDINGS):
                recorded_at = time.monotonic()
                await forge(nginx, await record(first.tickets[-1]))
                if is_in_time(lambda: line in nginx.access_log(), recorded_at):
                    return
            raise TimeoutError("the request does not count")

        await forge(nginx, await record(first.tickets[-1]))
        # The only worker takes what comes in order.
        last = await Http3.connect(authority.ca, nginx.tls_port)
        assert (await last.fetch("/last", token.header.items())).status == 403
        await last.close()
        assert not [line for line in nginx.access_log() if "/recorded" in line]

    with Site(folder, http, authority, access_log=f"{folder}/access.log test") as nginx:
        asyncio.run(scenario(nginx))
