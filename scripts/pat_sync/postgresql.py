"""The source postgresql://: the functions of schema pat. NOTIFY only wakes up; the truth is read by cursor."""

from __future__ import annotations

import os
import re
import selectors
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow
from psycopg.waiting import Ready

from pat_sync.applier import Applier
from pat_sync.configuration import Settings, is_loopback
from pat_sync.errors import ConfigurationError, SourceFailed, describe
from pat_sync.log import hide, log
from pat_sync.metrics import Metrics
from pat_sync.pulse import Pulse
from pat_sync.source import Probe, Source, Store

_SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

# A dead network is noticed within ten seconds, also while nothing is asked.
_CONNECTION = {
    "application_name": "pat-sync",
    "connect_timeout": "5",
    "keepalives": "1",
    "keepalives_idle": "4",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "client_encoding": "UTF8",
}

_LOOK = """
    SELECT s.epoch, s."position", s.horizon, s.key_id, s.is_standby, s.unnumbered,
        CASE WHEN s."position" >= %(seq)s::bigint AND %(prefix)s::text <> ''
            THEN pat.continues(%(seq)s::bigint, %(prefix)s::text) ELSE true END
    FROM pat.source() AS s
"""

# What a standby has replayed, and what it has received. The latter begins anew, lower, with each stream.
_WAL = """
    SELECT pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint,
        pg_wal_lsn_diff(greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), '0/0')::bigint
"""

_CHANGES = r"""
    SELECT count(*), max(seq), string_agg(change, E'\n' ORDER BY seq),
        left(encode((array_agg(digest ORDER BY seq))[count(*)], 'hex'), 16)
    FROM pat.changes(%s::bigint, %s::integer, %s::boolean)
"""

_SNAPSHOT = r"""
    SELECT count(*), string_agg(change, E'\n' ORDER BY digest), (array_agg(digest ORDER BY digest))[count(*)]
    FROM pat.snapshot(%s::bytea, %s::integer)
"""

# The change with the highest number, unless it was a deletion that is forgotten.
_LAST_CHANGE = "SELECT left(encode(digest, 'hex'), 16) FROM pat.changes(greatest(%s::bigint - 1, %s::bigint), 1)"

_UNNUMBERED = (
    "the source has changes without a number, made with triggers off, which no edge gets: call pat.number_changes()"
)

# Where much was deleted and not vacuumed, a page of a snapshot takes long.
_SNAPSHOT_PATIENCE = 6

# A time that makes no heartbeat newer; to leave it out would mean "now".
_UNKNOWN = 1.0

# How often something that lasts is logged.
_REMIND_SECONDS = 60.0

T = TypeVar("T")


@dataclass(frozen=True)
class Position:
    """How far the changes were read; as a cursor "<number>:<start of the digest of that change>"."""

    seq: int
    prefix: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.prefix}"

    @classmethod
    def parse(cls, cursor: str) -> Position | None:
        found = re.fullmatch(r"([0-9]{1,18}):([0-9a-f]{0,16})", cursor)
        return cls(int(found[1]), found[2]) if found else None


@dataclass(frozen=True)
class _Look:
    """What pat.source() says."""

    epoch: str
    position: int
    horizon: int
    key_id: str | None
    is_standby: bool
    unnumbered: bool
    continues: bool


@dataclass(frozen=True)
class _Page:
    count: int
    lines: bytes
    end: Position


class _Freshness:
    """Up to when a standby has what its primary had, by the clock of this host, which alone can be relied upon.

    What it received between two looks left the primary after the first of them, unless it was on its way for longer. So
    once all of that is replayed, the standby has what the primary had at the time of the first look.
    """

    def __init__(self) -> None:
        self.known_at: float | None = None
        self._looked_at = 0.0
        self._received: int | None = None
        # What is received and not yet replayed, and what will be known then.
        self._awaited: tuple[int, float] | None = None

    def look(self, connection: _Connection) -> None:
        """To be called before the look at the changes, which then has at least what was replayed."""
        at = time.time()
        replayed, received = connection.ask(_WAL)
        if self._awaited is None and self._received is not None and received > self._received:
            self._awaited = received, self._looked_at
        if self._awaited is not None and replayed >= self._awaited[0]:
            # A clock that was set back must not leave a time that is yet to come.
            self.known_at = min(self._awaited[1], at)
            self._awaited = None
        if self._awaited is None:
            self._received, self._looked_at = received, at


