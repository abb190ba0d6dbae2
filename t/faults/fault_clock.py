"""The clock of the host."""

from __future__ import annotations

import time

from fault import Fault
from host import Setup

HOUR = 3600


class _Jump(Fault):
    setup = Setup(nginx_shim=True, sidecar_shim=True)
    seconds = 3.0
    jump = 0

    def inject(self) -> None:
        """Tokens whose time begins or ends within the jump."""
        host = self.host
        now = int(time.time())
        self.ends = host.source.put(expires_at=now + HOUR // 2)
        self.begins = host.source.put(not_before=now - HOUR // 2)
        self.ended = host.source.put(expires_at=now - HOUR // 2)
        with host.at_rest():
            host.oracle.begin(self.ended, False).acknowledge(0)
        # Clients ask with them.
        host.bad += [self.ends, self.begins, self.ended]
        self.set_clock(self.jump)

    def set_clock(self, seconds: int) -> None:
        """The clock decides, from the moment on at which each process has it."""
        oracle = self.host.oracle
        valid = {self.ends: seconds <= 0, self.begins: seconds >= 0, self.ended: seconds < 0}
        changes = [oracle.begin(token, is_valid) for token, is_valid in valid.items()]
        self.host.nginx_shim.set(clock_seconds=seconds)
        self.host.sidecar_shim.set(clock_seconds=seconds)
        for change in changes:
            change.acknowledge()

    def heal(self) -> None:
        self.set_clock(0)


class ClockForward(_Jump):
    """clock jumping forward"""

    jump = HOUR


class ClockBack(_Jump):
    """clock jumping back"""

    jump = -HOUR
