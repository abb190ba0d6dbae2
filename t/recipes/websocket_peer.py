#!/usr/bin/python3
"""A WebSocket service and its client, for t/recipes_websocket.t.

    websocket_peer.py serve PORT
    websocket_peer.py connect PORT PATH [NAME=VALUE…]

The service selects chat.v1 where it is offered (chat.v2 it does not know), says first what it was sent, as JSON, and then
sends back what it gets. The client sends each line of its standard input. It prints, as JSON: what became of the
handshake, each message, and how the connection ended. Names are those of headers of the request; `offer` are subprotocols,
separated by spaces.
"""

import asyncio
import json
import ssl
import sys
from typing import Any

import websockets
import websockets.client
import websockets.exceptions
import websockets.server
from websockets.typing import Subprotocol


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def serve(port: str) -> None:
    async def answer(connection: Any) -> None:
        await connection.send(json.dumps({name.lower(): value for name, value in connection.request_headers.raw_items()}))
        async for message in connection:
            await connection.send(message)

    async with websockets.server.serve(answer, "127.0.0.1", int(port), subprotocols=[Subprotocol("chat.v1")]):
        say(ready=True)
        await asyncio.Future()


async def connect(port: str, path: str, *values: str) -> None:
    headers = dict(value.split("=", 1) for value in values)
    offered = [Subprotocol(name) for name in headers.pop("offer", "").split()]
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    try:
        # Like a browser, this fails where the service selects what was not offered.
        connection = await websockets.client.connect(f"wss://socket.referon.com{path}", host="127.0.0.1", port=int(port),
                                                     ssl=trusting, subprotocols=offered or None, extra_headers=headers)
    except websockets.exceptions.InvalidStatusCode as error:
        say(status=error.status_code, challenge=error.headers.get("WWW-Authenticate", ""))
        return
    except websockets.exceptions.WebSocketException as error:
        say(status=0, error=str(error))
        return
    say(status=101, selected=connection.subprotocol, headers=dict(connection.response_headers.raw_items()))

    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def send() -> None:
        while line := await reader.readline():
            await connection.send(line.decode().rstrip("\n"))

    sending = asyncio.create_task(send())
    try:
        async for message in connection:
            say(message=message)
    except websockets.exceptions.ConnectionClosed:
        pass
    sending.cancel()
    say(closed=connection.close_code)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[2]) if sys.argv[1] == "serve" else connect(*sys.argv[2:]))