class _Connection(psycopg.Connection[TupleRow]):
    """A connection that waits for no answer longer than `query_timeout`."""

    pulse: Pulse
    query_timeout: float
    was_notified = False

    # Optional, as in the base.
    def wait(self, gen: PQGen[T], timeout: Optional[float] = None) -> T:
        deadline = time.monotonic() + self.query_timeout
        try:
            wanted = next(gen)
            while True:
                while (ready := self._poll(wanted)) is None:
                    self.pulse.beat()
                    if time.monotonic() >= deadline:
                        raise psycopg.OperationalError(f"no answer within {self.query_timeout:g} seconds")
                wanted = gen.send(ready)
        except StopIteration as end:
            result: T = end.value
            return result

    def _poll(self, wanted: int) -> Ready | None:
        with selectors.PollSelector() as selector:
            selector.register(self.pgconn.socket, wanted)
            for _, ready in selector.select(0.25):
                return Ready(ready)
        return None

    def ask(self, query: str, parameters: Any = None) -> TupleRow:
        """The one row that a query gives."""
        row = self.execute(query, parameters, prepare=True).fetchone()
        if row is None:
            raise SourceFailed("a query that gives one row gave none")
        return row

    def wait_for_notification(self, seconds: float) -> bool:
        """Also ends, with False, when the pulse is woken."""
        if not self.was_notified and self.pulse.wait(seconds, self.pgconn.socket):
            self.pgconn.consume_input()
            while self.pgconn.notifies() is not None:
                self.was_notified = True
        was_notified, self.was_notified = self.was_notified, False
        return was_notified


