"""Passes a snapshot, line by line, on to patctl."""

from __future__ import annotations

from pat_sync.applier import Applier
from pat_sync.log import log
from pat_sync.metrics import Metrics

# The size of a block of lines, in bytes.
_BLOCK = 1 << 19


class SnapshotSender:
    """Sends a snapshot. Until end() is called, patctl keeps the store's previous content."""

    def __init__(self, applier: Applier, metrics: Metrics, epoch: str, seq: int) -> None:
        self._applier = applier
        self._metrics = metrics
        self._block: list[bytes] = []
        self._size = 0
        self._sent = 0
        applier.begin_snapshot(epoch, seq)

    def put(self, line: bytes) -> None:
        self._block.append(line)
        self._size += len(line)
        self._sent += 1
        if self._size >= _BLOCK:
            self._applier.send(b"".join(self._block))
            self._metrics.set_snapshot("read", self._sent)
            self._block.clear()
            self._size = 0

    def end(self, cursor: str, read_at: float) -> None:
        """`read_at` must not be later than the time of the snapshot."""
        self._applier.end_snapshot(b"".join(self._block), cursor, read_at)
        self._metrics.set_snapshot("read", self._sent)
        log.info("the snapshot was read: %d tokens", self._sent)
