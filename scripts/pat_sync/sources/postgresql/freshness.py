"""How old the data of a standby is."""

from __future__ import annotations

import time

from pat_sync.sources.postgresql.database import Connection

# The WAL that a standby has replayed and received. The received position restarts lower with each new stream.
_WAL = """
    SELECT pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint,
        pg_wal_lsn_diff(greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), '0/0')::bigint
"""


class Freshness:
    """The time up to which a standby has its primary's changes, by this host's clock, the only one that is reliable.

    WAL received between two looks left the primary after the first look, or was in transit for longer. So once it is
    replayed, the standby has everything that the primary had at the first look.
    """

    def __init__(self) -> None:
        self.known_at: float | None = None
        self._looked_at = 0.0
        self._received: int | None = None
        # The received position that is not yet replayed, and the time that is known once it is.
        self._awaited: tuple[int, float] | None = None

    def look(self, connection: Connection) -> None:
        """Call this before reading changes, which then include at least what was replayed."""
        read_at = time.time()
        replayed, received = connection.ask(_WAL)
        if self._awaited is None and self._received is not None and received > self._received:
            self._awaited = received, self._looked_at
        if self._awaited is not None and replayed >= self._awaited[0]:
            # If the clock was set back, the time must not lie in the future.
            self.known_at = min(self._awaited[1], read_at)
            self._awaited = None
        if self._awaited is None:
            self._received, self._looked_at = received, read_at
