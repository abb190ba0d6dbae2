"""`patctl check` and the module on the same store, and a table of our own: the same verdict on random tokens, records,
addresses, scopes and times."""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from basics import DEADLINE, PATCTL, temporary_folder
from conftest import Dice
from nginx import Nginx
from store import Store

RECORDS = 30
QUESTIONS = 60
LEEWAY = 3600
PREFIX = "ropat_"

# No verdict depends on how long a test takes: no time is nearer to now, or to now and the leeway.
AWAY = 1800

SITE = """
    auth_pat_store FOLDER/store;
    set_real_ip_from 127.0.0.1;
    real_ip_header X-Peer;
    add_header X-Verdict $auth_pat_status always;
    auth_pat API;
    auth_pat_require_scope $http_x_scopes;
    auth_pat_require_scope $http_x_more_scopes;
    server {
        listen 127.0.0.1:PORT;
        location /0/ { empty_gif; }
        location /LEEWAY/ { auth_pat_leeway LEEWAY; empty_gif; }
        location /0/PREFIX { auth_pat_prefix PREFIX; empty_gif; }
        location /LEEWAY/PREFIX { auth_pat_leeway LEEWAY; auth_pat_prefix PREFIX; empty_gif; }
    }
"""

SCOPES = ("api:read", "api:write", "api", "orders:read", "a", "A", "api:read:all")
ADDRESSES = (
    "192.0.2.1", "192.0.2.130", "198.51.100.7", "10.0.0.1", "2001:db8::1", "2001:db8:1::1", "::ffff:192.0.2.1", "::1",
)  # fmt: skip
RANGES = (
    "192.0.2.0/24", "192.0.2.128/25", "0.0.0.0/0", "::/0", "2001:db8::/48", "10.0.0.1", "2001:db8::1/128",
    "::ffff:192.0.2.0/120",
)  # fmt: skip


@dataclass
class Token:
    text: str
    record: dict[str, Any] | None
    is_damaged: bool = False


@dataclass
class Question:
    """How a token is presented."""

    presented: bytes
    token: Token | None
    leeway: int
    prefix: str
    address: str
    scopes: list[list[str]]


@pytest.fixture
def folder() -> Iterator[Path]:
    with temporary_folder() as path:
        yield path


@pytest.fixture
def store(folder: Path) -> Store:
    return Store(folder / "store")


@pytest.fixture
def nginx(folder: Path, store: Store) -> Iterator[Nginx]:
    with Nginx(folder, SITE, log_level="emerg", LEEWAY=LEEWAY, PREFIX=PREFIX) as started:
        yield started


def make_text(dice: Dice, issued: list[str]) -> str:
    """A token: of the form that patctl issues, or of another one."""
    if issued and dice.random() < 0.3:
        return issued.pop()
    length = dice.choice((16, 17, 44, 511, 512))
    padding = dice.choice((0, 0, 1, 3))
    characters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-._~+/"
    return "".join(dice.choices(characters, k=length - padding)) + "=" * padding


def make_record(dice: Dice, text: str, number: int, now: int) -> dict[str, Any]:
    def a_time() -> int:
        return now + dice.choice((-10_000_000, -2 * LEEWAY, -AWAY, AWAY, 2 * LEEWAY, 10_000_000))

    def some(choices: tuple[str, ...]) -> list[str]:
        return dice.sample(choices, dice.randrange(1, 4))

    optional: dict[str, Any] = {
        "scopes": some(SCOPES),
        "cidrs": some(RANGES),
        "not_before": a_time(),
        "expires_at": a_time(),
        "revoked_at": dice.choice((1, now - AWAY, now + AWAY)),
        "local_revoked_at": now,
        "denied": True,
    }
    likely = {"scopes": 0.8, "cidrs": 0.5, "not_before": 0.4, "expires_at": 0.6}
    record = {name: value for name, value in optional.items() if dice.random() < likely.get(name, 0.05)}
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {"digest": digest, "id": f"token-{number}", "subject": "user:42", **record}


def is_token(presented: bytes) -> bool:
    body = presented.rstrip(b"=")
    allowed = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-._~+/"
    return 16 <= len(presented) <= 512 and body != b"" and not body.strip(allowed)


