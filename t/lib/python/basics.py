"""What all tests in Python need: where things are, free ports, folders, and waiting."""

from __future__ import annotations

import os
import random
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
MODULE = os.environ.get("TEST_NGINX_LOAD_MODULES", str(ROOT / "build" / "ngx_http_auth_pat_module.so"))
VERSION = (ROOT / "VERSION").read_text().strip().strip('"')
NGINX = shutil.which(os.environ.get("TEST_NGINX_BINARY", "nginx"), path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"
PATCTL = os.environ.get("PATCTL", str(ROOT / "build" / "patctl"))

# Nothing takes so many seconds, even on a busy machine.
DEADLINE = 60.0

# What libpq and patctl would take from the environment, or from the home of who runs the tests.
for _name in [name for name in os.environ if name.startswith(("PG", "PAT_STORE", "PAT_PEPPER", "PAT_SYNC"))]:
    del os.environ[_name]


def wait_until(condition: Callable[[], object], what: str | Callable[[], object], seconds: float = DEADLINE) -> None:
    """Waits for a condition that another process brings about. `what` says it, or tells what there is instead."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what if isinstance(what, str) else what()}: not within {seconds} s")
        time.sleep(0.005)


_given_ports: set[int] = set()


def free_port() -> int:
    """A port that neither TCP nor UDP has in use, and that the kernel does not give to outgoing connections meanwhile."""
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(min(20000, first_ephemeral - 1000), first_ephemeral)
        if port in _given_ports:
            continue
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp, suppress(OSError):
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
            _given_ports.add(port)
            return port


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that nginx's workers may enter."""
    path = Path(tempfile.mkdtemp(prefix="auth-pat-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


class Part(threading.Thread):
    """A loop that runs until the end; if it fails, the whole run fails."""

    def __init__(self, name: str, ends: threading.Event, body: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self.ends = ends
        self.body = body
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.ends.is_set():
                self.body()
        except BaseException as failure:
            self.failure = failure
            self.ends.set()
