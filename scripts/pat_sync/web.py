"""HTTP as pat-sync speaks it: an answer, or a part of it, comes in time or not at all, and a stop is heard meanwhile."""

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

# Nothing can interrupt a connect.
LONGEST_CONNECT = 10.0

# No wait for a part of an answer is longer, so that a stop is heard.
_SLICE = 0.5


class Patience:
    """Until when the answer, or the next part of it, must be there, however slowly it drips."""

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
        # Neither proxies nor credentials (.netrc) nor certificates from the environment.
        self.trust_env = False
        # Not compressed: some bytes could become more than fits into memory. And from no cache that keeps to HTTP.
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
        """Redirects are for the caller to follow, who has also those in mind that are no URL."""


def add_query(url: str, query: dict[str, str]) -> str:
    """The URL with more parameters than it has."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query=urlencode([*parse_qsl(parts.query), *query.items()])))


def check_encoding(answer: requests.Response) -> None:
    encoding = answer.headers.get("Content-Encoding", "")
    if encoding.strip().lower() not in ("", "identity"):
        answer.close()
        raise SourceFailed(f'its answer has the encoding "{encoding}", which was not asked for')


@contextmanager
def failures() -> Iterator[None]:
    """What requests raises has the whole URL in its text; the first cause of it says enough."""
    try:
        yield
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
        first = _first_cause(error)
        if isinstance(first, http.client.IncompleteRead):
            raise SourceFailed("its answer was cut off") from None
        if type(first) is http.client.BadStatusLine:
            raise SourceFailed("its answer does not begin as one of HTTP does: are the port and the scheme right?") from None
        if isinstance(first, ssl.SSLCertVerificationError):
            raise SourceFailed(f"its certificate is not accepted: {first.verify_message}") from None
        if isinstance(error, requests.exceptions.SSLError):
            raise SourceFailed(f"TLS failed: {describe(first)}") from None
        if isinstance(error, requests.exceptions.Timeout) or isinstance(first, TimeoutError):
            raise SourceFailed("it does not answer in time") from None
        raise SourceFailed(getattr(first, "strerror", None) or describe(first)) from None


def _first_cause(error: BaseException) -> BaseException:
    """Behind an error of the network or of HTTP there is nothing but how the libraries came to it."""
    while isinstance(error, requests.exceptions.RequestException) or not isinstance(
        error, (OSError, http.client.HTTPException)
    ):
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is None:
            break
        error = cause
    return error


class _Stream(io.RawIOBase):
    """What a server sends: each wait is cut into slices, and all of them end in time."""

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
        # It keeps the socket open.
        self._stream.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, patience: Patience, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_Stream(patience, sock, self.fp))


class _Adapter(HTTPAdapter):
    """Has the answers read by _Stream."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        super().__init__()

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        # An answer that is shorter than its Content-Length is an error.
        resp.enforce_content_length = True
        answer: requests.Response = super().build_response(req, resp)  # type: ignore[no-untyped-call]
        return answer

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)  # type: ignore[no-untyped-call]
        pools = {}
        for scheme, pool in self.poolmanager.pool_classes_by_scheme.items():
            response = functools.partial(_Response, self._patience)
            connection = type("Connection", (pool.ConnectionCls,), {"response_class": response})
            pools[scheme] = type("Pool", (pool,), {"ConnectionCls": connection})
        self.poolmanager.pool_classes_by_scheme = pools
