"""Queries: the functions of schema pat, and what they return."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg

from pat_sync.errors import SourceFailed
from pat_sync.sources.postgresql.database import Connection, failures

_LOOK = """
    SELECT s.epoch, s."position", s.horizon, s.key_id, s.is_standby, s.unnumbered, s.triggers,
        CASE WHEN s."position" >= %(seq)s::bigint AND %(prefix)s::text <> ''
            THEN pat.continues(%(seq)s::bigint, %(prefix)s::text) ELSE true END
    FROM pat.source() AS s
"""

_CHANGES = r"""
    SELECT count(*), max(seq), string_agg(change, E'\n' ORDER BY seq),
        left(encode((array_agg(digest ORDER BY seq))[count(*)], 'hex'), 16)
    FROM pat.changes(%s::bigint, %s::integer, %s::boolean)
"""

SNAPSHOT = r"""
    SELECT count(*), string_agg(change, E'\n' ORDER BY digest), (array_agg(digest ORDER BY digest))[count(*)]
    FROM pat.snapshot(%s::bytea, %s::integer)
"""

# A page for a comparison: digests, numbers and ids.
_NUMBERS = """
    SELECT array_agg(digest ORDER BY digest), array_agg((change::json ->> 'seq')::bigint ORDER BY digest),
        array_agg(change::json ->> 'id' ORDER BY digest)
    FROM pat.snapshot(%s::bytea, %s::integer)
"""

# Starts at the preceding digest, so that the digest itself comes first.
IS_THERE = "SELECT count(*) FROM pat.snapshot(%s::bytea, 1) WHERE digest = %s::bytea"

# The change with the highest number, unless its tombstone was dropped.
LAST_CHANGE = "SELECT left(encode(digest, 'hex'), 16) FROM pat.changes(greatest(%s::bigint - 1, %s::bigint), 1)"

# A digest that one call returns and the next does not has got its number, unless the list is at its limit.
_NUMBER_FOUND = "SELECT pat.number_found()"
MOST_FOUND = 500


@dataclass(frozen=True)
class Position:
    """The last change that was read. The cursor is "<number>:<start of its digest>"."""

    seq: int
    prefix: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.prefix}"

    @classmethod
    def parse(cls, cursor: str) -> Position | None:
        found = re.fullmatch(r"([0-9]{1,18}):([0-9a-f]{0,16})", cursor)
        return cls(int(found[1]), found[2]) if found else None


@dataclass(frozen=True)
class Row:
    """The part of a token that is compared."""

    digest: bytes
    seq: int
    id: str
    # Revoked or denied on this host, regardless of the source.
    is_local: bool = False


class Snapshot:
    """The content of the source at one moment."""

    def __init__(self, connection: Connection, batch: int) -> None:
        self._connection = connection
        self._batch = batch
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        look = look_at_source(connection, None)
        self.epoch = look.epoch
        self.position = look.position

    def rows(self) -> Iterator[Row]:
        """Iterate over the tokens, ordered by digest."""
        after = b""
        while True:
            with failures():
                digests, numbers, ids = self._connection.ask(_NUMBERS, (after, self._batch))
            if digests is None:
                return
            yield from map(Row, digests, numbers, ids)
            after = digests[-1]

    def close(self) -> None:
        self._connection.close()


@dataclass(frozen=True)
class Look:
    """The result of pat.source()."""

    epoch: str
    position: int
    horizon: int
    key_id: str | None
    is_standby: bool
    unnumbered: bool
    triggers: str | None
    continues: bool


@dataclass(frozen=True)
class Page:
    count: int
    lines: bytes
    end: Position


def look_at_source(connection: Connection, position: Position | None) -> Look:
    position = position or Position(0, "")
    try:
        return Look(*connection.ask(_LOOK, {"seq": position.seq, "prefix": position.prefix}))
    except psycopg.errors.UndefinedColumn:
        raise SourceFailed("its schema pat has an older version: run install.sql there") from None


def request_numbers(connection: Connection) -> set[bytes] | None:
    """Request numbers for changes without one, and return these; None on failure, which must not stop other changes."""
    try:
        return set(connection.ask(_NUMBER_FOUND)[0])
    except psycopg.Error as error:
        # Errors of the server leave the connection usable.
        if error.sqlstate is None or connection.closed:
            raise
        return None


def read_changes(connection: Connection, after: int, limit: int, only_revocations: bool = False) -> Page:
    count, seq, lines, prefix = connection.ask(_CHANGES, (after, limit, only_revocations))
    if count == 0:
        return Page(0, b"", Position(after, ""))
    return Page(count, lines.encode(), Position(seq, prefix))
