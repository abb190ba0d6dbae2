"""Notifications to the supervisor: systemd, or whatever listens on NOTIFY_SOCKET."""

from __future__ import annotations

import os
import time

# mypy mistakes the folder scripts/systemd for this package.
from systemd import daemon  # type: ignore[attr-defined]

from pat_sync.log import scrub


class Service:
    def __init__(self) -> None:
        self._status = ""
        self._ready = False
        self._interval = _watchdog_interval()
        self._next_ping = 0.0

    def ready(self) -> None:
        if not self._ready:
            self._ready = True
            daemon.notify("READY=1")

    def status(self, text: str) -> None:
        if text != self._status:
            self._status = text
            daemon.notify(f"STATUS={scrub(text)}")

    def stopping(self) -> None:
        daemon.notify("STOPPING=1")

    def alive(self) -> None:
        """Feed the watchdog. Call it often, and only while there is progress."""
        if self._interval is not None and time.monotonic() >= self._next_ping:
            self._next_ping = time.monotonic() + self._interval
            daemon.notify("WATCHDOG=1")


def _watchdog_interval() -> float | None:
    """A third of systemd's watchdog timeout, if this process has one."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 3e6 if microseconds.isdigit() else None
