"""Wakes and stops the worker thread, and tells other threads whether it is stuck."""

from __future__ import annotations

import contextlib
import os
import select
import time

from pat_sync.errors import Stopped

# The longest single wait, so that a stop is noticed and `age` stays small.
_SLICE = 0.5


class Pulse:
    def __init__(self) -> None:
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopping = False
        self._beaten_at = time.monotonic()

    def stop(self) -> None:
        self._stopping = True
        self.wake()

    def wake(self) -> None:
        """End the current wait, or else the next one."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake, b"\0")

    def beat(self) -> None:
        """Note progress. Raises Stopped if a stop was requested."""
        if self._stopping:
            raise Stopped
        self._beaten_at = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since the last progress."""
        return time.monotonic() - self._beaten_at

    def wait(self, seconds: float, fd: int | None = None, events: int = select.POLLIN) -> bool:
        """Wait for events on `fd` or a call of `wake`. Return whether `fd` is ready."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        if fd is not None:
            poll.register(fd, events)

        deadline = time.monotonic() + seconds
        while True:
            self.beat()
            left = deadline - time.monotonic()
            ready = [ready_fd for ready_fd, _ in poll.poll(1000 * max(0.0, min(left, _SLICE)))]
            if self._woken in ready:
                os.read(self._woken, 4096)
            if ready or left <= 0:
                self.beat()
                return fd in ready

    def sleep(self, seconds: float) -> None:
        """Wait for the whole time, regardless of `wake`."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.wait(left)
