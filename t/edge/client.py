"""A client that tells how each answer has ended, over HTTP/1.1, HTTP/2 and HTTP/3."""

# mypy: disable-error-code=import

from __future__ import annotations

import abc
import asyncio
import enum
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h11
from basics import DEADLINE
from transport import Site, Transport

Fields = Iterable[tuple[str, str]]


async def until(condition: Callable[[], object], what: str, seconds: float = DEADLINE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.005)


class End(enum.Enum):
    COMPLETE = "the answer is whole"
    RESET = "its stream was reset"
    CLOSED = "its connection was closed"
    MALFORMED = "its connection had something that its protocol does not allow"


class Exchange:
    """A request, and what has arrived of its answer. The status is 0 as long as nothing has."""

    def __init__(self, connection: Connection, stream: int) -> None:
        self.stream = stream
        self.status = 0
        self.fields: list[tuple[str, str]] = []
        self.body = bytearray()
        self.end: End | None = None
        self._connection = connection
        self._news = asyncio.Event()

    def values(self, name: str) -> list[str]:
        """Of a header field."""
        return [value for key, value in self.fields if key.lower() == name]

    async def send(self, data: bytes, *, is_last: bool = False) -> None:
        """A part of the request's body, which goes nowhere if the answer has ended."""
        if self.end is None:
            await self._connection.send(self, data, is_last)

    async def answered(self) -> int:
        await self._until(lambda: self.status or self.end, "an answer")
        return self.status

    async def ended(self, seconds: float = DEADLINE) -> End:
        await self._until(lambda: self.end, "the end of an answer", seconds)
        assert self.end is not None
        return self.end

    async def goes_on(self) -> None:
        """Something more arrives."""
        before = len(self.body)
        await self._until(lambda: len(self.body) > before or self.end, "more of the answer")
        assert self.end is None, self.end

    async def _until(self, condition: Callable[[], object], what: str, seconds: float = DEADLINE) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            self._news.clear()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), deadline - time.monotonic())
            assert condition() or time.monotonic() < deadline, f"{what}: not within {seconds} s"

    # What a connection tells.

    def take_head(self, fields: Iterable[tuple[str, str]]) -> None:
        self.fields = list(fields)
        self.status = int(self.values(":status")[0])
        self._news.set()

    def take_body(self, data: bytes) -> None:
        self.body += data
        self._news.set()

    def finish(self, end: End) -> None:
        """Only the first end counts."""
        if self.end is None:
            self.end = end
        self._news.set()


class Connection(abc.ABC):
    @abc.abstractmethod
    async def start(self, method: str, path: str, fields: Fields = (), *, has_body: bool = False) -> Exchange:
        """Sends the head of a request."""

    @abc.abstractmethod
    async def send(self, exchange: Exchange, data: bytes, is_last: bool) -> None: ...

    @abc.abstractmethod
    async def close(self) -> None: ...

    async def fetch(self, path: str, fields: Fields = (), *, method: str = "GET") -> Exchange:
        """A whole answer."""
        exchange = await self.start(method, path, fields)
        assert await exchange.ended() is End.COMPLETE, exchange.end
        return exchange


