"""An nginx with the module and a store, as they are built here, for tests that need clients of another kind than t/*.t."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
MODULE = os.environ.get("TEST_NGINX_LOAD_MODULES", str(ROOT / "build" / "ngx_http_auth_pat_module.so"))
PATCTL = os.environ.get("PATCTL", str(ROOT / "build" / "patctl"))
NGINX = shutil.which(os.environ.get("TEST_NGINX_BINARY", "nginx"), path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"

DEADLINE = 20.0


def wait_until(condition: Callable[[], object], what: str | Callable[[], object], seconds: float = DEADLINE) -> None:
    """Waits for a condition that another process brings about. `what` says it, or tells what there is instead."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what if isinstance(what, str) else what()}: not within {seconds} s")
        time.sleep(0.005)


_given_ports: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on, and that the kernel does not give to outgoing connections meanwhile."""
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(min(20000, first_ephemeral - 1000), first_ephemeral)
        if port in _given_ports:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given_ports.add(port)
            return port


def quote(value: object) -> str:
    """As one word of nginx's configuration."""
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def nginx_version() -> tuple[int, ...]:
    answer = subprocess.run([NGINX, "-v"], capture_output=True, text=True, check=True).stderr
    return tuple(int(part) for part in answer.split("/")[1].split()[0].split("."))


class Issued(NamedTuple):
    token: str
    id: str

    @property
    def header(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


class Store:
    def __init__(self, folder: Path, *init: str) -> None:
        self.folder = folder
        self.patctl("init", *(init or ("--owner", str(os.geteuid()))))

    def patctl(self, *arguments: str, input: str = "") -> str:
        command = [PATCTL, "--store", str(self.folder), *arguments]
        done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=DEADLINE)
        if done.returncode != 0:
            raise RuntimeError(f"patctl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def issue(self, *arguments: str) -> Issued:
        answer = json.loads(self.patctl("--json", "issue", *(arguments or ("--subject", "alice"))))
        return Issued(answer["token"], answer["id"])

    def revoke(self, token: Issued) -> None:
        self.patctl("revoke", "--id", token.id)

    def apply(self, *lines: dict[str, Any]) -> None:
        """What a source sends."""
        self.patctl("apply", input="".join(json.dumps(line) + "\n" for line in lines))

    def heartbeat(self, at: float) -> None:
        """Its source was reached at that time."""
        self.apply({"op": "heartbeat", "at": int(at)})


class Nginx:
    """`http` is the configuration. In it, PORT and PORT2 are free ports, FOLDER is the folder of this nginx, and `words`
    stand for what is given."""

    def __init__(self, folder: Path, http: str, workers: int = 1, user: str = "root", **words: object) -> None:
        self.folder = folder
        self.user = user
        self.port = free_port()
        self.port2 = free_port()
        self._words = {"PORT2": self.port2, "PORT": self.port, "FOLDER": folder, **words}
        self.configure(http, workers)

    def configure(self, http: str, workers: int = 1) -> None:
        for name in ("temp", "html"):
            (self.folder / name).mkdir(exist_ok=True)
        temp = " ".join(
            f"{kind}_temp_path {self.folder}/temp/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        for word, value in self._words.items():
            http = re.sub(rf"\b{word}\b", str(value), http)
        load = "".join(f"load_module {module};" for module in MODULE.split())
        (self.folder / "nginx.conf").write_text(f"""
            {load}
            {f"user {self.user};" if os.geteuid() == 0 else ""}
            daemon off;
            worker_processes {workers};
            pid {self.folder}/nginx.pid;
            error_log {self.folder}/error.log info;
            events {{ worker_connections 512; }}
            http {{
                {temp}
                log_format test '$request_uri $status $auth_pat_status "$auth_pat_id"';
                access_log {self.folder}/access.log test;
                {http}
            }}""")

    def __enter__(self) -> Nginx:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        (self.folder / "error.log").touch()
        command = [NGINX, "-p", str(self.folder), "-c", f"{self.folder}/nginx.conf", "-e", f"{self.folder}/error.log"]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            wait_until(self._listens, "nginx listens")
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def _listens(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"nginx has ended: {self.error_log()}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0 and bool(self.workers())

    def stop(self) -> None:
        """It may have been stopped before."""
        workers = self.workers() if self.process.poll() is None else []
        self.process.terminate()
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
            raise

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def workers(self) -> list[int]:
        """Those that serve, and those of an old configuration that still have requests."""
        pid = self.process.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except FileNotFoundError:
            return []
        return [int(child) for child in children]

    def reload(self) -> list[int]:
        """Reloads the configuration, and returns the workers that were there before."""
        before = self.workers()
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: set(self.workers()) - set(before), "new workers")
        return before

    def error_log(self) -> str:
        return (self.folder / "error.log").read_text()

    def access_log(self) -> list[str]:
        return (self.folder / "access.log").read_text().splitlines()

    def logged(self, pattern: str) -> None:
        """Waits for a line in the error log."""
        wait_until(lambda: re.search(pattern, self.error_log()), f"the error log has {pattern}")

    def accessed(self, line: str) -> None:
        """Waits for a line in the access log."""
        wait_until(lambda: line in self.access_log(), f"the access log has {line}")

    def status(self, path: str = "/status") -> dict[str, Any]:
        """What auth_pat_status says at a path."""
        with socket.create_connection(("127.0.0.1", self.port), DEADLINE) as client:
            client.sendall(f"GET {path} HTTP/1.0\r\nHost: test\r\n\r\n".encode())
            answer = b""
            while part := client.recv(65536):
                answer += part
        found: dict[str, Any] = json.loads(answer.split(b"\r\n\r\n", 1)[1])
        return found

    def counted(self, **requests: int) -> None:
        """Waits for these numbers of requests in auth_pat_status: workers tell once a second what they have counted."""
        wait_until(lambda: requests.items() <= self.status()["requests"].items(), lambda: (requests, self.status()))

    def request(
        self, path: str, host: str, *, method: str = "GET", headers: dict[str, str] | None = None, times: int = 1
    ) -> int:
        """The status of the answer, which is the same each time."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        statuses = set()
        for _ in range(times):
            connection.request(method, path, headers={"Host": host, **(headers or {})})
            with connection.getresponse() as answer:
                answer.read()
                statuses.add(answer.status)
        connection.close()
        (status,) = statuses
        return status
