"""Last use of tokens: read from nginx (auth_pat_usage), stored in PostgreSQL (pat.record_use).

    nginx ──uses after batch n──▶ pat-sync ──batch n + x──▶ PostgreSQL
          ◀──────n─────────────            ◀──────n───────

n is the number of the last batch that PostgreSQL has. It is queried each time, so pat-sync keeps no state. nginx repeats
a batch under the same number until asked for the next one, and PostgreSQL records each number once. So no use is lost
or counted twice, whatever is lost on the way, killed, or late.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import requests

from pat_sync import web
from pat_sync.backoff import Backoff
from pat_sync.configuration import Settings
from pat_sync.errors import SourceFailed, Stopped, UsageFailed, describe_bug
from pat_sync.log import log
from pat_sync.metrics import Metrics
from pat_sync.pulse import Pulse
from pat_sync.sources.postgresql import database
from pat_sync.url import redact

# nginx's limit for one answer, in tokens of less than 200 bytes each.
_FULL = 1000
_LONGEST_ANSWER = 1 << 20

_CONTENT_TYPE = "application/x-ndjson"

# pat.record_use()'s limit for one element; and a limit for one token, to keep the list of elements short.
_MOST_COUNTED = 1_000_000
_MOST_USES = 10_000_000_000

# The highest bigint.
_HIGHEST_BATCH = (1 << 63) - 1

# Longer than the source's, as nothing is lost or goes stale in the meantime.
_LONGEST_BACKOFF = 60.0

Use = dict[str, Any]


@dataclass(frozen=True)
class _Batch:
    number: int
    uses: list[Use]


class Usage:
    """Reports last use. Raises only Stopped, so that it never disturbs the synchronization of the store."""

    def __init__(self, settings: Settings, url: str, pulse: Pulse, metrics: Metrics) -> None:
        self._interval = settings.usage_interval
        self._pulse = pulse
        self._metrics = metrics
        self._nginx = _Nginx(settings, url, pulse)
        self._platform = _Platform(settings, pulse)
        self._backoff = Backoff(_LONGEST_BACKOFF)

    def run(self) -> None:
        """Report until stopped."""
        while True:
            cause = self._report()
            if cause is None:
                seconds = self._interval
                failed_for = self._backoff.succeeded()
                if failed_for is not None:
                    log.info("last use is reported again after %.1f s", failed_for)
            else:
                seconds = self._backoff.failed()
                log.warning("last use was not reported, trying again in %.1f s: %s", seconds, cause)
            self._pulse.sleep(seconds)

    def run_once(self) -> None:
        cause = self._report()
        if cause is not None:
            log.warning("last use was not reported: %s", cause)

    def stop(self) -> None:
        self._pulse.stop()

    def probe(self) -> str:
        """A line for pat-sync status. Changes nothing: nginx repeats the batch for the running pat-sync."""
        waiting = len(self._nginx.read(self._platform.last_batch()).uses)
        return f"tokens with use to report: {'1000 or more' if waiting >= _FULL else waiting}"

    def _report(self) -> str | None:
        """Report everything that is pending; return the cause if that fails."""
        try:
            while self._report_batch():
                pass
            return None
        except Stopped:
            raise
        except Exception as error:
            self._metrics.count("pat_sync_usage_failures")
            return str(error) if isinstance(error, UsageFailed) else describe_bug(error)

    def _report_batch(self) -> bool:
        """Return whether there may be more."""
        read_at = time.time()
        batch = self._nginx.read(self._platform.last_batch())
        if batch.uses:
            self._platform.record(batch)
            self._metrics.count("pat_sync_usage_batches")
            self._metrics.count("pat_sync_usage_uses", sum(use["count"] for use in batch.uses))
        if len(batch.uses) >= _FULL:
            return True
        self._metrics.reported_usage(read_at)
        return False


class _Nginx:
    def __init__(self, settings: Settings, url: str, pulse: Pulse) -> None:
        self._url = url
        self._timeout = settings.query_timeout
        self._patience = web.Patience(pulse)
        self._session = web.Session(self._patience, _CONTENT_TYPE, settings.ca_file)
        # nginx closes idle connections when it is reloaded.
        self._session.headers["Connection"] = "close"

    def read(self, after: int) -> _Batch:
        """Read the uses after a batch, which allows nginx to forget that batch."""
        try:
            with web.failures():
                return _parse(self._get({"after": str(after)}), after)
        except SourceFailed as error:
            raise UsageFailed(f'nginx at "{redact(self._url)}": {error}') from None

    def _get(self, query: dict[str, str]) -> bytes:
        connect_timeout = min(self._timeout, web.LONGEST_CONNECT)
        self._patience.begin(connect_timeout + self._timeout)
        answer = self._session.get(
            web.add_query(self._url, query),
            stream=True,
            allow_redirects=False,
            timeout=(connect_timeout, self._timeout),
        )
        with closing(answer):
            if answer.status_code != 200:
                raise SourceFailed(f"it answers {answer.status_code} {answer.reason}{_hint(answer.status_code)}")
            content_type = answer.headers.get("Content-Type", "")
            if content_type.partition(";")[0].strip() != _CONTENT_TYPE:
                raise SourceFailed(
                    f'its Content-Type is "{content_type}", not {_CONTENT_TYPE}: does its location have auth_pat_usage?'
                )
            web.check_encoding(answer)
            return _content(answer)


class _Platform:
    """The source database, on its primary, as it is written to."""

    def __init__(self, settings: Settings, pulse: Pulse) -> None:
        self._name = settings.source_name
        self._edge = settings.edge
        self._timeout = settings.query_timeout
        self._pulse = pulse
        self._parameters = database.connection_parameters(settings) | {"target_session_attrs": "read-write"}
        self._connection: database.Connection | None = None
        # The highest batch that this process can have recorded, including one that arrives late.
        self._highest: int | None = None

    def last_batch(self) -> int:
        with self._connected() as connection:
            (batch,) = connection.ask("SELECT pat.last_batch(%s)", (self._edge,))
        if self._highest is not None and batch > self._highest:
            log.warning('another pat-sync reports last use as edge "%s", and uses get lost: give each its own --edge', self._edge)
        self._highest = max(batch, self._highest or 0)
        return int(batch)

    def record(self, batch: _Batch) -> None:
        self._highest = batch.number
        uses = json.dumps([part for use in batch.uses for part in _parts(use)])
        with self._connected() as connection:
            connection.ask("SELECT pat.record_use(%s, %s, %s::json)", (self._edge, batch.number, uses))

    @contextmanager
    def _connected(self) -> Iterator[database.Connection]:
        """A connection, closed on any failure, as its last query may still be in flight."""
        try:
            with database.failures(), _help_with_schema():
                if self._connection is None:
                    self._connection = database.connect(self._parameters, self._pulse, self._timeout)
                yield self._connection
        except BaseException as error:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            if isinstance(error, SourceFailed):
                raise UsageFailed(f'source "{self._name}": {error}{_help_with_standby(str(error))}') from None
            raise


@contextmanager
def _help_with_schema() -> Iterator[None]:
    try:
        yield
    except psycopg.errors.UndefinedFunction as error:
        raise SourceFailed(f"{error.diag.message_primary}: update its schema with install.sql") from None


def _help_with_standby(cause: str) -> str:
    # libpq's message for the last server that it tried.
    if not cause.endswith("session is read-only"):
        return ""
    return "; only the primary stores last use: list it in the source too, as in postgresql://user@standby,primary/database"


# --- nginx's answer ---


def _hint(status: int) -> str:
    if status == 400:
        return ": nginx does not accept this edge's last batch as a cursor; start over with another --edge"
    if status in (401, 403):
        return ": does its location allow this host's address, and require no token?"
    if status == 404:
        return ": is the URL right, and does its location have auth_pat_usage?"
    return ": nginx's error log may say why" if status >= 500 else ""


def _content(answer: requests.Response) -> bytes:
    content = b""
    for part in answer.iter_content(1 << 16):
        content += part
        if len(content) > _LONGEST_ANSWER:
            raise SourceFailed(f"its answer is longer than {_LONGEST_ANSWER >> 20} MB")
    return content


def _parse(content: bytes, after: int) -> _Batch:
    if not content.endswith(b"\n"):
        raise SourceFailed("its answer was cut off: the last line has no end")
    *uses, last = (_fields(number, text) for number, text in enumerate(content[:-1].split(b"\n"), 1))

    number = last.get("cursor")
    if type(number) is not int:
        raise SourceFailed("its answer was cut off: the last line has no cursor")
    for line, use in enumerate(uses, 1):
        if not _is_use(use):
            raise SourceFailed(f"line {line} of its answer does not have a valid id, at, from and count")
    if not after + (len(uses) > 0) <= number <= _HIGHEST_BATCH:
        raise SourceFailed(f"asked for the batch after {after}, it answers with the cursor {number}")
    return _Batch(number, uses)


def _fields(number: int, text: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(text.decode())
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise SourceFailed(f"line {number} of its answer is not a JSON object")
    return fields


def _is_use(use: Use) -> bool:
    used_at, count = use.get("at"), use.get("count")
    return (
        isinstance(use.get("id"), str)
        and isinstance(use.get("from"), str)
        and type(used_at) is int
        and used_at > 0
        and type(count) is int
        and 0 < count <= _MOST_USES
    )


def _parts(use: Use) -> Iterator[Use]:
    """Split a use into elements within pat.record_use()'s limit."""
    for done in range(0, use["count"], _MOST_COUNTED):
        yield use | {"count": min(use["count"] - done, _MOST_COUNTED)}
