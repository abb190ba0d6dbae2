"""A store is converted from one format to the other, and back, while nginx answers from it: never a wrong answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from authority import Authority
from basics import PATCTL, wait_until
from client import connect
from store import Issued, Store
from transport import ALL, Site, Transport

# Enough for several transactions of a conversion.
RECORDS = 20000

SITE = """
    auth_pat_store FOLDER/store;
    keepalive_requests 1000000;
    server { LISTEN location / { auth_pat API; empty_gif; } }
"""


@pytest.fixture
def nginx(folder: Path, store: Store, authority: Authority) -> Iterator[Site]:
    with Site(folder, SITE, authority, workers=2) as started:
        yield started


class Client(threading.Thread):
    """Asks for the same all the time, over one connection, until it is told to end."""

    def __init__(self, site: Site, transport: Transport, tokens: dict[str, int]) -> None:
        super().__init__()
        self.answers: Counter[tuple[str, int]] = Counter()
        self._site = site
        self._transport = transport
        self._tokens = tokens
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        asyncio.run(self._ask())

    async def _ask(self) -> None:
        async with connect(self._site, self._transport) as connection:
            while not self._ended.is_set():
                for token in self._tokens:
                    answer = await connection.fetch("/", [("Authorization", f"Bearer {token}")])
                    self.answers[token, answer.status] += 1

    def end(self) -> None:
        self._ended.set()
        self.join()
        assert {token: status for token, status in self.answers} == self._tokens
        assert len(self.answers) == len(self._tokens), self.answers


def load(store: Store) -> None:
    digests = (hashlib.sha256(str(number).encode()).hexdigest() for number in range(RECORDS))
    lines = (json.dumps({"digest": digest, "id": digest[:8], "subject": "s"}) for digest in digests)
    store.patctl("import", "--strict", "-", input="\n".join(lines))


@pytest.mark.parametrize("transport", ALL)
def test_no_answer_is_wrong_while_a_store_is_converted(nginx: Site, store: Store, transport: Transport) -> None:
    load(store)
    good, bad, late = (store.issue("--subject", f"user:{number}", "--name", "n" * 50) for number in range(3))
    store.revoke(bad)
    tokens = {good.token: 200, bad.token: 401, "u" * 44: 401}
    clients = [Client(nginx, transport, tokens) for _ in range(3)]

    for round in range(3):
        for target in ("1", "2"):
            command = [PATCTL, "--store", str(store.folder), "convert", "--format", target]
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as running:
                # A revocation counts from the moment its command is over.
                token: Issued = store.issue()
                assert nginx.request("/", "test", headers=token.header) == 200
                store.revoke(token)
                assert nginx.request("/", "test", headers=token.header) == 401
                if round == 1:
                    running.kill()
            if running.returncode != 0:
                store.patctl("convert", "--format", target)
            assert (store.stats()["format"], store.stats()["other_format"]) == (int(target), 0)
            assert nginx.request("/", "test", headers=late.header) == 200

    before = [sum(client.answers.values()) for client in clients]
    wait_until(lambda: all(sum(client.answers.values()) > count for client, count in zip(clients, before)), "answers")
    for client in clients:
        client.end()
    assert "[crit]" not in nginx.error_log()
    assert "[emerg]" not in nginx.error_log()
