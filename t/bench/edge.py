"""What the measurements have in common: a store, an nginx with the module, and a client that holds its connection.

Whatever ends a measurement, a SIGTERM too, nginx and the folder go with it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "build" / "ngx_http_auth_pat_module.so"
PATCTL = ROOT / "build" / "patctl"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or "nginx"

DEADLINE_SECONDS = 60
LOADING_SECONDS = 300


def leave(number: int, _frame: object) -> NoReturn:
    """Unwinds, so that what was started is stopped."""
    sys.exit(128 + number)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that nginx's workers can reach, and that goes away."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)

    path = Path(tempfile.mkdtemp(prefix="auth-pat-bench-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def patctl(store: Path, *arguments: str) -> str:
    command = [str(PATCTL), "--store", str(store), *arguments]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=DEADLINE_SECONDS
    )
    return done.stdout


class Issued(NamedTuple):
    token: str
    id: str


def issue(store: Path) -> Issued:
    """Issues a token with the scope "read"."""
    command = ("--json", "issue", "--subject", "user:42", "--name", "bench", "--scope", "read")
    answer = json.loads(patctl(store, *command))
    return Issued(answer["token"], answer["id"])


def token(number: int) -> str:
    """A token of make_store()."""
    return f"bench-token-{number:08}"


def make_store(path: Path, tokens: int = 0) -> None:
    """Makes a store with this many tokens, which token() names."""
    patctl(path, "init", "--owner", str(os.geteuid()))

    command = [str(PATCTL), "--store", str(path), "import", "--strict", "-"]
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Nginx:
    """An nginx with the locations /bare and /pat, which differ only in auth_pat, the same with /body behind them, which
    read a body, and /upload, which waits for one."""

    def __init__(
        self,
        path: Path,
        *,
        workers: int,
        wrapper: tuple[str, ...] = (),
        zone: bool = False,
        recheck: int = 0,
        connections: int = 64,
    ) -> None:
        """Starts it; with workers=0 there is one process only, run by `wrapper`."""
        self.port = free_port()
        configuration = f"""
            load_module {MODULE};
            {"user root;" if os.geteuid() == 0 else ""}
            daemon off;
            master_process {"on" if workers else "off"};
            worker_processes {workers or 1};
            pid {path}/nginx.pid;
            error_log {path}/error.log;
            events {{ worker_connections {connections}; }}
            http {{
                access_log off;
                keepalive_requests 100000000;
                client_body_temp_path {path}/temp;
                proxy_temp_path {path}/temp;
                fastcgi_temp_path {path}/temp;
                uwsgi_temp_path {path}/temp;
                scgi_temp_path {path}/temp;
                auth_pat_store {path}/store;
                auth_pat_recheck {recheck}s;
                {"auth_pat_zone bench:10m;" if zone else ""}
                server {{
                    listen 127.0.0.1:{self.port};
                    location = /worker {{ return 200 $pid; }}
                    location = /bare {{ empty_gif; }}
                    location = /pat {{ auth_pat bench; empty_gif; }}
                    location = /bare/body {{ mirror /nowhere; empty_gif; }}
                    location = /pat/body {{ auth_pat bench; mirror /nowhere; empty_gif; }}
                    location = /nowhere {{ return 204; }}
                    location = /upload {{ auth_pat bench; client_body_timeout 1h; proxy_pass http://127.0.0.1:1; }}
                }}
            }}"""
        (path / "nginx.conf").write_text(configuration)
        command = [*wrapper, NGINX, "-p", str(path), "-c", f"{path}/nginx.conf", "-e", f"{path}/error.log"]
        self.log = path / "error.log"
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(self._listens, "nginx listens")
            # The master listens before it forks.
            wait_for(lambda: len(self.workers()) == workers, "the workers are there")
        except BaseException:
            self._kill()
            raise

    def _listens(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"nginx has ended: {self.log.read_text()}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def stop(self) -> None:
        """Ends it as an operator would, so that callgrind writes its figures."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(DEADLINE_SECONDS)
            except subprocess.TimeoutExpired:
                self._kill()
                raise

    def _kill(self) -> None:
        if self.process.poll() is None:
            for pid in [self.process.pid, *self.workers()]:
                os.kill(pid, signal.SIGKILL)
            self.process.wait()


def wait_for(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.001)


class Client:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS)
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
