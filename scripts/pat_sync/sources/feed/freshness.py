"""Whether an answer of the feed is fresh, or may come from a cache."""

from __future__ import annotations

import email.utils
import re
import time

import requests

# The header field in which the feed returns the nonce of the request.
NONCE_FIELD = "Pat-Nonce"

# How long the same Date may be repeated: a Date has whole seconds.
_DATE_SECONDS = 2.0


class Freshness:
    """Decides whether an answer was made for its request, as a cache may answer without saying so.

    A feed proves it by returning the request's nonce. If it never does, an answer counts as fresh if it has no Age and
    its Date is later than those of all previous answers.
    """

    def __init__(self) -> None:
        self.is_proven = False
        # Why the last answer may not be fresh. None and not proven: it is too early to tell.
        self.doubt: str | None = None
        # Whether the last answer seems to come from a cache, as opposed to lacking both nonce and Date.
        self.seems_kept = False
        self._has_echo = False
        self._newest = float("-inf")
        self._newest_seen_at = 0.0

    def judge(self, answer: requests.Response, nonce: str) -> None:
        self.is_proven = False
        self.doubt = None
        self.seems_kept = False
        age = answer.headers.get("Age", "0").strip()
        echo = answer.headers.get(NONCE_FIELD)
        if echo is not None:
            echo = echo.strip()
        self._has_echo = self._has_echo or echo is not None
        date = parse_date(answer.headers.get("Date", ""))
        if age.strip("0"):
            # Even with the right nonce, which a proxy in front of the cache may add.
            self.doubt = f'its Age is "{age}", so it comes from a cache'
        elif self._has_echo:
            self.is_proven = echo == nonce
            if echo is None:
                self.doubt = f"it has no {NONCE_FIELD}, unlike earlier answers"
            elif not re.fullmatch("[0-9a-f]{32}", echo):
                self.doubt = f'its {NONCE_FIELD} is "{echo}", not the unchanged nonce of the request'
            elif not self.is_proven:
                self.doubt = f"its {NONCE_FIELD} belongs to another request, so it comes from a cache"
        elif date is None:
            self.doubt = f"it has neither {NONCE_FIELD} nor Date"
            return
        elif date > self._newest:
            self.is_proven = self._newest > float("-inf")
            self._newest, self._newest_seen_at = date, time.monotonic()
        elif date < self._newest or time.monotonic() - self._newest_seen_at >= _DATE_SECONDS:
            self.doubt = f'its Date, "{answer.headers["Date"]}", is not later than that of an earlier answer'
        self.seems_kept = self.doubt is not None


def parse_date(date: str) -> float | None:
    """Parse an HTTP date; None if it is invalid."""
    try:
        parts = email.utils.parsedate_tz(date)
        return None if parts is None else email.utils.mktime_tz(parts)
    except (ValueError, OverflowError):
        return None
