"""An nginx with the module, as it is built here."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from basics import DEADLINE, MODULE, NGINX, free_port, wait_until


def quote(value: object) -> str:
    """As one word of nginx's configuration."""
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def nginx_version() -> tuple[int, ...]:
    answer = subprocess.run([NGINX, "-v"], capture_output=True, text=True, check=True).stderr
    return tuple(int(part) for part in answer.split("/")[1].split()[0].split("."))


def load_modules() -> str:
    return "".join(f"load_module {module};" for module in MODULE.split())


def temporary_paths(folder: Path) -> str:
    (folder / "temp").mkdir(parents=True, exist_ok=True)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return " ".join(f"{kind}_temp_path {folder}/temp/{kind};" for kind in kinds)


def _title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


class Nginx:
    """`http` is the configuration. In it, PORT and PORT2 are free ports, FOLDER is the folder of this nginx, and `words`
    stand for what is given. Without workers there is a single process. `wrapper` is a command that runs nginx."""

    def __init__(
        self,
        folder: Path,
        http: str,
        *,
        workers: int = 1,
        user: str = "root",
        connections: int = 512,
        log_level: str = "info",
        access_log: str = "off",
        wrapper: Sequence[str] = (),
        **words: object,
    ) -> None:
        self.folder = folder
        self.user = user
        self.port = free_port()
        self.port2 = free_port()
        self.command = [*wrapper, NGINX, "-p", str(folder), "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error.log"]
        self._workers = workers
        self._connections = connections
        self._log_level = log_level
        self._access_log = access_log
        self._words = {"PORT2": self.port2, "PORT": self.port, "FOLDER": folder, **words}
        self.configure(http)

    def configure(self, http: str) -> None:
        (self.folder / "html").mkdir(parents=True, exist_ok=True)
        (self.folder / "error.log").touch()
        for word, value in self._words.items():
            http = re.sub(rf"\b{word}\b", str(value), http)
        (self.folder / "nginx.conf").write_text(f"""
            {load_modules()}
            {f"user {self.user};" if os.geteuid() == 0 else ""}
            daemon off;
            master_process {"on" if self._workers else "off"};
            worker_processes {self._workers or 1};
            pid {self.folder}/nginx.pid;
            error_log {self.folder}/error.log {self._log_level};
            events {{ worker_connections {self._connections}; }}
            http {{
                {temporary_paths(self.folder)}
                {http}
                access_log {self._access_log};
            }}""")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts it, and waits until it listens and all workers are there."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until(self.listens, "nginx listens")
        except BaseException:
            self.kill()
            raise

    def listens(self) -> bool:
        """Whether all its workers are there, too."""
        if self.process.poll() is not None:
            raise RuntimeError(f"nginx has ended: {self.error_log()}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0 and len(self.workers()) == self._workers

    def stop(self) -> None:
        """It may have been stopped before."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.kill()
                raise

    def kill(self) -> None:
        """With all its workers."""
        children = self.children()
        self.process.kill()
        self.process.wait()
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def children(self) -> list[int]:
        """Workers, and processes that look at stores."""
        pid = self.process.pid
        try:
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except FileNotFoundError:
            return []

    def workers(self) -> list[int]:
        """Those that serve, and those of an old configuration that still have requests."""
        return [pid for pid in self.children() if _title(pid).startswith(b"nginx: worker process")]

    def reload(self) -> list[int]:
        """Reloads the configuration, and returns the workers that were there before."""
        before = self.workers()
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(set(self.workers()) - set(before)) == self._workers, "new workers")
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
