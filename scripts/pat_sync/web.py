"""HTTP with deadlines for whole answers, not just for single reads, and with waits that a stop interrupts."""

from __future__ import annotations

import functools
import http.client
import io
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from pat_sync.errors import SourceFailed, describe
from pat_sync.pulse import Pulse

# Short, as a connect cannot be interrupted.
LONGEST_CONNECT = 10.0

# The longest wait in a single read, after which a stop is noticed.
_SLICE = 0.5


class Patience:
    """The deadline for an answer, or its next part, however slowly the bytes arrive."""

    def __init__(self, pulse: Pulse) -> None:
        self.pulse = pulse
        self.deadline = 0.0

    def begin(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds


class Session(requests.Session):
    def __init__(self, patience: Patience, accept: str, ca_file: Path | None) -> None:
        super().__init__()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(patience))
        # Take no proxies, credentials (.netrc) or certificates from the environment.
        self.trust_env = False
        # Refuse compression, as a few bytes can expand beyond memory, and answers from caches.
        self.headers.update(
            {
                "Accept": accept,
                "Accept-Encoding": "identity",
                "Cache-Control": "no-cache, no-store",
                "User-Agent": "pat-sync",
            }
        )
        if ca_file is not None:
            self.verify = str(ca_file)

    def get_redirect_target(self, *_: Any) -> None:
        """Leave redirects to the caller, who also handles invalid URLs in them."""


def add_query(url: str, query: dict[str, str]) -> str:
    """Add parameters to a URL."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query=urlencode([*parse_qsl(parts.query), *query.items()])))


def check_encoding(answer: requests.Response) -> None:
    encoding = answer.headers.get("Content-Encoding", "")
    if encoding.strip().lower() not in ("", "identity"):
        answer.close()
        raise SourceFailed(f'its answer has the Content-Encoding "{encoding}", which was not requested')


@contextmanager
def failures() -> Iterator[None]:
    """Raise SourceFailed with the root cause alone, as the text of requests' exceptions contains the whole URL."""
    try:
        yield
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
        first = _first_cause(error)
        if isinstance(first, http.client.IncompleteRead):
            raise SourceFailed("its answer was cut off") from None
        if type(first) is http.client.BadStatusLine:
            raise SourceFailed("its answer is not HTTP: are the port and the scheme right?") from None
        if isinstance(first, ssl.SSLCertVerificationError):
            raise SourceFailed(f"its certificate is not accepted: {first.verify_message}") from None
        if isinstance(error, requests.exceptions.SSLError):
            raise SourceFailed(f"TLS failed: {describe(first)}") from None
        if isinstance(error, requests.exceptions.Timeout) or isinstance(first, TimeoutError):
            raise SourceFailed("it did not answer in time") from None
        raise SourceFailed(getattr(first, "strerror", None) or describe(first)) from None


def _first_cause(error: BaseException) -> BaseException:
    """The first error of the network or of HTTP in the chain; further causes are internal to the libraries."""
    while isinstance(error, requests.exceptions.RequestException) or not isinstance(
        error, (OSError, http.client.HTTPException)
    ):
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is None:
            break
        error = cause
    return error


class _Stream(io.RawIOBase):
    """A server's answer, read in short waits until the deadline."""

    def __init__(self, patience: Patience, connection: socket.socket, stream: io.BufferedReader) -> None:
        self._patience = patience
        self._connection = connection
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        usual = self._connection.gettimeout()
        try:
            while True:
                self._patience.pulse.beat()
                left = self._patience.deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self._connection.settimeout(min(left, _SLICE))
                try:
                    return self._connection.recv_into(buffer)
                except TimeoutError:
                    pass
        finally:
            self._connection.settimeout(usual)

    def close(self) -> None:
        # The original stream holds a reference to the socket.
        self._stream.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, patience: Patience, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_Stream(patience, sock, self.fp))


class _Adapter(HTTPAdapter):
    """Reads answers through _Stream."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        super().__init__()

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        # Fail if an answer is shorter than its Content-Length.
        resp.enforce_content_length = True
        answer: requests.Response = super().build_response(req, resp)  # type: ignore[no-untyped-call]
        return answer

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)  # type: ignore[no-untyped-call]
        pools = {}
        for scheme, pool in self.poolmanager.pool_classes_by_scheme.items():
            response = staticmethod(functools.partial(_Response, self._patience))
            connection = type("Connection", (pool.ConnectionCls,), {"response_class": response})
            pools[scheme] = type("Pool", (pool,), {"ConnectionCls": connection})
        self.poolmanager.pool_classes_by_scheme = pools
