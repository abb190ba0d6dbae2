"""The source postgresql://: changes are read by cursor, through the functions of schema pat; NOTIFY only wakes pat-sync."""

from __future__ import annotations

import re
import time
from contextlib import closing

from pat_sync.applier import Applier
from pat_sync.configuration import Settings
from pat_sync.errors import SourceFailed
from pat_sync.log import log
from pat_sync.metrics import Metrics
from pat_sync.pulse import Pulse
from pat_sync.sources.postgresql.database import Connection, NoAnswer, connect, connection_parameters, failures
from pat_sync.sources.postgresql.freshness import Freshness
from pat_sync.sources.postgresql.queries import (
    IS_THERE,
    LAST_CHANGE,
    MOST_FOUND,
    SNAPSHOT,
    Look,
    Position,
    Snapshot,
    look_at_source,
    read_changes,
    request_numbers,
)
from pat_sync.sources.source import Probe, Source, Store

_UNNUMBERED = (
    "the source has changes without a number, made with triggers off or with pat.notify = off, which no edge receives, or"
    " its sequence pat.seq is behind: call pat.number_changes(); if that waits, see pg_prepared_xacts"
)
_TRIGGERS = (
    "triggers of the source differ from install.sql, so changes may be missed: {}; run install.sql, then pat-sync compare"
    " to find missed deletions"
)

# How long a change may lack a number: another edge may be numbering it, or it is being changed again.
_UNNUMBERED_PATIENCE = 3.0

# Factor for the timeout of a snapshot's page, which is slow if many deleted rows are not vacuumed yet.
_SNAPSHOT_PATIENCE = 6

# How long to wait for a pooler to provide a server for the second connection.
_POOLER_PATIENCE = 3.0

_POOL_OF_ONE = (
    "the pooler has no second server for this login, and a snapshot needs two connections: raise its pool_size to at least"
    " 2 for each pat-sync, or 3 with --usage-url"
)

# A time that never advances the heartbeat; leaving it out would mean "now".
_UNKNOWN = 1.0

# How often a lasting problem is logged.
_REMIND_SECONDS = 60.0


