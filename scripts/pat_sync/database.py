"""Connections to PostgreSQL: how they are made, and that nothing waits on them for longer than it may."""

from __future__ import annotations

import functools
import os
import re
import selectors
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow
from psycopg.waiting import Ready

from pat_sync.configuration import Settings, is_loopback
from pat_sync.errors import ConfigurationError, SourceFailed, describe
from pat_sync.log import hide, log
from pat_sync.pulse import Pulse

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

T = TypeVar("T")


class Connection(psycopg.Connection[TupleRow]):
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


def connect(parameters: dict[str, str], pulse: Pulse, query_timeout: float) -> Connection:
    connection = Connection.connect(make_conninfo(**parameters), autocommit=True)
    assert isinstance(connection, Connection)
    connection.pulse = pulse
    connection.query_timeout = query_timeout
    # A little earlier than the wait here ends, so that the server is done with the query, too.
    connection.execute(f"SET statement_timeout = {int(900 * query_timeout)}")
    pulse.beat()
    return connection


@contextmanager
def failures() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise SourceFailed(error.diag.message_primary or describe(error)) from None


@functools.cache
def parameters_of(settings: Settings) -> dict[str, str]:
    """What libpq is given; raises ConfigurationError. Who asks again does not have to be warned again."""
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
