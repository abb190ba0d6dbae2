"""The same answers over HTTP/1.1, HTTP/2 and HTTP/3, with and without TLS; requests of one connection are decided one
by one."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from authority import Authority
from basics import wait_until
from client import End, Fields, connect
from store import Issued, Store
from transport import ALL, WITH_STREAMS, Site, Transport

SITE = """
    log_format test '$server_protocol $request_uri $status $auth_pat_status "$auth_pat_id" "$auth_pat_subject"'
                    ' "$auth_pat_name" "$auth_pat_scope"';
    auth_pat_store FOLDER/store;
    auth_pat API;
    keepalive_requests 1000000;
    server {
        LISTEN
        server_name test;
        set $never 0;
        location = /token     { try_files /nowhere =204; }
        location = /scope     { auth_pat_require_scope csv:write; try_files /nowhere =204; }
        location = /require   { auth_pat_require $never; try_files /nowhere =204; }
        location = /fresh     { auth_pat_max_age 1m; try_files /nowhere =204; }
        location = /absent    { auth_pat_store FOLDER/absent; try_files /nowhere =204; }
        location = /optional  { auth_pat_optional on; try_files /nowhere =204; }
        location = /preflight { auth_pat_preflight pass; try_files /nowhere =204; }
        location = /dry-run   { auth_pat_dry_run on; auth_pat_require_scope csv:write; try_files /nowhere =204; }
        location = /fail-open { auth_pat_fail_open on; auth_pat_store FOLDER/absent; try_files /nowhere =204; }
        location = /off       { auth_pat off; try_files /nowhere =204; }
        location = /key       { auth_pat Key token=$http_x_api_key; try_files /nowhere =204; }
        location = /sources   {
            auth_pat API scheme=bearer,basic header=X-API-Key header=Private-Token;
            try_files /nowhere =204;
        }
        location = /json      { error_page 401 @json; try_files /nowhere =204; }
        location @json        { return 401 '{"error":"$auth_pat_status"}'; }
        location /slow        { limit_rate 20k; alias FOLDER/html/file; }
        location /upload/     { client_max_body_size 0; dav_methods PUT; alias FOLDER/html/; }
    }
