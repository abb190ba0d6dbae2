"""What is true of each token at each moment, and whether an answer of nginx was right."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

LET_IN = 200
REFUSED = 401
UNAVAILABLE = 503
#: There was no answer: the connection was closed, or nobody answered for long.
NO_ANSWER = 0

EVER = 1 << 63


@dataclass
class Change:
    """Between its begin and its acknowledgement, what was true before it and what is true after it are both right."""

    allowed: bool
    begun: int
    acknowledged: int = EVER

    def acknowledge(self, at: int | None = None) -> None:
        self.acknowledged = min(self.acknowledged, time.monotonic_ns() if at is None else at)


class Observation(NamedTuple):
    """A request and its answer. Times are monotonic, in nanoseconds."""

    token: str
    path: str
    sent: int
    received: int
    status: int


@dataclass
class Judgement:
    statuses: Counter[int] = field(default_factory=Counter)
    wrong_yes: list[str] = field(default_factory=list)
    wrong_no: list[str] = field(default_factory=list)


class Oracle:
    """Tokens are known by their text, which the store never sees."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changes: dict[str, list[Change]] = {}
        # When a location with auth_pat_max_age has to refuse all, as the source was out of reach for longer than that.
        self._stale: list[tuple[int, int]] = []
        self._delays: list[tuple[int, int]] = []

    def know(self, token: str, allowed: bool) -> None:
        """What has always been true."""
        with self._lock:
            self._changes[token] = [Change(allowed, 0, 0)]

    def begin(self, token: str, allowed: bool) -> Change:
        change = Change(allowed, time.monotonic_ns())
        with self._lock:
            self._changes.setdefault(token, [Change(False, 0, 0)]).append(change)
        return change

    def acknowledge(self, refusals: dict[str, int]) -> None:
        """When the revocation or deletion of a token was acknowledged."""
        for token, at in refusals.items():
            for change in self._changes.get(token, ()):
                if not change.allowed and change.begun <= at:
                    change.acknowledge(at)

    def arrive(self, token: str, at: int) -> None:
        """A token was let in at that time, so it had been issued before."""
        for change in self._changes[token]:
            if change.allowed and change.begun <= at:
                change.acknowledge(at)

    def settle(self) -> None:
        """All that has begun is done."""
        with self._lock:
            for changes in self._changes.values():
                for change in changes:
                    change.acknowledge()

    def is_stale(self, begin: int, end: int) -> None:
        self._stale.append((begin, end))

    def delay(self, begin: int, end: int) -> None:
        """What is acknowledged in between counts from the end on."""
        self._delays.append((begin, end))

    def tokens(self) -> list[str]:
        with self._lock:
            return list(self._changes)

    def is_allowed(self, token: str) -> bool:
        """What is true in the end."""
        return self._changes[token][-1].allowed

    def may_be(self, allowed: bool, token: str, begin: int, end: int) -> bool:
        """Whether that may have been true at a moment in between."""
        with self._lock:
            changes = list(self._changes[token])
        ends = [self._counts_from(change.acknowledged) for change in changes[1:]] + [EVER]
        return any(
            change.allowed == allowed and change.begun <= end and begin <= last
            for change, last in zip(changes, ends, strict=True)
        )

    def _counts_from(self, acknowledged: int) -> int:
        return max([acknowledged, *(end for begin, end in self._delays if begin <= acknowledged <= end)])

    def _was_stale(self, seen: Observation) -> bool:
        return any(begin <= seen.sent and seen.received <= end for begin, end in self._stale)

    def _is_refused_for_good(self, seen: Observation) -> bool:
        last = self._changes[seen.token][-1]
        return not last.allowed and last.begun <= seen.sent

    def judge(self, observations: Iterable[Observation]) -> Judgement:
        result = Judgement()
        refused: dict[str, int] = {}  # when a token was refused first, which has been let in before
        let_in: set[str] = set()
        for seen in sorted(observations, key=lambda one: one.received):
            result.statuses[seen.status] += 1
            said = f'"{seen.token}" got {seen.status} at {seen.path}, sent at {seen.sent}'
            if seen.status == LET_IN:
                let_in.add(seen.token)
                if not self.may_be(True, seen.token, seen.sent, seen.received):
                    result.wrong_yes.append(f"{said}, when it had to be refused: {self._changes[seen.token]}")
                elif seen.sent > refused.get(seen.token, EVER):
                    result.wrong_yes.append(f"{said}, after it had been refused: {self._changes[seen.token]}")
                elif seen.path == "/fresh" and self._was_stale(seen):
                    result.wrong_yes.append(f"{said}, when the store was stale")
            elif seen.status == REFUSED:
                if not self.may_be(False, seen.token, seen.sent, seen.received):
                    result.wrong_no.append(f"{said}, when it was good: {self._changes[seen.token]}")
                elif seen.token in let_in and self._is_refused_for_good(seen):
                    refused.setdefault(seen.token, seen.received)
            elif seen.status not in (UNAVAILABLE, NO_ANSWER):
                result.wrong_no.append(f"{said}, which no token gets")
        return result
