"""What the engine, and `pat-sync status`, want from a source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from pat_sync.applier import Applier


@dataclass(frozen=True)
class Store:
    """Where a store is, as `patctl stats` tells."""

    state: str
    epoch: str
    cursor: str
    key_id: str | None


@dataclass(frozen=True)
class Probe:
    """How a source compares with a store: one line for the screen, and whether the store has all of it."""

    text: str
    is_current: bool
    # Where the source is, and where the store, if both are numbers that can be compared.
    position: int | None = None
    reached: int | None = None
    is_standby: bool = False
    # What is wrong with the source besides, so that the heartbeat stands still; each with what to do.
    problems: tuple[str, ...] = ()


class Source(ABC):
    @abstractmethod
    def follow(self, applier: Applier, once: bool) -> None:
        """Sends what changes, for ever, or until the store is known to have everything. Raises SourceFailed."""

    @abstractmethod
    def want_snapshot(self, reason: str, is_too_old: bool) -> None:
        """The next thing to send is a snapshot; patctl found the last one too old, or something missing."""

    @abstractmethod
    def probe(self, store: Store) -> Probe:
        """Raises SourceFailed if it can't be read."""