class PostgresqlSource(Source):
    def __init__(self, settings: Settings, pulse: Pulse, metrics: Metrics) -> None:
        self._pulse = pulse
        self._metrics = metrics
        self._batch = settings.batch
        self._poll_interval = settings.poll_interval
        self._query_timeout = settings.query_timeout
        self._parameters = _parameters(settings)

        # Why the next thing is a snapshot.
        self._wanted: str | None = None

        self._position = Position(0, "")
        self._next_look = 0.0
        self._lags = False
        self._unnumbered = False
        self._next_reminder = 0.0

    def want_snapshot(self, reason: str, is_too_old: bool) -> None:
        # That one was too old never means that the source went back: only a look at a primary can tell.
        self._wanted = reason

    def probe(self, store: Store) -> Probe:
        with _failures(), closing(self._connect()) as connection:
            position = Position.parse(store.cursor)
            look = _look(connection, position)
        _check_key(look, store.key_id)
        if _base(store.epoch) != look.epoch:
            return Probe("answers; it has another epoch than the store, and a snapshot is due", False)
        if position is None or not look.continues:
            return Probe("answers; it does not continue what the store holds, and a snapshot is due", False)
        behind = look.position - position.seq
        if behind < 0:
            return Probe(f"answers; the store is {-behind} changes ahead of it", False)
        text = f"answers; the store is {behind} changes behind"
        if look.unnumbered:
            return Probe(f"answers; {_UNNUMBERED}", False)
        return Probe(text, behind == 0, look.position, position.seq, look.is_standby)

    def follow(self, applier: Applier, once: bool) -> None:
        with _failures(), closing(self._connect()) as connection:
            is_standby = bool(connection.ask("SELECT pg_is_in_recovery()")[0])
            freshness = _Freshness() if is_standby else None
            if not is_standby:
                connection.add_notify_handler(lambda _: setattr(connection, "was_notified", True))
                connection.execute("LISTEN pat_changes")
            self._next_look = 0.0
            self._lags = False

            must_read = True
            while True:
                applier.check()
                known_at: float | None = None
                looks = time.monotonic() >= self._next_look
                if looks:
                    known_at = time.time()
                    if freshness is not None:
                        freshness.look(connection)
                        known_at = freshness.known_at
                    look = self._look(connection, applier)
                    if look.is_standby != is_standby:
                        raise SourceFailed("it was a standby and is the primary now")
                    must_read = not self._lags and (must_read or look.position != self._position.seq)
                    if once and self._lags:
                        raise SourceFailed(f"it is a standby at change {look.position}, before the store: it lags")
                has_read = must_read
                if must_read:
                    read_at = self._read(connection, applier)
                    known_at = known_at if is_standby else read_at
                    must_read = False
                if (looks or has_read) and not self._lags:
                    applier.current(None if self._unnumbered else known_at, even_if_early=once)
                    if once:
                        applier.settle()
                        if self._unnumbered:
                            raise SourceFailed(_UNNUMBERED)
                        return
                must_read = connection.wait_for_notification(max(0.0, self._next_look - time.monotonic()))

    # --- where the source is ---

    def _look(self, connection: _Connection, applier: Applier) -> _Look:
        """Asks where the source is, and takes a snapshot if the changes do not continue what the store has."""
        has_snapshot = False
        while True:
            position = Position.parse(applier.cursor)
            look = _look(connection, position)
            self._next_look = time.monotonic() + self._poll_interval
            _check_key(look, applier.opened.key_id)

            acknowledged = Position.parse(applier.acknowledged)
            if acknowledged is not None:
                self._metrics.set_lag_changes(max(0, look.position - acknowledged.seq))

            held = max(position.seq if position else 0, applier.last_sequence)
            is_same = _base(applier.epoch) == look.epoch
            lags = is_same and look.is_standby and look.position < held
            if lags and not self._lags:
                log.warning("the source is a standby at change %d, before the store's %d: waiting", look.position, held)
            self._lags = lags
            self._unnumbered = look.unnumbered
            if look.unnumbered and time.monotonic() >= self._next_reminder:
                self._next_reminder = time.monotonic() + _REMIND_SECONDS
                log.error("%s", _UNNUMBERED)
            if lags:
                return look

            wanted = self._why_snapshot(look, applier, position, held)
            if wanted is None:
                assert position is not None
                self._position = position
                return look
            if has_snapshot:
                raise SourceFailed(f"a snapshot did not help: {wanted[0]}")
            has_snapshot = True
            least = max(look.position, held if is_same and not wanted[1] else 0)
            self._take_snapshot(connection, applier, look, position if is_same else None, least, *wanted)

    def _why_snapshot(
        self, look: _Look, applier: Applier, position: Position | None, held: int
    ) -> tuple[str, bool] | None:
        """Why, and whether the numbers of the store must be forgotten."""
        if _base(applier.epoch) != look.epoch:
            return (f'the source has another epoch, "{look.epoch}"' if applier.epoch else "the store is new"), False
        if look.position < held:
            return f"the source went back to change {look.position}, before the store's {held}", True
        if not look.continues:
            reason = f'the source has another history than the store, whose cursor is "{applier.cursor}"'
            if look.is_standby:
                raise SourceFailed(
                    f"{reason}; as it is a standby, this is not believed: if the primary's history did go back, call"
                    " pat.new_epoch() there"
                )
            return reason, True
        if self._wanted is not None:
            return self._wanted, False
        if not applier.ready:
            return "the last snapshot was interrupted", False
        if position is None:
            return f'the cursor "{applier.cursor}" of the store is not one of a database', False
        if position.seq < look.horizon:
            return f"deletions up to change {look.horizon} are forgotten, and the store is at {position.seq}", False
        return None

    # --- changes ---

    def _read(self, connection: _Connection, applier: Applier) -> float:
        """Sends all changes that there are. The store then has what the source had at the time that is returned."""
        revoked_up_to: int | None = None
        while True:
            connection.was_notified = False
            at = time.time()
            page = _changes(connection, self._position.seq, self._batch)
            if page.count == self._batch:
                # A backlog: revocations do not wait for the rest of it.
                revoked_up_to = self._send_revocations(
                    connection, applier, self._position.seq if revoked_up_to is None else revoked_up_to
                )
            if page.count > 0:
                self._position = page.end
                applier.commit(page.lines, str(page.end))
            if page.count < self._batch:
                return at

    def _send_revocations(self, connection: _Connection, applier: Applier, after: int) -> int:
        """Those behind a number, without moving the cursor. Returns the number of the last one."""
        while True:
            page = _changes(connection, after, self._batch, only_revocations=True)
            if page.count > 0:
                after = page.end.seq
                applier.commit(page.lines, applier.cursor)
            if page.count < self._batch:
                return after

    # --- snapshots ---

    def _take_snapshot(
        self,
        connection: _Connection,
        applier: Applier,
        look: _Look,
        position: Position | None,
        least: int,
        reason: str,
        forgets_numbers: bool,
    ) -> None:
        """`position` is where the store is, if the numbers mean the same there; `least` where the snapshot must be."""
        log.info("taking a snapshot of the source: %s", reason)
        if forgets_numbers:
            epoch = _next_epoch(applier.epoch)
        else:
            epoch = look.epoch if position is None else applier.epoch
            if position is not None and position.seq >= look.horizon:
                self._send_revocations(connection, applier, position.seq)

        with closing(self._connect(_SNAPSHOT_PATIENCE)) as reader:
            reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            at = time.time()
            start = _look(reader, None)
            if start.epoch != look.epoch:
                raise SourceFailed("its epoch changed while a snapshot was begun")
            if start.position < least:
                raise SourceFailed(
                    f"a second connection finds it at change {start.position}, before {least}: it leads to another"
                    " server, which lags"
                )
            last = reader.execute(_LAST_CHANGE, (start.position, start.horizon)).fetchone()
            self._position = Position(start.position, last[0] if last is not None else "")

            applier.begin_snapshot(epoch, start.position)
            next_read = time.monotonic() + self._poll_interval
            sent = 0
            after = b""
            while True:
                count, lines, end = reader.ask(_SNAPSHOT, (after, self._batch))
                if count > 0:
                    applier.send(lines.encode())
                    sent += count
                    after = end
                self._metrics.set_snapshot("read", sent)
                if connection.wait_for_notification(0) or time.monotonic() >= next_read:
                    self._read(connection, applier)
                    next_read = time.monotonic() + self._poll_interval
                if count < self._batch:
                    break

        # How old a standby is, only looks at it tell.
        is_known = not (look.is_standby or start.is_standby or start.unnumbered)
        applier.end_snapshot(b"", str(self._position), at if is_known else _UNKNOWN)
        self._wanted = None
        log.info("the snapshot was read: %d tokens, up to change %d", sent, start.position)

    def _connect(self, patience: int = 1) -> _Connection:
        timeout = patience * self._query_timeout
        connection = _Connection.connect(make_conninfo(**self._parameters), autocommit=True)
        assert isinstance(connection, _Connection)
        connection.pulse = self._pulse
        connection.query_timeout = timeout
        # A little earlier than the wait here ends, so that the server is done with the query, too.
        connection.execute(f"SET statement_timeout = {int(900 * timeout)}")
        self._pulse.beat()
        return connection