class PostgresqlSource(Source):
    def __init__(self, settings: Settings, pulse: Pulse, metrics: Metrics) -> None:
        self._pulse = pulse
        self._metrics = metrics
        self._batch = settings.batch
        self._poll_interval = settings.poll_interval
        self._query_timeout = settings.query_timeout
        self._parameters = connection_parameters(settings)
        self._may_listen_through_pooler = settings.pooler == "session"
        self._has_logged_pooler = False

        # Why to take a snapshot next.
        self._wanted: str | None = None

        self._position = Position(0, "")
        self._next_look = 0.0
        # The time of the last look at pat.source(), which alone reports missing numbers and wrong triggers.
        self._looked_at = 0.0
        self._lags = False
        # Whether a change from before the last look may still lack a number, and since when.
        self._unnumbered = False
        self._unnumbered_since = 0.0
        self._has_more_unnumbered = False
        # Messages about why the heartbeat stands still, and when to log each again, by reason.
        self._held: dict[str, str] = {}
        self._next_reminder: dict[str, float] = {}

    def want_snapshot(self, reason: str, is_too_old: bool) -> None:
        # is_too_old is ignored: only a look at the primary can tell whether the source went back.
        self._wanted = reason

    def probe(self, store: Store) -> Probe:
        with failures(), closing(self._connect()) as connection:
            position = Position.parse(store.cursor)
            look = look_at_source(connection, position)
            stays_unnumbered = look.unnumbered and _stays_unnumbered(connection)
        _check_key(look, store.key_id)
        problems: tuple[str, ...] = ()
        if look.triggers is not None:
            problems += (_TRIGGERS.format(look.triggers),)
        if stays_unnumbered:
            problems += (_UNNUMBERED,)
        if _base(store.epoch) != look.epoch:
            text = "answers; it has another epoch than the store, and a snapshot is due"
            return Probe(text, False, problems=problems)
        if position is None or not look.continues:
            text = "answers; it does not continue what the store holds, and a snapshot is due"
            return Probe(text, False, problems=problems)
        behind = look.position - position.seq
        if behind < 0:
            return Probe(f"answers; the store is {-behind} changes ahead of it", False, problems=problems)
        text = f"answers; the store is {behind} changes behind"
        return Probe(text, behind == 0, look.position, position.seq, look.is_standby, problems)

    def open_snapshot(self) -> Snapshot:
        """Open a snapshot for a comparison. Raises SourceFailed."""
        with failures():
            connection = self._connect()
            connection.query_timeout *= _SNAPSHOT_PATIENCE
            return Snapshot(connection, self._batch)

    def has(self, digest: bytes) -> bool:
        """Whether the token exists now. Raises SourceFailed."""
        before = (int.from_bytes(digest, "big") - 1).to_bytes(32, "big") if any(digest) else b""
        with failures(), closing(self._connect()) as connection:
            return bool(connection.ask(IS_THERE, (before, digest))[0])

    def follow(self, applier: Applier, once: bool) -> None:
        with failures(), closing(self._connect()) as connection:
            is_standby = bool(connection.ask("SELECT pg_is_in_recovery()")[0])
            freshness = Freshness() if is_standby else None
            if not is_standby:
                self._listen(connection)
            self._next_look = 0.0
            self._lags = False

            must_read = True
            while True:
                applier.check()
                looks = time.monotonic() >= self._next_look
                if looks:
                    if freshness is not None:
                        freshness.look(connection)
                    look = self._look(connection, applier)
                    if look.is_standby != is_standby:
                        raise SourceFailed("it was a standby and is the primary now")
                    must_read = not self._lags and (must_read or look.position != self._position.seq)
                    if once and self._lags:
                        raise SourceFailed(f"it is a standby that lags: it is at change {look.position}, behind the store")
                has_read = must_read
                if must_read:
                    self._read(connection, applier)
                    must_read = False
                if (looks or has_read) and not self._lags:
                    is_held = self._unnumbered or "triggers" in self._held
                    known_at = self._looked_at if freshness is None else freshness.known_at
                    applier.current(None if is_held else known_at, even_if_early=once)
                    if once and not self._has_more_unnumbered:
                        applier.settle()
                        if is_held:
                            raise SourceFailed(self._held.get("triggers", _UNNUMBERED))
                        return
                must_read = connection.wait_for_notification(max(0.0, self._next_look - time.monotonic()))

    def _listen(self, connection: Connection) -> None:
        if not connection.is_pooled or self._may_listen_through_pooler:
            connection.listen("pat_changes")
        elif not self._has_logged_pooler:
            self._has_logged_pooler = True
            log.info(
                "the source is behind a pooler, which may not pass NOTIFY on: changes are polled every %g s; if the pooler is"
                " in session mode, set --pooler session",
                self._poll_interval,
            )

    # --- the source's state ---

    def _look(self, connection: Connection, applier: Applier) -> Look:
        """Query the source's state, and take a snapshot if its changes do not continue the store."""
        has_snapshot = False
        while True:
            position = Position.parse(applier.cursor)
            self._looked_at = time.time()
            look = self._number_found(connection, position, look_at_source(connection, position))
            self._next_look = time.monotonic() + (0 if self._has_more_unnumbered else self._poll_interval)
            _check_key(look, applier.opened.key_id)

            acknowledged = Position.parse(applier.acknowledged)
            if acknowledged is not None:
                self._metrics.set_lag_changes(max(0, look.position - acknowledged.seq))

            held = max(position.seq if position else 0, applier.last_sequence)
            is_same = _base(applier.epoch) == look.epoch
            lags = is_same and look.is_standby and look.position < held
            if lags and not self._lags:
                log.warning("the source is a standby at change %d, behind the store's %d: waiting", look.position, held)
            self._lags = lags
            stays = self._unnumbered and time.monotonic() >= self._unnumbered_since + _UNNUMBERED_PATIENCE
            self._hold("unnumbered", _UNNUMBERED if stays else None)
            self._hold("triggers", None if look.triggers is None else _TRIGGERS.format(look.triggers))
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

    def _number_found(self, connection: Connection, position: Position | None, look: Look) -> Look:
        """Have the source number the changes that lack a number, and look again."""
        was_unnumbered, self._unnumbered = self._unnumbered, False
        self._has_more_unnumbered = False
        if look.unnumbered:
            found = request_numbers(connection)
            again = look_at_source(connection, position)
            left = request_numbers(connection) if again.unnumbered else set()
            # Ignore changes added in the meantime until the next look.
            # If no digest is left, the sequence is behind.
            self._unnumbered = (
                found is None
                or left is None
                or len(found) == MOST_FOUND
                or not found.isdisjoint(left)
                or (again.unnumbered and not left)
            )
            # Look again at once, unless none of these got a number.
            self._has_more_unnumbered = found is not None and len(found) == MOST_FOUND and left not in (None, found)
            look = again
        if self._unnumbered and not was_unnumbered:
            self._unnumbered_since = time.monotonic()
        return look

    def _hold(self, reason: str, text: str | None) -> None:
        """Set or clear a reason for the heartbeat to stand still, and log it repeatedly."""
        self._metrics.hold(reason, text is not None)
        if text is None:
            self._held.pop(reason, None)
        else:
            self._held[reason] = text
            if time.monotonic() >= self._next_reminder.get(reason, 0.0):
                self._next_reminder[reason] = time.monotonic() + _REMIND_SECONDS
                log.error("%s", text)

    def _why_snapshot(
        self, look: Look, applier: Applier, position: Position | None, held: int
    ) -> tuple[str, bool] | None:
        """Return why a snapshot is needed, and whether to discard the store's numbers."""
        if _base(applier.epoch) != look.epoch:
            return (f'the source has another epoch, "{look.epoch}"' if applier.epoch else "the store is new"), False
        if look.position < held:
            return f"the source went back to change {look.position}, behind the store's {held}", True
        if not look.continues:
            reason = f'the source has another history than the store, whose cursor is "{applier.cursor}"'
            if look.is_standby:
                raise SourceFailed(
                    f"{reason}; a standby is not trusted in this: if the primary's history did go back, call pat.new_epoch()"
                    " there"
                )
            return reason, True
        if self._wanted is not None:
            return self._wanted, False
        if not applier.ready:
            return "the last snapshot was interrupted", False
        if position is None:
            return f'the cursor "{applier.cursor}" of the store is not from a database', False
        if position.seq < look.horizon:
            return f"deletions up to change {look.horizon} are forgotten, and the store is at {position.seq}", False
        return None

    # --- changes ---

    def _read(self, connection: Connection, applier: Applier) -> None:
        """Send all changes."""
        revoked_up_to: int | None = None
        while True:
            connection.was_notified = False
            page = read_changes(connection, self._position.seq, self._batch)
            if page.count == self._batch:
                # There is a backlog: send the revocations in it first.
                revoked_up_to = self._send_revocations(
                    connection, applier, self._position.seq if revoked_up_to is None else revoked_up_to
                )
            if page.count > 0:
                self._position = page.end
                applier.commit(page.lines, str(page.end))
            if page.count < self._batch:
                return

    def _send_revocations(self, connection: Connection, applier: Applier, after: int) -> int:
        """Send the revocations after a number, without moving the cursor. Return the number of the last one."""
        while True:
            page = read_changes(connection, after, self._batch, only_revocations=True)
            if page.count > 0:
                after = page.end.seq
                applier.commit(page.lines, applier.cursor)
            if page.count < self._batch:
                return after

    # --- snapshots ---

    def _take_snapshot(
        self,
        connection: Connection,
        applier: Applier,
        look: Look,
        position: Position | None,
        least: int,
        reason: str,
        forgets_numbers: bool,
    ) -> None:
        """`position` is the store's, if its numbers are comparable; the snapshot must not be older than `least`."""
        log.info("taking a snapshot of the source: %s", reason)
        if forgets_numbers:
            epoch = _next_epoch(applier.epoch)
        else:
            epoch = look.epoch if position is None else applier.epoch
            if position is not None and position.seq >= look.horizon:
                self._send_revocations(connection, applier, position.seq)

        read_at = time.time()
        with closing(self._connect_reader(connection)) as reader:
            start = look_at_source(reader, None)
            if start.epoch != look.epoch:
                raise SourceFailed("its epoch changed at the start of a snapshot")
            if start.position < least:
                raise SourceFailed(
                    f"a second connection finds it at change {start.position}, behind {least}: it leads to another server,"
                    " which lags"
                )
            last = reader.ask_for_row(LAST_CHANGE, (start.position, start.horizon))
            self._position = Position(start.position, last[0] if last is not None else "")

            applier.begin_snapshot(epoch, start.position)
            next_read = time.monotonic() + self._poll_interval
            sent = 0
            after = b""
            while True:
                count, lines, end = reader.ask(SNAPSHOT, (after, self._batch))
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

        # The age of a standby's data is known only from Freshness.
        is_known = not (look.is_standby or start.is_standby or start.unnumbered or start.triggers)
        applier.end_snapshot(b"", str(self._position), read_at if is_known else _UNKNOWN)
        self._wanted = None
        log.info("the snapshot was read: %d tokens, up to change %d", sent, start.position)

    def _connect(self) -> Connection:
        return connect(self._parameters, self._pulse, self._query_timeout)

    def _connect_reader(self, other: Connection) -> Connection:
        """Open a second connection with a fixed snapshot, while the other one reads changes."""
        patience = min(self._query_timeout, _POOLER_PATIENCE) if other.is_pooled else self._query_timeout
        usual, other.query_timeout = other.query_timeout, patience
        reader: Connection | None = None
        try:
            reader = connect(self._parameters, self._pulse, patience)
            reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            if other.is_pooled:
                other.ask("SELECT 1")
        except BaseException as error:
            if reader is not None:
                reader.close()
            if other.is_pooled and isinstance(error, NoAnswer):
                raise SourceFailed(_POOL_OF_ONE) from None
            raise
        other.query_timeout = usual
        reader.query_timeout = _SNAPSHOT_PATIENCE * self._query_timeout
        return reader


