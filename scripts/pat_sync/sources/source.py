"""The interface of a source to the command line, the engine and `pat-sync status`."""

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
    """The state of a store, from `patctl stats`."""

    state: str
    epoch: str
    cursor: str
    key_id: str | None


@dataclass(frozen=True)
class Probe:
    """A source compared with a store: a line of text, and whether the store has everything."""

    text: str
    is_current: bool
    # The change numbers of source and store, if they are comparable.
    position: int | None = None
    reached: int | None = None
    is_standby: bool = False
    # Other problems of the source that stop the heartbeat, each with the remedy.
    problems: tuple[str, ...] = ()


class Source(ABC):
    # How long the source may delay a change, in seconds.
    settles_for = 0.0

    @abstractmethod
    def follow(self, applier: Applier, once: bool) -> None:
        """Send changes until stopped; with `once`, until the store has everything. Raises SourceFailed."""

    @abstractmethod
    def want_snapshot(self, reason: str, is_too_old: bool) -> None:
        """Send a snapshot next, as patctl found the last one too old, or changes missing."""

    @abstractmethod
    def probe(self, store: Store) -> Probe:
        """Compare the source with a store. Raises SourceFailed."""


class Kind(ABC):
    """A type of source. Its library is loaded by make(), so that it is not needed for other sources."""

    # URL schemes, the usual one first.
    schemes: tuple[str, ...]
    # An example URL for messages.
    example: str
    # Whether it stores last use of tokens (--usage-url).
    keeps_usage = False

    @abstractmethod
    def check(self, url: str, insecure_http: bool) -> None:
        """Check the URL. Raises ConfigurationError."""

    @abstractmethod
    def make(self, settings: Settings, pulse: Pulse, metrics: Metrics) -> Source:
        """Load the library and create the source. Raises ConfigurationError."""
