"""HTTP/3 for the tests' client."""

# mypy: disable-error-code=import

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, StreamDataReceived, StreamReset
from client import Connection, End, Exchange, Fields, head_of, until


class Http3(Connection, asyncio.DatagramProtocol):
    """`ticket` is of an earlier connection: what is sent before the handshake is over then goes as early data."""

    @classmethod
    async def connect(cls, ca: Path, port: int, *, ticket: Any = None) -> Http3:
        made = cls(ca, ticket)
        address = ("127.0.0.1", port)
        await made._loop.create_datagram_endpoint(lambda: made, remote_addr=address)
        made._quic.connect(address, now=made._loop.time())
        if ticket is None:
            made._transmit()
            await made.connected()
        return made

    def __init__(self, ca: Path, ticket: Any) -> None:
        configuration = QuicConfiguration(alpn_protocols=H3_ALPN, server_name="127.0.0.1", session_ticket=ticket)
        configuration.load_verify_locations(str(ca))
        self.exchanges: dict[int, Exchange] = {}
        self.sent: list[bytes] = []
        self.tickets: list[Any] = []
        self.handshake: Any = None
        self.closed: Any = None
        self._loop = asyncio.get_running_loop()
        self._quic: Any = QuicConnection(configuration=configuration, session_ticket_handler=self.tickets.append)
        self._http: Any = H3Connection(self._quic)
        self._timer: asyncio.TimerHandle | None = None
        self._transport: Any = None

    async def connected(self) -> None:
        await until(lambda: self.handshake or self.closed, "a connection over QUIC")
        assert self.closed is None, self.closed

    async def start(self, method: str, path: str, fields: Fields = (), *, has_body: bool = False) -> Exchange:
        stream = self._quic.get_next_available_stream_id()
        exchange = self.exchanges[stream] = Exchange(self, stream)
        head = [(name.encode(), value.encode()) for name, value in head_of("https", method, path, fields)]
        self._http.send_headers(stream, head, end_stream=not has_body)
        self._transmit()
        return exchange

    async def send(self, exchange: Exchange, data: bytes, is_last: bool) -> None:
        self._http.send_data(exchange.stream, data, is_last)
        self._transmit()

    async def close(self) -> None:
        self._quic.close()
        self._transmit()
        if self._timer is not None:
            self._timer.cancel()
        self._transport.close()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self._quic.receive_datagram(data, address, now=self._loop.time())
        self._take_events()
        self._transmit()

    def _take_events(self) -> None:
        while (event := self._quic.next_event()) is not None:
            if isinstance(event, HandshakeCompleted):
                self.handshake = event
            elif isinstance(event, ConnectionTerminated):
                self.closed = event
                for exchange in self.exchanges.values():
                    exchange.finish(End.CLOSED)
            for part in self._http.handle_event(event):
                self._take(part)
            # The ends of a stream as QUIC has them, after what arrived before.
            is_last = isinstance(event, StreamDataReceived) and event.end_stream
            if isinstance(event, StreamReset) or is_last:
                if event.stream_id in self.exchanges:
                    self.exchanges[event.stream_id].finish(End.COMPLETE if is_last else End.RESET)

    def _take(self, event: Any) -> None:
        exchange = self.exchanges[event.stream_id]
        if isinstance(event, HeadersReceived):
            exchange.take_head((name.decode(), value.decode()) for name, value in event.headers)
        elif isinstance(event, DataReceived):
            exchange.take_body(event.data)

    def _transmit(self) -> None:
        now = self._loop.time()
        for data, _ in self._quic.datagrams_to_send(now=now):
            self._transport.sendto(data)
            self.sent.append(data)
        if self._timer is not None:
            self._timer.cancel()
        at = self._quic.get_timer()
        self._timer = None if at is None else self._loop.call_at(at, self._time_out)

    def _time_out(self) -> None:
        self._quic.handle_timer(now=self._loop.time())
        self._take_events()
        self._transmit()