def _stays_unnumbered(connection: Connection) -> bool:
    """Whether changes stay without a number although it is requested, or the sequence stays behind."""
    first = request_numbers(connection)
    deadline = time.monotonic() + _UNNUMBERED_PATIENCE
    while True:
        left = request_numbers(connection)
        if first is not None and left is not None and first.isdisjoint(left):
            # Without any digests, the sequence is behind.
            if first or left or not look_at_source(connection, None).unnumbered:
                return False
        if time.monotonic() >= deadline:
            return True
        time.sleep(0.1)


def _check_key(look: Look, key_id: str | None) -> None:
    if look.key_id != key_id:
        raise SourceFailed(
            f"digests are made with {_pepper(look.key_id)} there, and with {_pepper(key_id)} in the store: create the"
            " store again with the right pepper, or call pat.use_pepper()"
        )


def _pepper(key_id: str | None) -> str:
    return "no pepper" if key_id is None else f'the pepper with id "{key_id}"'


# --- epochs: the source's epoch, followed by "#" and the number of times that the source went back ---


def _base(epoch: str) -> str:
    return re.sub(r"#\d+$", "", epoch)


def _next_epoch(epoch: str) -> str:
    base = _base(epoch)
    return f"{base}#{int(epoch[len(base) + 1:] or 0) + 1}"
