"""How long to wait before the next try."""

from __future__ import annotations

import random
import time

_FIRST = 0.1

# What worked for a shorter time than this has not recovered.
_STABLE = 1.0


class Backoff:
    """Full jitter: anything up to a ceiling that doubles with each failure."""

    def __init__(self, longest: float = 10.0) -> None:
        self._longest = longest
        self._failures = 0
        self._failed_at = 0.0
        self._recovered_at: float | None = None

    def failed(self) -> float:
        """How many seconds to wait now."""
        now = time.monotonic()
        if self._recovered_at is not None and now - self._recovered_at >= _STABLE:
            self._failures = 0
        if self._failures == 0 or self._recovered_at is not None:
            self._failed_at = now
        self._recovered_at = None
        self._failures += 1
        return random.uniform(0, min(self._longest, _FIRST * 2.0 ** min(self._failures - 1, 16)))

    def succeeded(self) -> float | None:
        """How many seconds it had failed for, if this is the first success after that."""
        if self._failures == 0 or self._recovered_at is not None:
            return None
        self._recovered_at = time.monotonic()
        return self._recovered_at - self._failed_at
