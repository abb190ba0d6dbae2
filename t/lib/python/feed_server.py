"""A feed as docs/pat-sync.md describes it, over HTTP or HTTPS, with faults."""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from authority import Authority
from basics import DEADLINE

Line = dict[str, Any]


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def token(id: str, /, **fields: Any) -> Line:
    return {"digest": digest(id), "id": id, "subject": f"user:{id}", **fields}


class Feed:
    """Cursors are change numbers as text. A fault replaces the answer to the next request; it is passed the handler."""

    def __init__(self, authority: Authority | None = None, protocol: str = "HTTP/1.0", echoes: bool = True) -> None:
        self.echoes = echoes
        # What an answer says instead of the time.
        self.date: Callable[[], str] | None = None
        self.epoch = "one"
        self.changes: list[Line] = []
        self.oldest = 0
        self.bearer: str | None = None
        self.page = 1000
        self.faults: list[Callable[[Handler], None]] = []
        # How the changes of an answer are sent.
        self.arrange: Callable[[list[Line]], list[Line]] = lambda changes: changes
        self.requests: list[tuple[dict[str, str], dict[str, str]]] = []
        self.clients: set[int] = set()
        self.news = threading.Condition()
        self._ending = threading.Event()

        handler = type("BoundHandler", (Handler,), {"feed": self, "protocol_version": protocol})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        scheme = "http"
        if authority is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(authority.certificate, authority.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}/feed"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def position(self) -> int:
        return max([self.oldest, *(int(change["seq"]) for change in self.changes)])

    def put(self, name: str, /, **fields: Any) -> Line:
        return self.add({"op": "put", **token(name, **fields)})

    def revoke(self, name: str) -> Line:
        return self.add({"op": "revoke", "digest": digest(name)})

    def add(self, change: Line) -> Line:
        with self.news:
            change = {"seq": self.position + 1, **change}
            self.changes.append(change)
            self.news.notify_all()
        return change

    def tokens(self) -> list[Line]:
        """The tokens as they are now."""
        now: dict[str, Line] = {}
        for change in self.changes:
            if change["op"] == "put":
                now[change["digest"]] = dict(change)
            elif change["op"] == "revoke":
                now[change["digest"]] |= {"revoked_at": 1, "seq": change["seq"]}
            else:
                del now[change["digest"]]
        return [now[key] for key in sorted(now)]

    def hang(self, _: Handler) -> None:
        self._ending.wait(DEADLINE)

    def goes_on(self) -> bool:
        """Wait a moment, and return whether there is more to send."""
        return not self._ending.wait(0.1)


class Handler(BaseHTTPRequestHandler):
    feed: Feed

    def do_GET(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        self.feed.requests.append((query, {name.lower(): value for name, value in self.headers.items()}))
        self.feed.clients.add(self.client_address[1])
        try:
            if self.feed.faults:
                self.feed.faults.pop(0)(self)
            else:
                self.respond(query)
        except OSError:
            pass

    def respond(self, query: dict[str, str]) -> None:
        """As a feed without faults."""
        if self.feed.bearer and self.headers["Authorization"] != f"Bearer {self.feed.bearer}":
            self.answer(401)
        elif "after" in query:
            self.send_changes(query)
        else:
            self.send_snapshot()

    def send_changes(self, query: dict[str, str]) -> None:
        feed = self.feed
        if self.headers["If-Match"] != f'"{feed.epoch}"':
            return self.answer(412)
        after = int(query["after"])
        if not feed.oldest <= after <= feed.position:
            return self.answer(410)
        with feed.news:
            feed.news.wait_for(lambda: feed.position > after, float(query["wait"]))
            later = [change for change in feed.changes if change["seq"] > after][: feed.page]
        if not later:
            return self.answer(204)
        cursor = str(later[-1]["seq"])
        more = later[-1]["seq"] < feed.position
        self.lines(*feed.arrange(later), {"op": "commit", "after": query["after"], "cursor": cursor, "more": more})

    def send_snapshot(self) -> None:
        position = self.feed.position
        self.lines(
            {"op": "snapshot_begin", "epoch": self.feed.epoch, "seq": position},
            *self.feed.tokens(),
            {"op": "snapshot_end", "cursor": str(position)},
        )

    def lines(self, *lines: Line | str) -> None:
        texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        self.answer(200, "".join(text + "\n" for text in texts))

    def answer(self, status: int, body: str = "", **headers: str) -> None:
        self.send_response(status)
        self.send_header("ETag", f'"{self.feed.epoch}"')
        nonce = parse_qs(urlsplit(self.path).query).get("nonce")
        if self.feed.echoes and nonce is not None:
            self.send_header("Pat-Nonce", nonce[0])
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def date_time_string(self, timestamp: float | None = None) -> str:
        return self.feed.date() if self.feed.date else super().date_time_string(timestamp)  # type: ignore[arg-type]

    def log_message(self, *_: Any) -> None:
        pass
