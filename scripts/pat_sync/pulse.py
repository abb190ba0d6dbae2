"""How the thread that does the work is told to wake up and to stop, and how others see that it is not stuck."""

from __future__ import annotations

import contextlib
import os
import select
import time

from pat_sync.errors import Stopped

# No wait is longer, so that a stop is heard and `age` stays small.
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
        """Ends the wait that is going on, or else the next one."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake, b"\0")

    def beat(self) -> None:
        """To be called whenever there was progress."""
        if self._stopping:
            raise Stopped
        self._beaten_at = time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since the last progress."""
        return time.monotonic() - self._beaten_at

    def wait(self, seconds: float, fd: int | None = None, events: int = select.POLLIN) -> bool:
        """Waits until there is something on `fd`, or somebody calls `wake`. True if `fd` is ready."""
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
        """Waits for so long, whoever calls `wake`."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.wait(left)
