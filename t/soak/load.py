"""The work: a platform that changes tokens, an operator on each host, and clients."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections import Counter, deque
from contextlib import suppress

import edge
from basics import PATCTL
from feed_server import digest
from oracle import NO_ANSWER, Observation, Oracle
from postgresql import Connection, issue
from sidecar import scrape
from store import Store

#: Tokens that are good at a time.
LIVE = 200
#: Those that only operators change: each revokes them on its host, and restores them.
OPERATORS = 10
BODY_BYTES = 64 << 10
#: An answer that goes on for so long after its token was revoked was not looked at again.
CLOSED_WITHIN = 30.0
JUNK = ("never-issued-0123456789", "no!token", "short", "", "x" * 600, "ropat_" + "0" * 38)


class Tokens:
    """What the platform has issued. Each host has an oracle, as changes reach hosts at different times."""

    def __init__(self, oracles: list[Oracle]) -> None:
        self.oracles = oracles
        self.lock = threading.Lock()
        self.text_of_id: dict[str, str] = {}
        self.text_of_digest: dict[str, str] = {}
        self.live: deque[str] = deque()
        self.refused: deque[str] = deque(maxlen=200)
        self.operators: list[str] = []
        for oracle in oracles:
            for text in JUNK:
                oracle.know(text, False)

    def begin(self, text: str, allowed: bool) -> None:
        for oracle in self.oracles:
            oracle.begin(text, allowed)

    def add(self, id: str, text: str) -> None:
        with self.lock:
            self.text_of_id[id] = text
            self.text_of_digest[digest(text)] = text
            self.live.append(id)

    def refuse(self, id: str) -> None:
        with self.lock:
            self.live.remove(id)
            self.refused.append(id)

    def any(self, chance: random.Random) -> str:
        kind = chance.random()
        with self.lock:
            if kind < 0.15:
                return chance.choice(JUNK)
            if kind < 0.25 and self.operators:
                return self.text_of_id[chance.choice(self.operators)]
            if kind < 0.5 and self.refused:
                return self.text_of_id[chance.choice(self.refused)]
            return self.text_of_id[chance.choice(self.live)] if self.live else JUNK[0]

    def next_to_be_refused(self) -> str | None:
        with self.lock:
            return self.text_of_id[self.live[0]] if self.live else None


class Platform:
    """Changes tokens in the database. As many are good all the time, and none is kept that is not."""

    def __init__(self, connection: Connection, tokens: Tokens, chance: random.Random, ends: threading.Event) -> None:
        self._connection = connection
        self._tokens = tokens
        self._chance = chance
        self._ends = ends
        self.changes = 0
        self._last_purge = self._last_epoch = time.monotonic()

    def __call__(self) -> None:
        with self._connection.transaction():
            refused = self._change()
        for id in refused:
            self._tokens.refuse(id)
        self.changes += 1
        self._keep_house()
        self._ends.wait(self._chance.uniform(0, 0.02))

    def issue(self) -> str:
        """The token may count from its commit on, which follows."""
        id, text = issue(self._connection, f"user:{self._chance.randrange(50)}", scopes=["read"])
        self._tokens.begin(text, True)
        self._tokens.add(id, text)
        return id

    def _change(self) -> list[str]:
        """One transaction; the tokens that it ends."""
        live = self._tokens.live
        # The number of good tokens stays about the same.
        kind = 0.0 if len(live) < LIVE else self._chance.uniform(0 if len(live) < 1.1 * LIVE else 0.4, 1)
        if kind < 0.4:
            for _ in range(self._chance.choice((1, 1, 3))):
                self.issue()
            return []
        if kind < 0.5:
            self._connection.execute("UPDATE pat.token SET name = name || 'x' WHERE id = %s AND length(name) < 50",
                                     (self._chance.choice(live),))
            return []
        # Streams last until their tokens are refused: the oldest go first.
        id = live[0] if kind < 0.8 else self._chance.choice(live)
        self._tokens.begin(self._tokens.text_of_id[id], False)
        if kind < 0.85:
            self._connection.execute("SELECT pat.revoke(%s)", (id,))
        elif kind < 0.95:
            self._connection.execute("DELETE FROM pat.token WHERE id = %s", (id,))
        else:
            row = self._connection.execute("SELECT id, token FROM pat.rotate(%s, '0')", (id,)).fetchone()
            assert row is not None
            new, text = row
            self._tokens.begin(text, True)
            self._tokens.add(new, text)
        return [id]

    def _keep_house(self) -> None:
        now = time.monotonic()
        if now - self._last_purge > 3:
            self._last_purge = now
            self._connection.execute("SELECT pat.purge(now() - interval '2 seconds', keep_tombstones => '2 seconds')")
        if now - self._last_epoch > 10:
            # A snapshot, after which stores need no memory of what was deleted.
            self._last_epoch = now
            self._connection.execute("SELECT pat.new_epoch()")


class Operator:
    """Revokes tokens on the host and restores them, and looks at the store and copies it now and then."""

    def __init__(self, store: Store, oracle: Oracle, tokens: Tokens, chance: random.Random,
                 ends: threading.Event) -> None:
        self._store = store
        self._oracle = oracle
        self._tokens = tokens
        self._chance = chance
        self._ends = ends
        self._revoked: list[str] = []

    def __call__(self) -> None:
        kind = self._chance.random()
        id = self._chance.choice(self._tokens.operators)
        if kind < 0.5:
            self._set("revoke", id, id in self._revoked)
        elif kind < 0.9 and self._revoked:
            self._set("restore-access", self._chance.choice(self._revoked), False)
        elif kind < 0.95:
            self._store.patctl("list")
        else:
            copy = self._store.folder.with_name("backup")
            self._store.patctl("backup", str(copy))
            subprocess.run(["rm", "-r", copy], check=True)
        self._ends.wait(self._chance.uniform(0, 0.6))

    def _set(self, command: str, id: str, is_done: bool) -> None:
        if is_done:
            return
        allowed = command != "revoke"
        change = self._oracle.begin(self._tokens.text_of_id[id], allowed)
        self._store.patctl(command, id)
        change.acknowledge()
        if allowed:
            self._revoked.remove(id)
        else:
            self._revoked.append(id)


class Client:
    """Asks over a keep-alive connection, which it gives up now and then."""

    def __init__(self, port: int, tokens: Tokens, chance: random.Random) -> None:
        self._port = port
        self._tokens = tokens
        self._chance = chance
        self._client: edge.Client | None = None
        self._worker = 0
        self.seen: list[Observation] = []
        self.requests_of_worker: Counter[int] = Counter()

    def __call__(self) -> None:
        text = self._tokens.any(self._chance)
        if self._chance.random() < 0.02:
            path, request = "/upload", _upload(text)
        else:
            path, request = "/pat", edge.request("/pat", text)
        sent = time.monotonic_ns()
        status = NO_ANSWER
        try:
            if self._client is None:
                self._client = edge.Client(self._port)
                self._worker = self._client.worker()
            sent = time.monotonic_ns()
            self._client.send(request)
            status = self._client.receive()
            self.requests_of_worker[self._worker] += 1
        except (OSError, ValueError, IndexError):
            self._close()
        self.seen.append(Observation(text, path, sent, time.monotonic_ns(), status))
        # A body that nginx need not read ends the connection.
        if status == NO_ANSWER or path == "/upload" or self._chance.random() < 0.05:
            self._close()
        # The others of this process have their turn.
        time.sleep(0.001)

    def _close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _upload(text: str) -> bytes:
    fields = ("POST /upload HTTP/1.1", "Host: soak", f"Authorization: Bearer {text}", f"Content-Length: {BODY_BYTES}")
    return "".join(f"{field}\r\n" for field in (*fields, "")).encode() + bytes(BODY_BYTES)


class Stream:
    """Reads events until nginx closes the stream, as its token is good no longer; one in four goes away before that."""

    def __init__(self, port: int, oracle: Oracle, tokens: Tokens, chance: random.Random, ends: threading.Event) -> None:
        self._port = port
        self._oracle = oracle
        self._tokens = tokens
        self._chance = chance
        self._ends = ends
        self.seen: list[Observation] = []
        self.streams = 0
        #: Those that went on without a good token.
        self.wrong: list[str] = []

    def __call__(self) -> None:
        text = self._tokens.next_to_be_refused()
        if text is None:
            self._ends.wait(0.1)
            return
        sent = time.monotonic_ns()
        with suppress(OSError):
            client = edge.Client(self._port)
            client.send(edge.request("/events", text))
            try:
                self._read(client, text, sent)
            finally:
                client.close()

    def _read(self, client: edge.Client, text: str, sent: int) -> None:
        head = client.socket.recv(4096)
        status = int(head[9:12]) if head else NO_ANSWER
        self.seen.append(Observation(text, "/events", sent, time.monotonic_ns(), status))
        if status != 200:
            return
        self.streams += 1
        leaves_at = time.monotonic() + (self._chance.uniform(0, 2) if self._chance.random() < 0.25 else 3600)
        while not self._ends.is_set() and time.monotonic() < leaves_at and client.socket.recv(65536):
            now = time.monotonic_ns()
            if not self._oracle.may_be(True, text, now - int(CLOSED_WITHIN * 1e9), now):
                self.wrong.append(f'a stream of "{text}" goes on')
                return


class Monitoring:
    """Scrapes everything that reports figures."""

    def __init__(self, port: int, metrics_port: int, ends: threading.Event) -> None:
        self._port = port
        self._metrics_port = metrics_port
        self._ends = ends

    def __call__(self) -> None:
        with suppress(OSError):
            for kind in ("application/json", "text/plain", "text/html"):
                client = edge.Client(self._port)
                client.send(f"GET /status HTTP/1.0\r\nHost: soak\r\nAccept: {kind}\r\n\r\n".encode())
                while client.socket.recv(65536):
                    pass
                client.close()
        with suppress(OSError):  # pat-sync may have been killed
            scrape(self._metrics_port)
        self._ends.wait(0.5)


def kill_a_reader(store: Store, chance: random.Random) -> bool:
    """A command that reads the store is killed where it is."""
    command = [PATCTL, "--store", str(store.folder), "list"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as reader:
        time.sleep(chance.uniform(0, 0.01))
        reader.kill()
        return True