def is_within(address: str, ranges: list[str]) -> bool:
    def plain(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        parsed = ipaddress.ip_address(text)
        return getattr(parsed, "ipv4_mapped", None) or parsed

    def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        base, _, bits = text.partition("/")
        mapped = base.startswith("::ffff:")
        return ipaddress.ip_network(f"{base.removeprefix('::ffff:')}/{int(bits) - 96}" if mapped else text)

    return any(plain(address) in network(text) for text in ranges)


def right_verdict(question: Question, issued: set[str], now: int) -> str:
    token = question.token
    presented = question.presented
    if not is_token(presented) or (question.prefix and presented.decode() not in issued):
        return "malformed"
    if token is None or token.record is None:
        return "unknown"
    if token.is_damaged:
        return "store_error"
    record = token.record
    if any(name in record for name in ("revoked_at", "local_revoked_at", "denied")):
        return "revoked"
    if record.get("expires_at", now * 2) <= now - question.leeway:
        return "expired"
    if record.get("not_before", 0) > now + question.leeway:
        return "not_yet_valid"
    if "cidrs" in record and not is_within(question.address, record["cidrs"]):
        return "address_denied"
    if not {scope for scopes in question.scopes for scope in scopes} <= set(record.get("scopes", [])):
        return "scope_denied"
    return "ok"


def ask_patctl(store: Store, question: Question) -> str:
    arguments = ["--address", question.address, "--leeway", f"{question.leeway}s"]
    for scopes in question.scopes:
        arguments += ["--scope", " ".join(scopes)]
    if question.prefix:
        arguments += ["--prefix", question.prefix]
    command = [PATCTL, "--store", str(store.folder), "check", *arguments]
    done = subprocess.run(command, input=question.presented, capture_output=True, timeout=DEADLINE)
    word = done.stdout.decode().split("\n")[0]
    assert done.returncode == {"ok": 0, "store_error": 3}.get(word, 1), done
    return word


def ask_module(connection: http.client.HTTPConnection, question: Question) -> str:
    headers = {"Authorization": f"Bearer {question.presented.decode('latin-1')}", "X-Peer": question.address}
    for name, scopes in zip(("X-Scopes", "X-More-Scopes"), question.scopes):
        headers[name] = " ".join(scopes)
    connection.request("GET", f"/{question.leeway}/{question.prefix}", headers=headers)
    with connection.getresponse() as answer:
        answer.read()
        word = answer.headers["X-Verdict"]
        assert (answer.status == 200) == (word == "ok"), (answer.status, word)
        return str(word)


def mutate(dice: Dice, text: str) -> bytes:
    """A value that a header can have, and that neither begins nor ends with a blank, which a header loses."""
    changed = dice.mutate(text.encode(), [b"=", b" ", b"\t", b",", PREFIX.encode(), b"%20", b"Bearer ", b"\xc3\xa9"])
    return bytes(byte for byte in changed if byte >= 0x20 and byte != 0x7F or byte == 0x09).strip(b" \t") or b"x"


def damage(store: Store, token: Token) -> None:
    """Changes a byte of the record, wherever the file has it."""
    assert token.record is not None
    with (store.folder / "data.mdb").open("r+b") as file:
        content = file.read()
        name = token.record["id"].encode() + b"user:42"
        at = content.find(name)
        assert at >= 0
        while at >= 0:
            file.seek(at)
            file.write(b"T")
            at = content.find(name, at + 1)
    token.is_damaged = True


def test_check_and_the_module_agree(dice: Dice, store: Store, nginx: Nginx) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=DEADLINE)
    issued: set[str] = set()
    number = 0
    for _ in dice.rounds():
        now = int(time.time())
        fresh = [store.issue("--prefix", PREFIX, "--subject", "user:1").token for _ in range(4)]
        issued |= set(fresh)
        tokens = []
        for _ in range(RECORDS):
            number += 1
            text = make_text(dice, fresh)
            known = text in issued or dice.random() < 0.9
            tokens.append(Token(text, make_record(dice, text, number, now) if known else None))
        lines = "".join(json.dumps(token.record) + "\n" for token in tokens if token.record is not None)
        store.patctl("import", "--strict", "-", input=lines)
        for token in tokens:
            if token.record is not None and dice.random() < 0.05:
                damage(store, token)
        by_text = {token.text.encode(): token for token in tokens}

        for _ in range(QUESTIONS):
            token = dice.choice(tokens)
            presented = token.text.encode() if dice.random() < 0.85 else mutate(dice, token.text)
            question = Question(
                presented,
                by_text.get(presented),
                dice.choice((0, LEEWAY)),
                dice.choice(("", "", PREFIX)),
                dice.choice(ADDRESSES),
                [dice.sample(SCOPES, dice.choice((1, 1, 2))) for _ in range(dice.choice((0, 1, 1, 2)))],
            )
            right = right_verdict(question, issued, now)
            answers = (ask_patctl(store, question), ask_module(connection, question))
            assert answers == (right, right), question
            dice.tried += 1
