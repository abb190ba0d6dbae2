"""What the command line, the engine and `pat-sync status` want from a source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pat_sync.applier import Applier
    from pat_sync.configuration import Settings
    from pat_sync.metrics import Metrics
    from pat_sync.pulse import Pulse


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
    # For how long it may leave a change alone, in seconds.
    settles_for = 0.0

    @abstractmethod
    def follow(self, applier: Applier, once: bool) -> None:
        """Sends what changes, for ever, or until the store is known to have everything. Raises SourceFailed."""

    @abstractmethod
    def want_snapshot(self, reason: str, is_too_old: bool) -> None:
        """The next thing to send is a snapshot; patctl found the last one too old, or something missing."""

    @abstractmethod
    def probe(self, store: Store) -> Probe:
        """Raises SourceFailed if it can't be read."""


class Kind(ABC):
    """What a source says of itself while its library is not loaded, which those do without who use another source."""

    # Those of the URLs that it takes, the usual one first.
    schemes: tuple[str, ...]
    # A URL, for people.
    example: str
    # Whether it has a place for the last use of tokens (--usage-url).
    keeps_usage = False

    @abstractmethod
    def check(self, url: str, insecure_http: bool) -> None:
        """Raises ConfigurationError if there can be no source at this URL."""

    @abstractmethod
    def make(self, settings: Settings, pulse: Pulse, metrics: Metrics) -> Source:
        """Loads the library. Raises ConfigurationError."""