class _Streamed(Connection):
    """On a connection of TCP, with or without TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.exchanges: dict[int, Exchange] = {}
        self._reader = reader
        self._writer = writer
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        end = End.CLOSED
        try:
            while data := await self._reader.read(65536):
                self._received(data)
                await self._flush()
            self._received_end()
        except ConnectionError:
            pass
        except (ssl.SSLError, h2.exceptions.ProtocolError, h11.RemoteProtocolError):
            end = End.MALFORMED
        for exchange in self.exchanges.values():
            exchange.finish(end)

    @abc.abstractmethod
    def _received(self, data: bytes) -> None: ...

    def _received_end(self) -> None:
        """The other side has closed the connection, after all that it has sent."""

    async def _flush(self) -> None:
        with suppress(OSError):  # the other side has closed it, as the reader notices, too
            await self._writer.drain()

    async def close(self) -> None:
        self._reading.cancel()
        # Over TLS, close() waits for an answer that does not come while nginx waits for its upstream.
        self._writer.transport.abort()


class _Http1(_Streamed):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._http = h11.Connection(h11.CLIENT)
        super().__init__(reader, writer)

    async def start(self, method: str, path: str, fields: Fields = (), *, has_body: bool = False) -> Exchange:
        if self.exchanges:
            self._http.start_next_cycle()
        # nginx alone says which requests are malformed.
        self.exchanges = {1: Exchange(self, 1)}
        self._write(h11.Request(method=method, target=path, headers=[("Host", "test"), *fields]))
        if not has_body:
            self._write(h11.EndOfMessage())
        await self._flush()
        return self.exchanges[1]

    def _write(self, event: Any) -> None:
        self._writer.write(self._http.send(event) or b"")

    async def send(self, exchange: Exchange, data: bytes, is_last: bool) -> None:
        self._write(h11.Data(data=data))
        if is_last:
            self._write(h11.EndOfMessage())
        await self._flush()

    def _received(self, data: bytes) -> None:
        self._http.receive_data(data)
        while True:
            event = self._http.next_event()
            if event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                return
            exchange = self.exchanges[1]
            if isinstance(event, h11.Response):
                fields = [(name.decode(), value.decode()) for name, value in event.headers]
                exchange.take_head([(":status", str(event.status_code)), *fields])
            elif isinstance(event, h11.Data):
                exchange.take_body(event.data)
            elif isinstance(event, h11.EndOfMessage):
                exchange.finish(End.COMPLETE)

    def _received_end(self) -> None:
        with suppress(h11.RemoteProtocolError):  # in the middle of an answer
            self._received(b"")


def head_of(scheme: str, method: str, path: str, fields: Fields) -> list[tuple[str, str]]:
    """As HTTP/2 and HTTP/3 have it."""
    pseudo = [(":method", method), (":scheme", scheme), (":authority", "test"), (":path", path)]
    return pseudo + [(name.lower(), value) for name, value in fields]


class _Http2(_Streamed):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, scheme: str) -> None:
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._scheme = scheme
        self._http.initiate_connection()
        super().__init__(reader, writer)

    async def start(self, method: str, path: str, fields: Fields = (), *, has_body: bool = False) -> Exchange:
        stream = self._http.get_next_available_stream_id()
        exchange = self.exchanges[stream] = Exchange(self, stream)
        head = head_of(self._scheme, method, path, fields)
        self._http.send_headers(stream, head, end_stream=not has_body)
        await self._flush()
        return exchange

    async def send(self, exchange: Exchange, data: bytes, is_last: bool) -> None:
        def room() -> int:
            window: int = self._http.local_flow_control_window(exchange.stream)
            return min(window, int(self._http.max_outbound_frame_size))

        while data:
            await until(lambda: exchange.end or room() > 0, "room for more of a body")
            if exchange.end:
                return
            part, data = data[: room()], data[room() :]
            self._http.send_data(exchange.stream, part)
            await self._flush()
        if is_last:
            self._http.end_stream(exchange.stream)
            await self._flush()

    def _received(self, data: bytes) -> None:
        for event in self._http.receive_data(data):
            exchange = self.exchanges.get(getattr(event, "stream_id", 0) or 0)
            if exchange is None:
                continue
            if isinstance(event, h2.events.ResponseReceived):
                exchange.take_head(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                exchange.take_body(event.data)
                self._http.acknowledge_received_data(event.flow_controlled_length, exchange.stream)
            elif isinstance(event, h2.events.StreamEnded):
                exchange.finish(End.COMPLETE)
            elif isinstance(event, h2.events.StreamReset):
                exchange.finish(End.RESET)

    async def _flush(self) -> None:
        self._writer.write(self._http.data_to_send())
        await super()._flush()


@asynccontextmanager
async def connect(site: Site, transport: Transport) -> AsyncIterator[Connection]:
    """A new connection."""
    made = await _connect(site, transport)
    try:
        yield made
    finally:
        await made.close()


async def _connect(site: Site, transport: Transport) -> Connection:
    if transport is Transport.HTTP3:
        from http3 import Http3  # which needs what Debian 12 does not have

        return await Http3.connect(site.authority.ca, site.tls_port)

    context = None
    if transport.is_tls_over_tcp:
        context = ssl.create_default_context(cafile=site.authority.ca)
        context.set_alpn_protocols(["http/1.1" if transport.is_http1 else "h2"])
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port_of(transport), ssl=context)
    return _Http1(reader, writer) if transport.is_http1 else _Http2(reader, writer, "https" if context else "http")
