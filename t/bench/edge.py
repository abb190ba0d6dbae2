"""What the measurements have in common: a store, an nginx with the module, and a client that holds its connection.

Whatever ends a measurement, a SIGTERM too, nginx and the folder go with it.
"""

from __future__ import annotations

import hashlib
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib" / "python"))

from basics import DEADLINE, PATCTL, temporary_folder  # noqa: E402
from nginx import Nginx  # noqa: E402
from store import Issued, Store  # noqa: E402

LOADING_SECONDS = 300


def leave(number: int, _frame: object) -> NoReturn:
    """Unwinds, so that what was started is stopped."""
    sys.exit(128 + number)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that nginx's workers can reach, and that goes away."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    with temporary_folder() as path:
        yield path


def issue(store: Store) -> Issued:
    """Issues a token with the scope "read"."""
    return store.issue("--subject", "user:42", "--name", "bench", "--scope", "read")


def token(number: int) -> str:
    """A token of make_store()."""
    return f"bench-token-{number:08}"


def make_store(path: Path, tokens: int = 0) -> Store:
    """Makes a store with this many tokens, which token() names."""
    store = Store(path)
    command = [PATCTL, "--store", str(path), "import", "--strict", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as loading:
        assert loading.stdin is not None
        for number in range(tokens):
            line = {
                "digest": hashlib.sha256(token(number).encode()).hexdigest(),
                "id": f"pat_{number:016}",
                "subject": f"user:{number}",
                "scopes": ["read"],
                "expires_at": 4102444800,
            }
            loading.stdin.write(json.dumps(line) + "\n")
        loading.stdin.close()
        loading.wait(LOADING_SECONDS)
    if loading.returncode != 0:
        raise RuntimeError("patctl import failed")
    return store


def nginx(
    path: Path,
    *,
    workers: int,
    wrapper: Sequence[str] = (),
    zone: bool = False,
    recheck: int = 0,
    connections: int = 64,
) -> Nginx:
    """An nginx with the locations /bare and /pat, which differ only in auth_pat, the same with /body behind them, which
    read a body, and /upload, which waits for one."""
    http = f"""
        keepalive_requests 100000000;
        auth_pat_store FOLDER/store;
        auth_pat_recheck {recheck}s;
        {"auth_pat_zone bench:10m;" if zone else ""}
        server {{
            listen 127.0.0.1:PORT;
            location = /worker {{ return 200 $pid; }}
            location = /bare {{ empty_gif; }}
            location = /pat {{ auth_pat bench; empty_gif; }}
            location = /bare/body {{ mirror /nowhere; empty_gif; }}
            location = /pat/body {{ auth_pat bench; mirror /nowhere; empty_gif; }}
            location = /nowhere {{ return 204; }}
            location = /upload {{ auth_pat bench; client_body_timeout 1h; proxy_pass http://127.0.0.1:1; }}
        }}"""
    return Nginx(path, http, workers=workers, wrapper=wrapper, connections=connections, log_level="error")


def callgrind(figures: Path) -> list[str]:
    """The command by which a program's instructions are counted, for instructions_in()."""
    return ["valgrind", "--tool=callgrind", "--quiet", f"--callgrind-out-file={figures}"]


def instructions_in(figures: Path) -> int:
    total = re.search(r"^(?:summary|totals): (\d+)", figures.read_text(), re.MULTILINE)
    if total is None:
        raise RuntimeError("callgrind wrote no total")
    return int(total[1])


class Client:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), DEADLINE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, request: bytes) -> None:
        self.socket.sendall(request)

    def close(self) -> None:
        self.socket.close()

    def worker(self) -> int:
        """The process that serves this connection."""
        self.send(request("/worker", ""))
        return int(self._answer()[1])

    def receive(self) -> int:
        """Reads one whole answer and returns its status."""
        return self._answer()[0]

    def _answer(self) -> tuple[int, bytes]:
        answer = b""
        while (end := answer.find(b"\r\n\r\n")) < 0:
            answer += self._read()
        head = answer[:end]
        length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
        while len(answer) < end + 4 + length:
            answer += self._read()
        return int(head[9:12]), answer[end + 4 :]

    def _read(self) -> bytes:
        part = self.socket.recv(65536)
        if not part:
            raise ConnectionError("nginx closed the connection")
        return part

    def get(self, request: bytes, times: int = 1) -> None:
        """Sends the request one time after the other; each must be allowed."""
        for _ in range(times):
            self.send(request)
            if (status := self.receive()) != 200:
                raise RuntimeError(f"the status is {status}, and should be 200")


def request(path: str, token: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
