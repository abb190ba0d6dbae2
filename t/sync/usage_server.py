"""A server that answers like nginx with auth_pat_usage, with faults."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from basics import DEADLINE, free_port

Line = dict[str, Any]


class UsageServer:
    """Repeats a batch, with its cursor, until a request confirms it. A fault replaces the next answer; it is passed the
    handler and the right answer."""

    def __init__(self) -> None:
        self.faults: list[Callable[[Handler, str], None]] = []
        self.requests: list[dict[str, str]] = []
        # What was ever used, and so has to be counted.
        self.used: Counter[str] = Counter()
        self.last: dict[str, Line] = {}

        self.cursor = 0
        self._waiting: Counter[str] = Counter()
        self._batch: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._port = free_port()
        self._server: ThreadingHTTPServer | None = None
        self.url = f"http://127.0.0.1:{self._port}/usage"
        self.start()

    def __enter__(self) -> UsageServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.stop()

    def start(self) -> None:
        handler = type("BoundHandler", (Handler,), {"usage": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on, and keep the state."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def use(self, id: str, times: int = 1, at: float | None = None, address: str = "203.0.113.7") -> None:
        with self._lock:
            self.used[id] += times
            self._waiting[id] += times
            self.last[id] = {"id": id, "at": int(time.time() if at is None else at), "from": address}

    @property
    def is_reported(self) -> bool:
        """Whether no use is waiting and every report is confirmed."""
        with self._lock:
            return not self._waiting and not self._batch

    def answer(self, after: int) -> str:
        with self._lock:
            if after >= self.cursor:
                self._batch.clear()
            if not self._batch:
                for id in list(self._waiting)[:1000]:
                    self._batch[id] = self._waiting.pop(id)
                self.cursor = max(self.cursor, after) + bool(self._batch)
            lines: list[Line] = [{**self.last[id], "count": count} for id, count in self._batch.items()]
            lines.append({"cursor": self.cursor})
            return "".join(json.dumps(line) + "\n" for line in lines)

    # Faults

    def hang(self, _: Handler, __: str) -> None:
        self._ending.wait(DEADLINE)

    def lose(self, handler: Handler, _: str) -> None:
        """The answer does not arrive."""
        handler.close_connection = True

    def cut(self, handler: Handler, answer: str) -> None:
        """The second half of the answer does not arrive, and nothing says so."""
        handler.send_response(200)
        handler.send_header("Content-Type", "application/x-ndjson")
        handler.end_headers()
        handler.wfile.write(answer.encode()[: len(answer) // 2])

    @staticmethod
    def say(status: int, body: str, **headers: str) -> Callable[[Handler, str], None]:
        return lambda handler, _: handler.answer(status, body, **headers)


class Handler(BaseHTTPRequestHandler):
    usage: UsageServer

    def do_GET(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        answer = self.usage.answer(int(query["after"]))
        self.usage.requests.append(query)
        try:
            if self.usage.faults:
                self.usage.faults.pop(0)(self, answer)
            else:
                self.answer(200, answer)
        except OSError:
            pass

    def answer(self, status: int, body: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Type": "application/x-ndjson", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        pass
