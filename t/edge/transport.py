"""An nginx with a server that speaks all that it can: HTTP/1.1 and HTTP/2, each with and without TLS, and HTTP/3."""

from __future__ import annotations

import enum
import subprocess
from pathlib import Path

import pytest
from authority import Authority
from basics import NGINX, free_port
from nginx import Nginx, nginx_version


def has_http3() -> bool:
    shown = subprocess.run([NGINX, "-V"], capture_output=True, text=True, check=True).stderr
    return "--with-http_v3_module" in shown


class Transport(enum.Enum):
    """How a client talks to nginx."""

    HTTP1 = "http1"
    HTTP1_TLS = "http1-tls"
    HTTP2 = "http2"
    HTTP2_TLS = "http2-tls"
    HTTP3 = "http3"

    @property
    def is_http1(self) -> bool:
        """One request at a time on a connection."""
        return self in (Transport.HTTP1, Transport.HTTP1_TLS)

    @property
    def is_tls_over_tcp(self) -> bool:
        """HTTP/3 has TLS, too, as a part of QUIC."""
        return self in (Transport.HTTP1_TLS, Transport.HTTP2_TLS)

    @property
    def protocol(self) -> str:
        """What nginx calls it."""
        return {"http1": "HTTP/1.1", "http2": "HTTP/2.0", "http3": "HTTP/3.0"}[self.value.removesuffix("-tls")]


def _parameter(transport: Transport) -> object:
    # Where nginx has it, a test fails for want of a client.
    missing = transport is Transport.HTTP3 and not has_http3()
    marks = pytest.mark.skipif(missing, reason="this nginx is built without HTTP/3")
    return pytest.param(transport, id=transport.value, marks=marks)


ALL = [_parameter(transport) for transport in Transport]
WITH_STREAMS = [_parameter(transport) for transport in Transport if not transport.is_http1]
WITHOUT_STREAMS = [_parameter(transport) for transport in Transport if transport.is_http1]


def listen(authority: Authority) -> str:
    has_directive = nginx_version() >= (1, 25, 1)
    on_listen = "" if has_directive else " http2"
    lines = ["listen 127.0.0.1:PORT;", f"listen 127.0.0.1:PORT2{on_listen};",
             f"listen 127.0.0.1:TLS_PORT ssl{on_listen};",
             f"ssl_certificate {authority.certificate};", f"ssl_certificate_key {authority.key};"]
    if has_directive:
        lines.append("http2 on;")
    if has_http3():
        lines.append("listen 127.0.0.1:TLS_PORT quic reuseport;")
    return "\n".join(lines)


class Site(Nginx):
    """LISTEN in the configuration stands for the ports and the certificate of one server."""

    def __init__(self, folder: Path, http: str, authority: Authority, **options: object) -> None:
        self.authority = authority
        self.tls_port = free_port()
        http = http.replace("LISTEN", listen(authority))
        super().__init__(folder, http, TLS_PORT=self.tls_port, **options)  # type: ignore[arg-type]

    def port_of(self, transport: Transport) -> int:
        return {Transport.HTTP1: self.port, Transport.HTTP2: self.port2}.get(transport, self.tls_port)
