"""Early data (RFC 8446 2.3): a request that comes with the first packet of a connection, and may be a replay, counts as
any other does."""

from __future__ import annotations

import asyncio
import re
import select
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from authority import Authority
from basics import DEADLINE, NGINX, wait_until
from client import End, until
from nginx import nginx_version
from store import Issued, Store
from transport import Site, has_http3

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


def openssl(nginx: Site, *options: str | Path, port: int = 0, input: str = "") -> str:
    """What its TLS client tells, and the answer."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port or nginx.tls_port}",
               "-CAfile", str(nginx.authority.ca), "-verify_return_error", "-tls1_3", "-ign_eof", *map(str, options)]
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


def record(listener: socket.socket, port: int) -> bytes:
    """Passes one connection on to a port. What its client has sent before there was an answer."""
    client, _ = listener.accept()
    with client, socket.create_connection(("127.0.0.1", port), DEADLINE) as server:
        client.settimeout(DEADLINE)
        other = {client: server, server: client}
        recorded, is_answered, is_open = b"", False, True
        with suppress(ConnectionError):  # which is an end, too
            while is_open:
                for source in select.select(list(other), [], [], DEADLINE)[0]:
                    data = source.recv(65536)
                    is_open = is_open and bool(data)
                    is_answered = is_answered or source is server
                    recorded += b"" if is_answered else data
                    other[source].sendall(data)
    return recorded


def test_a_recorded_request_counts_again_until_its_token_is_revoked(nginx: Site, store: Store) -> None:
    token = store.issue()
    session, data = nginx.folder / "session", nginx.folder / "request"
    data.write_text(request("/recorded", token))
    openssl(nginx, "-sess_out", session, input=request("/first", token))
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as executor:
        recording = executor.submit(record, listener, nginx.tls_port)
        port = listener.getsockname()[1]
        assert "Early data was accepted" in openssl(nginx, "-sess_in", session, "-early_data", data, port=port)
        recorded = recording.result(DEADLINE)

    def replay(requests: int) -> None:
        with socket.create_connection(("127.0.0.1", nginx.tls_port), DEADLINE) as client:
            client.sendall(recorded)
            wait_until(lambda: len(nginx.access_log()) == requests, "a request")

    replay(3)
    store.revoke(token)
    replay(4)
    assert nginx.access_log()[1:] == [
        *[f'HTTP/1.1 /recorded 204 ok "{token.id}"'] * 2, f'HTTP/1.1 /recorded 401 revoked "{token.id}"']


def has_quic_early_data() -> bool:
    """nginx 1.29.1 and newer with OpenSSL 3.5.1 and newer."""
    shown = subprocess.run([NGINX, "-V"], capture_output=True, text=True, check=True).stderr
    built_with = re.search(r"built with OpenSSL (\d+)\.(\d+)\.(\d+)", shown)
    assert built_with, shown
    return nginx_version() >= (1, 29, 1) and tuple(map(int, built_with.groups())) >= (3, 5, 1)


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
@pytest.mark.skipif(not has_http3(), reason="this nginx is built without HTTP/3")
def test_a_recorded_request_from_a_forged_address(
    folder: Path, store: Store, authority: Authority, retry: str
) -> None:
    """nginx takes it for that of a client there, unless quic_retry has it ask whether there is one."""
    from http3 import Http3

    elsewhere = "127.0.0.5"
    token = store.issue("--subject", "alice", "--cidr", f"{elsewhere}/32")
    http = SITE.replace("ssl_early_data on;", f"ssl_early_data on; quic_retry {retry};")
    is_taken = has_quic_early_data() and retry == "off"

    async def scenario(nginx: Site) -> None:
        first = await Http3.connect(authority.ca, nginx.tls_port)
        assert (await first.fetch("/first", token.header.items())).status == 403
        await until(lambda: first.tickets, "a ticket")
        await first.close()

        second = await Http3.connect(authority.ca, nginx.tls_port, ticket=first.tickets[-1])
        await second.start("GET", "/recorded", token.header.items())
        recorded = list(second.sent)
        await second.close()

        with socket.socket(type=socket.SOCK_DGRAM) as forger:
            forger.bind((elsewhere, 0))

            def replay() -> bool:
                for datagram in recorded:
                    forger.sendto(datagram, ("127.0.0.1", nginx.tls_port))
                return f'HTTP/3.0 /recorded 204 ok "{token.id}"' in nginx.access_log()

            if is_taken:
                await until(replay, "the request counts")
            else:
                replay()
                third = await Http3.connect(authority.ca, nginx.tls_port)
                assert (await third.fetch("/last", token.header.items())).status == 403
                await third.close()
                assert not replay()

    with Site(folder, http, authority, access_log=f"{folder}/access.log test") as nginx:
        asyncio.run(scenario(nginx))