# --- queries ---


def _look(connection: _Connection, position: Position | None) -> _Look:
    position = position or Position(0, "")
    return _Look(*connection.ask(_LOOK, {"seq": position.seq, "prefix": position.prefix}))


def _changes(connection: _Connection, after: int, limit: int, only_revocations: bool = False) -> _Page:
    count, seq, lines, prefix = connection.ask(_CHANGES, (after, limit, only_revocations))
    if count == 0:
        return _Page(0, b"", Position(after, ""))
    return _Page(count, lines.encode(), Position(seq, prefix))


def _check_key(look: _Look, key_id: str | None) -> None:
    if look.key_id != key_id:
        raise SourceFailed(
            f"digests are made with {_pepper(look.key_id)} there, and with {_pepper(key_id)} in the store:"
            " make the store again with the right pepper, or call pat.use_pepper()"
        )


def _pepper(key_id: str | None) -> str:
    return "no pepper" if key_id is None else f'the pepper of id "{key_id}"'


# --- epochs: that of the source, and behind "#" how often it was found to have gone back ---


def _base(epoch: str) -> str:
    return re.sub(r"#\d+$", "", epoch)


def _next_epoch(epoch: str) -> str:
    base = _base(epoch)
    return f"{base}#{int(epoch[len(base) + 1:] or 0) + 1}"


# --- connections ---


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise SourceFailed(error.diag.message_primary or describe(error)) from None


def _parameters(settings: Settings) -> dict[str, str]:
    """What libpq is given; raises ConfigurationError."""
    try:
        given = {name: str(value) for name, value in conninfo_to_dict(settings.source).items()}
    except psycopg.Error:
        # The text may quote a part of a password.
        raise ConfigurationError(
            "the source is not a URL that PostgreSQL understands; special characters in it must be written as %XX"
        ) from None

    if not re.fullmatch("[0-9,]*", given.get("port", "")):
        raise ConfigurationError("the port of the source is not a number")

    parameters = {**_CONNECTION, **given}
    if settings.password is not None:
        parameters["password"] = settings.password
    for name in ("password", "sslpassword"):
        hide(parameters.get(name, ""))
    if settings.ca_file is not None:
        parameters["sslrootcert"] = str(settings.ca_file)
    if settings.client_cert is not None:
        parameters |= {"sslcert": str(settings.client_cert), "sslkey": str(settings.client_key)}

    if not _is_local(given):
        mode = given.get("sslmode", os.environ.get("PGSSLMODE"))
        if mode is None:
            parameters["sslmode"] = "verify-full"
        elif mode != "verify-full":
            log.warning('sslmode is "%s": who is on the way can pass for the source; use verify-full', mode)
        if "sslrootcert" not in parameters and "PGSSLROOTCERT" not in os.environ and _SYSTEM_CERTIFICATES.exists():
            parameters["sslrootcert"] = str(_SYSTEM_CERTIFICATES)
    return parameters


def _is_local(given: dict[str, str]) -> bool:
    """Whether the way to the server stays in this host. A service file may say anything."""
    if "service" in given or "PGSERVICE" in os.environ:
        return False
    hosts = given.get("hostaddr") or os.environ.get("PGHOSTADDR") or given.get("host") or os.environ.get("PGHOST") or ""
    return all(host == "" or host.startswith(("/", "@")) or is_loopback(host) for host in hosts.split(","))
