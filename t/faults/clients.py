"""Who asks, who changes tokens at the source, and who revokes them on the host."""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import edge
from feed_server import digest
from oracle import NO_ANSWER, Observation

if TYPE_CHECKING:
    from host import Host

#: Tokens that are good at the begin.
TOKENS = 100
#: Those of them that the operator revokes.
OPERATORS = 50
#: Tokens that are never good. The last two are none.
NEVER = ("faults-never-issued", "faults-expired-long-ago", "faults-not-valid-yet", "no!token", "")
#: How long a client waits for an answer.
ANSWER_SECONDS = 20.0


class Connection:
    """A keep-alive connection that is opened again whenever nginx has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._client: edge.Client | None = None

    def status(self, path: str, token: str) -> int:
        try:
            if self._client is None:
                self._client = edge.Client(self._port)
                self._client.socket.settimeout(ANSWER_SECONDS)
            self._client.send(edge.request(path, token))
            return self._client.receive()
        except (OSError, ValueError, IndexError):
            self.close()
            return NO_ANSWER

    def worker(self) -> int:
        with suppress(OSError, ValueError, IndexError):
            if self._client is None:
                self._client = edge.Client(self._port)
                self._client.socket.settimeout(ANSWER_SECONDS)
            return self._client.worker()
        self.close()
        return 0

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


class Client:
    """Asks with tokens of all kinds, most of all with those that were just revoked."""

    def __init__(self, host: Host, chance: random.Random) -> None:
        self._host = host
        self._chance = chance
        self._connection = Connection(host.nginx.port)
        self.seen: list[Observation] = []

    def __call__(self) -> None:
        host = self._host
        tokens = self._chance.choice((host.good, host.good, host.bad[-20:], host.bad, NEVER))
        token = self._chance.choice(tokens)
        path = self._chance.choice(("/pat", "/pat", "/fresh"))
        if self._chance.random() < 0.01:
            self._connection.close()  # the next may be another worker's
        sent = time.monotonic_ns()
        status = self._connection.status(path, token)
        self.seen.append(Observation(token, path, sent, time.monotonic_ns(), status))
        # Fifty a second from each are enough, and leave the processors to the others.
        time.sleep(0.02 if status != NO_ANSWER else 0.05)


class Source:
    """Changes tokens at the source."""

    def __init__(self, host: Host, chance: random.Random) -> None:
        self._host = host
        self._chance = chance
        self._number = 0
        self.lock = threading.Lock()
        self.pause = 0.04

    def __call__(self) -> None:
        with self.lock:
            kind = self._chance.random()
            if kind < 0.5 or len(self._host.good) < TOKENS:
                self._host.good.append(self.put())
            else:
                self.refuse(self._take(), "revoke" if kind < 0.8 else "delete")
        time.sleep(self._chance.uniform(0, 2 * self.pause))

    def put(self, **fields: object) -> str:
        self._number += 1
        token = f"faults-token-{self._number:06}"
        self._host.oracle.begin(token, True)
        self._host.feed.put(token, **fields)
        return token

    def refuse(self, token: str, op: str = "revoke") -> None:
        self._host.oracle.begin(token, False)
        self._host.feed.add({"op": op, "digest": digest(token)})
        self._host.bad.append(token)

    def _take(self) -> str:
        # The first are the operator's.
        token = self._chance.choice(self._host.good[OPERATORS :])
        self._host.good.remove(token)
        return token


class Operator:
    """Revokes tokens on the host, now and then."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.lock = threading.Lock()

    def __call__(self) -> None:
        # A fault holds the lock for long, and may fail.
        if self.lock.acquire(timeout=0.2):
            try:
                if len(self._host.good) > OPERATORS:
                    self._host.brake(self._host.good.pop(0))
            finally:
                self.lock.release()
        time.sleep(0.4)
