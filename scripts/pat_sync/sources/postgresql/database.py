"""Connections to PostgreSQL: parameters, TLS, and timeouts for every wait.

A pooler such as PgBouncer may run each transaction on another server. So a connection must leave no state on the
server: no prepared statements, no settings outside of a transaction, and no LISTEN unless the pooler is known to be in
session mode.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import selectors
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Optional, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import PGnotify, TransactionStatus
from psycopg.rows import TupleRow
from psycopg.waiting import Ready

from pat_sync.configuration import Settings, require_trusted_file
from pat_sync.errors import ConfigurationError, SourceFailed, Stopped, describe
from pat_sync.log import hide, log
from pat_sync.pulse import Pulse
from pat_sync.url import is_loopback

_SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

# Detect a dead network within ten seconds, even on an idle connection.
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

# Connection parameters that name files, and their environment variables.
_TLS_FILES = {"sslrootcert": "PGSSLROOTCERT", "sslcert": "PGSSLCERT", "sslkey": "PGSSLKEY"}

# Remedies, by a part of the pooler's error message.
_POOLER_HELP = {
    "statement pooling mode": "a snapshot is read in one transaction: give this login pool_mode = transaction or session",
    "query_wait_timeout": "the pooler had no free server: raise its pool_size",
    "unsupported startup parameter": "remove it from the source and from PGOPTIONS, or add it to the pooler's ignore_startup_parameters",
}

T = TypeVar("T")


def _free_notifications() -> None:
    """Psycopg 3.1 without its C extension, as Debian 12 has it, frees no notification: 100 bytes for each change."""
    if psycopg.pq.__impl__ != "python" or tuple(map(int, psycopg.__version__.split(".")[:2])) >= (3, 2):
        return
    libpq: Any = importlib.import_module("psycopg.pq._pq_ctypes")

    def notifies(self: Any) -> PGnotify | None:
        found = libpq.PQnotifies(self._pgconn_ptr)
        if not found:
            return None
        try:
            return PGnotify(found.contents.relname, found.contents.be_pid, found.contents.extra)
        finally:
            libpq.PQfreemem(found)

    setattr(psycopg.pq.PGconn, "notifies", notifies)


_free_notifications()


class NoAnswer(psycopg.OperationalError):
    """No answer arrived within `query_timeout`."""


class Connection(psycopg.Connection[TupleRow]):
    """A connection that limits the wait for each answer to `query_timeout`."""

    pulse: Pulse
    query_timeout: float
    # Whether the server is behind a pooler.
    is_pooled = False
    was_notified = False
    _listens_to: str | None = None

    # Optional[] as in the base class.
    def wait(self, gen: PQGen[T], timeout: Optional[float] = None) -> T:
        deadline = time.monotonic() + self.query_timeout
        try:
            wanted = next(gen)
            while True:
                while (ready := self._poll(wanted)) is None:
                    self.pulse.beat()
                    if time.monotonic() >= deadline:
                        raise NoAnswer(f"no answer within {self.query_timeout:g} seconds")
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
        """Run a query and return its single row."""
        row = self.ask_for_row(query, parameters)
        if row is None:
            raise SourceFailed("a query returned no row")
        return row

    def ask_for_row(self, query: str, parameters: Any = None) -> TupleRow | None:
        """Run a query, in its own transaction if none is open, and return its first row."""
        # Slightly less than the timeout here, so that the server cancels the query as well. Sent in one message, both
        # statements share a transaction, so the setting does not outlive it.
        limit = f"SET LOCAL statement_timeout = {int(900 * self.query_timeout)}"
        cursor = self.execute(f"{limit}; {query}", parameters)
        cursor.nextset()
        return cursor.fetchone()

    def listen(self, channel: str) -> None:
        self.add_notify_handler(lambda _: setattr(self, "was_notified", True))
        self.execute(f"LISTEN {channel}")
        self._listens_to = channel

    def close(self) -> None:
        """UNLISTEN first, as a pooler hands the server to another client."""
        if self._listens_to is not None and self.is_pooled and self.info.transaction_status == TransactionStatus.IDLE:
            with suppress(psycopg.Error, Stopped):
                self.execute(f"UNLISTEN {self._listens_to}")
        super().close()

    def wait_for_notification(self, seconds: float) -> bool:
        """Wait for NOTIFY. Return False on timeout, and when the pulse is woken."""
        if not self.was_notified and self.pulse.wait(seconds, self.pgconn.socket):
            self.pgconn.consume_input()
            while self.pgconn.notifies() is not None:
                self.was_notified = True
        was_notified, self.was_notified = self.was_notified, False
        return was_notified


def connect(parameters: dict[str, str], pulse: Pulse, query_timeout: float) -> Connection:
    with _with_private_key(parameters) as usable:
        # ClientCursor interpolates parameters, as prepared statements would stay on the server.
        connection = Connection.connect(
            make_conninfo(**usable), autocommit=True, prepare_threshold=None, cursor_factory=psycopg.ClientCursor
        )
    assert isinstance(connection, Connection)
    connection.pulse = pulse
    connection.query_timeout = query_timeout
    try:
        # A pooler invents the process id that it reports to clients.
        (connection.is_pooled,) = connection.ask("SELECT pg_backend_pid() <> %s", (connection.info.backend_pid,))
        if connection.is_pooled:
            # Refused by a pooler in statement mode.
            connection.execute("BEGIN")
            connection.execute("ROLLBACK")
    except BaseException:
        connection.close()
        raise
    pulse.beat()
    return connection


@contextmanager
def _with_private_key(parameters: dict[str, str]) -> Iterator[dict[str, str]]:
    """Give libpq a private copy, in memory, of a key that others can read, as it refuses such a key.

    Orchestrators mount keys like that. Copied for each connection, as a key may be replaced.
    """
    content = _read_exposed_key(parameters.get("sslkey", os.environ.get("PGSSLKEY", "")))
    if content is None:
        yield parameters
        return
    with open(os.memfd_create("sslkey"), "wb") as copy:
        os.fchmod(copy.fileno(), 0o600)
        copy.write(content)
        copy.flush()
        yield parameters | {"sslkey": f"/proc/self/fd/{copy.fileno()}"}


def _read_exposed_key(path: str) -> bytes | None:
    """Read a key to which its group or others have access."""
    # libpq reports a key that cannot be read.
    with suppress(OSError), open(path, "rb") as key:
        if os.fstat(key.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            return key.read()
    return None


@contextmanager
def failures() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        text = error.diag.message_primary or describe(error)
        for part, help_text in _POOLER_HELP.items():
            if part in text:
                text = f"{text}: {help_text}"
        raise SourceFailed(text) from None


@functools.cache
def connection_parameters(settings: Settings) -> dict[str, str]:
    """The parameters for libpq. Raises ConfigurationError. Cached, so that warnings are logged once."""
    try:
        given = {name: str(value) for name, value in conninfo_to_dict(settings.source).items()}
    except psycopg.Error:
        # Do not chain the cause, which may quote a part of a password.
        raise ConfigurationError(
            "the source is not a URL that PostgreSQL understands; write special characters in it as %XX"
        ) from None

    if not re.fullmatch("[0-9,]*", given.get("port", "")):
        raise ConfigurationError("the port of the source is not a number")

    parameters = {**_CONNECTION, **given}
    for name, variable in _TLS_FILES.items():
        path = given.get(name, os.environ.get(variable, ""))
        # The value may also be a keyword such as "system", or name a key in an engine.
        if os.path.isfile(path):
            require_trusted_file(Path(path), is_key=name == "sslkey")
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
            log.warning('sslmode is "%s", which lets others on the network impersonate the source; use verify-full', mode)
        if "sslrootcert" not in parameters and "PGSSLROOTCERT" not in os.environ and _SYSTEM_CERTIFICATES.exists():
            parameters["sslrootcert"] = str(_SYSTEM_CERTIFICATES)
    return parameters


def _is_local(given: dict[str, str]) -> bool:
    """Whether all connections stay on this host. Unknown, so False, if a service file is used."""
    if "service" in given or "PGSERVICE" in os.environ:
        return False
    hosts = given.get("hostaddr") or os.environ.get("PGHOSTADDR") or given.get("host") or os.environ.get("PGHOST") or ""
    return all(host == "" or host.startswith(("/", "@")) or is_loopback(host) for host in hosts.split(","))
