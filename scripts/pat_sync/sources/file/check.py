"""Validates a file with patctl, which alone has the rules for records, before anything is sent."""

from __future__ import annotations

import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

from pat_sync.applier import patctl_environment
from pat_sync.errors import ApplierFailed
from pat_sync.pulse import Pulse

_BUFFER = 1 << 16

# How long patctl may take after the end of the file, when little is left to do.
_LAST_SECONDS = 60.0


class Check:
    """A running `patctl import --dry-run`. Any method may raise ApplierFailed, and Stopped."""

    def __init__(self, patctl: Path, pulse: Pulse) -> None:
        self._pulse = pulse
        self._written = 0
        # patctl's message about the first bad line, with its number; and its last message.
        self._complaint: str | None = None
        self._last_words = ""
        try:
            # In its own process group, like `patctl apply`.
            self._process = subprocess.Popen(
                [patctl, "import", "--dry-run", "-"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                bufsize=_BUFFER,
                env=patctl_environment(),
                process_group=0,
            )
        except OSError as error:
            raise ApplierFailed(f'cannot run "{patctl}": {error.strerror}') from None
        self._thread = threading.Thread(target=self._read_errors, daemon=True)
        self._thread.start()

    def __enter__(self) -> Check:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join(1)
        self._close_input()

    def add(self, number: int, line: bytes) -> None:
        """Send a line of the file. Skipped lines are sent as empty ones, to keep patctl's line numbers right."""
        assert self._process.stdin is not None
        # finish() reports why patctl ended.
        with suppress(BrokenPipeError):
            self._process.stdin.write(b"\n" * (number - self._written - 1) + line)
        self._written = number

    def finish(self) -> str | None:
        """Return what is wrong with the first bad line, if there is one."""
        self._close_input()
        end = time.monotonic() + _LAST_SECONDS
        while self._thread.is_alive():
            self._thread.join(0.2)
            self._pulse.beat()
            if time.monotonic() > end:
                raise ApplierFailed(f"it has not checked the file within {_LAST_SECONDS:.0f} seconds of its end")
        status = self._process.wait()
        if self._complaint is None and status != 0:
            raise ApplierFailed(f"it could not check the file, and ended with status {status}: {self._last_words}")
        return self._complaint

    def _close_input(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def _read_errors(self) -> None:
        """Read to the end, so that the pipe never fills up."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            text = line.decode(errors="replace").strip().removeprefix("patctl: ")
            self._last_words = text
            if self._complaint is None and text.startswith("line "):
                self._complaint = text
