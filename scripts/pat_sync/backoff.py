"""Delays between retries."""

from __future__ import annotations

import random
import time

_FIRST = 0.1

# A success that lasts for less than this does not reset the delay.
_STABLE = 1.0


class Backoff:
    """Exponential backoff with full jitter: a random delay below a ceiling that doubles with each failure."""

    def __init__(self, longest: float = 10.0) -> None:
        self._longest = longest
        self._failures = 0
        self._failed_at = 0.0
        self._recovered_at: float | None = None

    def failed(self) -> float:
        """Note a failure and return the seconds to wait."""
        now = time.monotonic()
        if self._recovered_at is not None and now - self._recovered_at >= _STABLE:
            self._failures = 0
        if self._failures == 0 or self._recovered_at is not None:
            self._failed_at = now
        self._recovered_at = None
        self._failures += 1
        return random.uniform(0, min(self._longest, _FIRST * 2.0 ** min(self._failures - 1, 16)))

    def succeeded(self) -> float | None:
        """Note a success. Return how many seconds the failure lasted if this is the first success since."""
        if self._failures == 0 or self._recovered_at is not None:
            return None
        self._recovered_at = time.monotonic()
        return self._recovered_at - self._failed_at
