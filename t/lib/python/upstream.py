"""An upstream with answers that take long: a WebSocket that echoes, events, a body without end, and none at all."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType

from websockets.legacy.server import WebSocketServerProtocol, serve

EVENT = b"data: " + b"tick" * 100 + b"\n\n"


class Upstream:
    """Answers /events and /silence over HTTP/1.1 at `port`, and WebSockets at `websocket_port`."""

    def __enter__(self) -> Upstream:
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,))
        self._thread.start()
        assert started.wait(20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set_result, None)
        self._thread.join(20)

    def _run(self, started: threading.Event) -> None:
        self._loop.run_until_complete(self._serve(started))
        self._loop.close()

    async def _serve(self, started: threading.Event) -> None:
        self._stop = self._loop.create_future()
        http = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        websocket = await serve(self._echo, "127.0.0.1", 0)
        self.port = http.sockets[0].getsockname()[1]
        self.websocket_port = list(websocket.sockets)[0].getsockname()[1]
        started.set()
        await self._stop
        http.close()
        websocket.close()
        await websocket.wait_closed()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _echo(self, socket: WebSocketServerProtocol) -> None:
        async for message in socket:
            await socket.send(message)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if b" /silence " in head.split(b"\r\n")[0]:
                await reader.read()  # until the other side closes
                return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
            while not writer.is_closing():
                writer.write(EVENT)
                await writer.drain()
                await asyncio.sleep(0.02)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