"""


@pytest.fixture
def nginx(folder: Path, store: Store, authority: Authority) -> Iterator[Site]:
    site = Site(folder, SITE, authority, access_log=f"{folder}/access.log test")
    (folder / "html" / "file").write_bytes(b"x" * 30_000)
    with site as started:
        yield started


class Tokens(NamedTuple):
    good: Issued
    unknown: Issued
    revoked: Issued
    expired: Issued
    early: Issued
    remote: Issued


def issue(store: Store) -> Tokens:
    expired = {"token": "expired-token-0001", "id": "pat_expired", "subject": "erin", "expires_at": 1600000000}
    store.patctl("import", "--plaintext", "--strict", "-", input=json.dumps(expired))
    revoked = store.issue("--subject", "mallory")
    store.revoke(revoked)
    return Tokens(
        good=store.issue("--subject", "alice", "--name", "daily upload", "--scope", "csv:read"),
        unknown=Issued("unknown-token-0001", ""),
        revoked=revoked,
        expired=Issued("expired-token-0001", "pat_expired"),
        early=store.issue("--subject", "bob", "--not-before", str(int(time.time()) + 86400)),
        remote=store.issue("--subject", "carol", "--cidr", "192.0.2.0/24"))


class Case(NamedTuple):
    path: str
    fields: Fields
    status: int
    verdict: str
    challenges: tuple[str, ...] = ()
    token: Issued | None = None  # which the log names
    is_let_in: bool = False  # and its variables are set
    method: str = "GET"


def cases(tokens: Tokens) -> Iterator[Case]:
    """Each verdict."""
    plain = 'Bearer realm="API"'
    scope = f'{plain}, error="insufficient_scope"'
    good = tokens.good

    def refused(token: Issued, status: int, verdict: str, description: str) -> Case:
        challenge = f'{plain}, error="invalid_token", error_description="The access token {description}"'
        return Case("/token", token.header.items(), status, verdict, (challenge,), token)

    yield Case("/token", good.header.items(), 204, "ok", (), good, True)
    yield Case("/token", [("authorization", f"bearer {good.token}")], 204, "ok", (), good, True)
    yield Case("/token", (), 401, "missing", (plain,))
    yield Case("/token", [("Authorization", "Basic Ym9iOnNlY3JldA==")], 401, "missing", (plain,))
    yield refused(Issued("too-short", ""), 401, "malformed", "is invalid")
    yield refused(tokens.unknown, 401, "unknown", "is invalid")
    yield refused(tokens.revoked, 401, "revoked", "was revoked")
    yield refused(tokens.expired, 401, "expired", "expired")
    yield refused(tokens.early, 401, "not_yet_valid", "is not yet valid")
    yield refused(tokens.remote, 403, "address_denied", "may not be used from this address")
    yield Case("/scope", good.header.items(), 403, "scope_denied", (f'{scope}, scope="csv:write"',), good)
    yield Case("/require", good.header.items(), 403, "require_denied", (scope,), good)
    yield Case("/fresh", good.header.items(), 503, "stale", (), good)
    yield Case("/absent", good.header.items(), 503, "store_error")
    yield Case("/fail-open", good.header.items(), 204, "store_error")
    yield Case("/optional", (), 204, "anonymous")
    asks = [("Origin", "https://example.com"), ("Access-Control-Request-Method", "PUT")]
    yield Case("/preflight", asks, 204, "preflight", method="OPTIONS")
    yield Case("/dry-run", good.header.items(), 204, "scope_denied_dry_run", (), good)
    yield Case("/off", (), 204, "off")
    yield Case("/key", [("X-Api-Key", good.token)], 204, "ok", (), good, True)
    yield Case("/key", good.header.items(), 401, "missing", ('Bearer realm="Key"',))

    # Several sources in one location.
    by_header = ("X-API-Key", good.token)
    both = (f'{plain}, error="invalid_token", error_description="The access token is invalid"', 'Basic realm="API"')
    (by_basic,) = good.basic.items()
    for field in (by_header, by_basic, *good.header.items(), ("private-token", good.token)):
        yield Case("/sources", [field], 204, "ok", (), good, True)
    yield Case("/sources", (), 401, "missing", (plain, both[1]))
    for fields in ([by_header, by_header], [by_header, by_basic], [by_header, ("Private-Token", "")]):
        yield Case("/sources", fields, 401, "malformed", both)


def logged(transport: Transport, case: Case) -> str:
    identity = '"alice" "daily upload" "csv:read"' if case.is_let_in else '"-" "-" "-"'
    id = case.token.id if case.token else ""
    return f'{transport.protocol} {case.path} {case.status} {case.verdict} "{id or "-"}" {identity}'


@pytest.mark.parametrize("transport", ALL)
def test_each_verdict_has_its_answer_and_its_line_in_the_log(nginx: Site, store: Store, transport: Transport) -> None:
    tokens = issue(store)
    expected = list(cases(tokens))

    async def scenario() -> None:
        async with connect(nginx, transport) as connection:
            for case in expected:
                answer = await connection.fetch(case.path, case.fields, method=case.method)
                assert (answer.status, answer.values("www-authenticate")) == (case.status, list(case.challenges)), case
                assert answer.values("retry-after") == (["1"] if case.status == 503 else []), case
            answer = await connection.fetch("/json", tokens.revoked.header.items())
            assert (answer.status, bytes(answer.body)) == (401, b'{"error":"revoked"}')
            assert len(answer.values("www-authenticate")) == 1, "the challenge stays with a body of one's own"

    asyncio.run(scenario())
    wait_until(lambda: len(nginx.access_log()) == len(expected) + 1, nginx.access_log)
    assert nginx.access_log()[:-1] == [logged(transport, case) for case in expected]
    log = nginx.error_log()
    assert "[alert]" not in log and "[emerg]" not in log
    assert not [token for token in tokens if token.token in log]


@pytest.mark.parametrize("transport", ALL)
def test_two_authorization_fields_are_refused(nginx: Site, store: Store, transport: Transport) -> None:
    """Not the first counts, nor the last."""
    tokens = issue(store)
    good = ("Authorization", f"Bearer {tokens.good.token}")

    async def scenario() -> None:
        for value in (good[1], f"Bearer {tokens.revoked.token}", "Basic Ym9iOnNlY3JldA=="):
            other = ("Authorization", value)
            for fields in ([good, other], [other, good]):
                async with connect(nginx, transport) as connection:
                    assert (await connection.fetch("/token", fields)).status in (400, 401), fields

    asyncio.run(scenario())


@pytest.mark.parametrize("transport", ALL)
def test_an_upload_is_refused_before_it_arrives(nginx: Site, store: Store, transport: Transport) -> None:
    tokens = issue(store)
    size = 2_000_000
    length = ("Content-Length", str(size))

    async def scenario() -> None:
        for token in tokens[1:]:
            async with connect(nginx, transport) as connection:
                fields = [*token.header.items(), length]
                upload = await connection.start("PUT", "/upload/refused", fields, has_body=True)
                await upload.send(b"x" * 1000)
                assert await upload.answered() in (401, 403)
                assert await upload.ended() is End.COMPLETE

        async with connect(nginx, transport) as connection:
            fields = [*tokens.good.header.items(), length]
            upload = await connection.start("PUT", "/upload/taken", fields, has_body=True)
            await upload.send(b"x" * size, is_last=True)
            assert await upload.ended() is End.COMPLETE
            assert upload.status == 201

    asyncio.run(scenario())
    assert not (nginx.folder / "html" / "refused").exists()
    assert (nginx.folder / "html" / "taken").stat().st_size == size
    assert list((nginx.folder / "temp" / "client_body").iterdir()) == []


@pytest.mark.parametrize("transport", WITH_STREAMS)
def test_streams_of_one_connection_are_each_decided_for_themselves(
    nginx: Site, store: Store, transport: Transport
) -> None:
    """While all of them are under way."""
    tokens = issue(store)
    second = store.issue("--subject", "dave")
    expected = {tokens.good: 200, second: 200, tokens.revoked: 401, tokens.expired: 401, tokens.unknown: 401}
    times = 6

    async def scenario() -> None:
        async with connect(nginx, transport) as connection:
            started = [(status, await connection.start("GET", f"/slow?{token.id}", token.header.items()))
                       for token, status in list(expected.items()) * times]
            for status, exchange in started:
                assert await exchange.ended() is End.COMPLETE
                assert exchange.status == status
                assert len(exchange.body) == 30_000 or status != 200

    asyncio.run(scenario())
    wait_until(lambda: len(nginx.access_log()) == len(expected) * times, nginx.access_log)
    found = Counter(line.split(' "')[0] + " " + line.split('"')[3] for line in nginx.access_log())
    assert found == {
        f"{transport.protocol} /slow?{token.id} {status} {verdict} {subject}": times
        for token, status, verdict, subject in (
            (tokens.good, 200, "ok", "alice"), (second, 200, "ok", "dave"), (tokens.revoked, 401, "revoked", "-"),
            (tokens.expired, 401, "expired", "-"), (tokens.unknown, 401, "unknown", "-"))}


@pytest.mark.parametrize("transport", ALL)
def test_a_revocation_counts_for_the_next_request_of_a_connection(
    nginx: Site, store: Store, transport: Transport
) -> None:
    token = store.issue("--subject", "alice")

    async def scenario() -> None:
        async with connect(nginx, transport) as connection:
            for _ in range(3):
                assert (await connection.fetch("/token", token.header.items())).status == 204
                store.patctl("revoke", "--subject", "alice")
                assert (await connection.fetch("/token", token.header.items())).status == 401
                store.patctl("restore-access", "--subject", "alice")

    asyncio.run(scenario())
