"""A host with all that there is: a source, pat-sync, patctl, a store and an nginx; and clients that ask all the
time."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basics import DEADLINE, PATCTL, Part, wait_until
from clients import NEVER, TOKENS, Client, Connection, Operator, Source
from feed_server import Feed, digest
from network import Network
from nginx import Nginx
from oracle import LET_IN, REFUSED, Observation, Oracle
from probe import Probe, Sample
from processes import Adopted, UpgradableNginx, children, is_alive, open_files
from shim import Shim
from sidecar import Sidecar, acknowledgements, pat_sync
from store import Store

IS_ROOT = os.geteuid() == 0
OWNER = "nobody" if IS_ROOT else str(os.geteuid())
INIT = ("--owner", OWNER, *(("--group", "www-data") if IS_ROOT else ()))
USER = "www-data" if IS_ROOT else "root"

CLIENTS = 3
#: auth_pat_max_age of /fresh
MAX_AGE = 3
#: Above the longest heartbeat of pat-sync, a second for the fraction that it lacks, and one for the clock of a worker.
STALE_AFTER = MAX_AGE + 2.0

HTTP = """
    auth_pat_zone faults:1m;
    auth_pat_store STORE map_size=MAP_SIZE;
    keepalive_requests 100000000;
    keepalive_timeout 1h;
    server {
        listen 127.0.0.1:PORT;
        location = /worker { return 200 $pid; }
        location = /pat { auth_pat API; empty_gif; }
        location = /fresh { auth_pat API; auth_pat_max_age MAX_AGE; empty_gif; }
    }"""


@dataclass(frozen=True)
class Setup:
    """What a host is made of. Without workers, nginx is a single process."""

    workers: int = 2
    map_size: str = "32g"
    nginx_shim: bool = False
    sidecar_shim: bool = False
    upgradable: bool = False
    #: The size of the disk that holds the store; it is mounted.
    disk: str = ""


class Host:
    def __init__(self, folder: Path, chance: random.Random, setup: Setup) -> None:
        self.folder = folder
        self.chance = chance
        self.oracle = Oracle()
        self.good: list[str] = []
        self.bad: list[str] = []
        self.init = INIT
        # Those that nobody changes.
        self.kept = "faults-token-kept"
        self.gone = "faults-token-gone"
        self.asked: list[Observation] = []
        # Processes that the fault ended, or stopped.
        self.killed: set[int] = set()
        self.stopped: list[tuple[int, float, float]] = []
        self.nginx_shim = Shim(folder / "nginx.shim")
        self.sidecar_shim = Shim(folder / "sidecar.shim")
        self._setup = setup
        self._ends = threading.Event()
        self._changes_end = threading.Event()
        self._parts: list[Part] = []
        self._clients: list[Client] = []
        self._stack = ExitStack()

    def __enter__(self) -> Host:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def at_end(self, callback: Callable[[], object]) -> None:
        """Whatever happens before it, the last first."""
        self._stack.callback(callback)

    def _end(self) -> None:
        """What runs in threads."""
        self._changes_end.set()
        self._ends.set()
        for part in self._parts:
            part.join(DEADLINE)
        if self.sidecar.current is not None:
            self.sidecar.current.stop()

    def _start(self) -> None:
        folder = self.folder / "store"
        if self._setup.disk:
            folder.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self._setup.disk}", "tmpfs", folder], check=True)
            self.at_end(lambda: subprocess.run(["umount", "--lazy", folder], check=True))
            shutil.chown(folder, OWNER)
        self.store = Store(folder, *INIT)
        # patctl as pat-sync has it: a fault may give it options.
        self.patctl = self.folder / "patctl"
        self.set_patctl("--map-size", self._setup.map_size)

        self.nginx = (UpgradableNginx if self._setup.upgradable else Nginx)(
            self.folder / "nginx",
            HTTP,
            workers=self._setup.workers,
            user=USER,
            wrapper=self._wrapper(),
            **self._words(),
        )
        if self._setup.workers == 0 and IS_ROOT:
            subprocess.run(["chown", "-R", USER, self.nginx.folder], check=True)
        self._stack.enter_context(self.nginx)
        self.probe = Probe(self.nginx.port)
        self.at_end(self.probe.kill)

        self.feed = self._stack.enter_context(Feed())
        self.network = self._stack.enter_context(Network(int(re.findall(r":(\d+)/", self.feed.url)[0])))
        self.source = Source(self, random.Random(self.chance.getrandbits(64)))
        self.operator = Operator(self)
        self._fill()
        self.sidecar = Sidecar(
            f"http://127.0.0.1:{self.network.port}/feed",
            self.folder,
            self._ends,
            "--heartbeat-interval", "1", "--query-timeout", "2",
            patctl=str(self.patctl),
            env=self.sidecar_shim.environment if self._setup.sidecar_shim else None,
        )  # fmt: skip
        self.at_end(self._end)
        self._run("sidecar", self.sidecar)
        wait_until(self.serves, "the host serves")
        for _ in range(CLIENTS):
            self._clients.append(Client(self, random.Random(self.chance.getrandbits(64))))
            self._run("client", self._clients[-1])
        self._run("source", self.source, self._changes_end)
        self._run("operator", self.operator, self._changes_end)

    def _words(self) -> dict[str, Any]:
        return {"STORE": self.store.folder, "MAP_SIZE": self._setup.map_size, "MAX_AGE": f"{MAX_AGE}s"}

    def _wrapper(self) -> list[str]:
        """What starts nginx. A single process does not become the workers' user by itself, and root opens no store."""
        variables = [f"{name}={value}" for name, value in self.nginx_shim.environment.items()]
        with_shim = ["env", *variables] if self._setup.nginx_shim else []
        user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups"]
        return [*with_shim, *(user if self._setup.workers == 0 and IS_ROOT else ())]

    def set_patctl(self, *options: str) -> None:
        new = self.folder / "patctl.new"
        new.write_text(f'#!/bin/sh\nexec "{PATCTL}" {" ".join(options)} "$@"\n')
        new.chmod(0o755)
        new.rename(self.patctl)

    def _fill(self) -> None:
        for token in NEVER:
            self.oracle.know(token, False)
        self.oracle.know(self.kept, True)
        self.oracle.know(self.gone, False)
        self.feed.put("faults-expired-long-ago", expires_at=1_000_000_000)
        self.feed.put("faults-not-valid-yet", not_before=4_000_000_000)
        for token in (self.kept, self.gone):
            self.feed.put(token)
        self.feed.revoke(self.gone)
        for _ in range(TOKENS):
            self.good.append(self.source.put(scopes=["read"], name="a token of this test"))
            self.source.refuse(self.source.put())

    def _run(self, name: str, body: Callable[[], None], ends: threading.Event | None = None) -> None:
        part = Part(name, ends or self._ends, body)
        self._parts.append(part)
        part.start()

    def check(self) -> None:
        for part in self._parts:
            if part.failure is not None:
                raise part.failure

    # What the operator does

    def brake(self, token: str) -> None:
        """Revoke a token on this host, which no source undoes."""
        change = self.oracle.begin(token, False)
        self.bad.append(token)
        try:
            self.store.patctl("revoke", "--digest", digest(token))
        except (RuntimeError, subprocess.TimeoutExpired):
            # Whether that was done is not known. An operator sees to it.
            self.feed.revoke(token)
        else:
            change.acknowledge()

    def send(self, pid: int, number: signal.Signals) -> None:
        """Kill a process; with SIGSTOP, until stop() ends."""
        if number == signal.SIGKILL:
            self.killed.add(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    @contextmanager
    def stop(self, *pids: int) -> Iterator[None]:
        began = time.monotonic()
        for pid in pids:
            self.send(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                self.send(pid, signal.SIGCONT)
                self.stopped.append((pid, began, time.monotonic()))

    def workers(self) -> list[int]:
        """Those that take connections."""
        if self._setup.workers == 0:
            return [self.nginx.process.pid]
        return [pid for pid in self.nginx.workers() if _is_serving(pid)]

    def sidecar_pid(self) -> int:
        pids: list[int] = []

        def runs() -> bool:
            current = self.sidecar.current
            if current is not None and current.process.poll() is None:
                pids.append(current.process.pid)
            return bool(pids)

        wait_until(runs, "pat-sync runs")
        return pids[0]

    def stale_during(self, fault: Callable[[], AbstractContextManager[object]]) -> None:
        """For as long as the source is out of reach: so long that the store gets too old for /fresh."""
        with fault():
            began = time.monotonic()
            time.sleep(STALE_AFTER + 1.5)
            ended = time.monotonic()
        self.oracle.is_stale(int((began + STALE_AFTER) * 1e9), int(ended * 1e9))

    def upgrade(self, pause: float) -> None:
        """Another binary takes over, and the old one leaves (nginx.org, "Upgrading Executable on the Fly")."""
        old = self.nginx.process
        before = set(self.workers())
        old.send_signal(signal.SIGUSR2)
        pid_file = self.folder / "nginx" / "nginx.pid"

        def has_workers() -> bool:
            with suppress(OSError, ValueError):
                new = int(pid_file.read_text())
                return new != old.pid and len(children(new)) == self._setup.workers
            return False

        wait_until(has_workers, "a new master has workers")
        time.sleep(pause)
        new = int(pid_file.read_text())
        old.send_signal(signal.SIGQUIT)
        old.wait(DEADLINE)
        wait_until(lambda: not any(map(is_alive, before)), "the old workers leave")
        self.nginx.process = Adopted(new)

    def add_many(self, count: int) -> None:
        """So many tokens at once, which nobody changes later."""
        with self.source.lock:
            for _ in range(count):
                self.source.put(name="one of many" * 10)

    def wait_for_sidecar(self, text: str) -> None:
        log = self.folder / "pat-sync.log"
        wait_until(lambda: text in log.read_text(errors="replace"), f"pat-sync says: {text}")

    def another_nginx(self, name: str) -> Nginx:
        return Nginx(self.folder / name, HTTP, user=USER, **self._words())

    def swap(self) -> int:
        """A new folder takes the place of the store's. What is revoked later, is only in that one. Returns when."""
        with self.at_rest():
            return self._put_in_place(self.new_store(self.local_revocations()))

    def rebuild(self, local_revocations: str) -> None:
        """After the store was destroyed."""
        with self.source.lock:
            began = self._put_in_place(self.new_store(local_revocations))
        self.wait_for_replacement(began)

    def new_store(self, local_revocations: str) -> Store:
        """One that is made anew from the source, as docs/operations.md says."""
        made = Store(self.folder / "store.new", *INIT)
        done = pat_sync("--once", "--source", self.feed.url, "--store", made.folder)
        if done.returncode != 0:
            raise RuntimeError(f"pat-sync --once: {done.stderr}")
        made.patctl("import", "--local-revocations", "-", input=local_revocations)
        return made

    def local_revocations(self) -> str:
        return self.store.patctl("export", "--local-revocations")

    def _put_in_place(self, new: Store) -> int:
        began = time.monotonic_ns()
        self.store.folder.rename(self.folder / "store.old")
        new.folder.rename(self.store.folder)
        return began

    @contextmanager
    def writers_stopped(self) -> Iterator[None]:
        """Nobody writes the store."""
        with self.operator.lock, self.stop(*self.writers()):
            yield

    def writers(self) -> list[int]:
        """pat-sync, and what it has started."""
        pids = [self.sidecar_pid()]
        for pid in pids:
            pids += children(pid)
        return pids

    def wait_for_replacement(self, began: int) -> None:
        """After data.mdb was replaced. Workers look at the path once a second, and until then they serve the file that
        they have open (docs/operations.md): what is acknowledged meanwhile counts once each has the new one."""

        def have_it() -> bool:
            info = (self.store.folder / "data.mdb").stat()
            return all((info.st_dev, info.st_ino) in open_files(pid) for pid in self.nginx.workers() or self.workers())

        wait_until(have_it, "each worker has the new file")
        self.oracle.delay(began, time.monotonic_ns())

    # What is true

    def connection(self) -> Connection:
        return Connection(self.nginx.port)

    def ask(self, connection: Connection, token: str) -> int:
        """An answer that is judged like those of the clients."""
        sent = time.monotonic_ns()
        status = connection.status("/pat", token)
        self.asked.append(Observation(token, "/pat", sent, time.monotonic_ns(), status))
        return status

    def answers(self, path: str, tokens: list[str]) -> list[int]:
        """The answer of each worker."""
        found = []
        for connection in self.each_worker():
            found += [connection.status(path, token) for token in tokens]
            connection.close()
        return found

    def each_worker(self) -> list[Connection]:
        wanted = set(self.workers())
        found: dict[int, Connection] = {}
        spare = []
        for _ in range(200):
            if wanted <= found.keys():
                break
            connection = self.connection()
            worker = connection.worker()
            if worker in wanted and worker not in found:
                found[worker] = connection
            else:
                spare.append(connection)
        for connection in spare:
            connection.close()
        if not wanted or not wanted <= found.keys():
            for connection in found.values():
                connection.close()
            return []
        return list(found.values())

    def serves(self) -> bool:
        """Whether each worker lets in whom it should, from a store that is not stale."""
        self.check()
        let_in = self.answers("/pat", [self.kept]) + self.answers("/fresh", [self.kept])
        return set(let_in) == {LET_IN} and set(self.answers("/pat", [self.gone])) == {REFUSED}

    def wait_for_a_change(self) -> None:
        """Until a change at the source that is made now has reached each worker."""
        token = self.source.put()
        wait_until(lambda: set(self.answers("/pat", [token])) == {LET_IN}, "a new token is let in")
        self.source.refuse(token)
        wait_until(lambda: set(self.answers("/pat", [token])) == {REFUSED}, "it is refused once it is revoked")

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """All that was changed has arrived, and nothing changes meanwhile."""
        with self.source.lock, self.operator.lock:
            self.wait_for_arrival()
            yield

    def wait_for_arrival(self) -> None:
        """Until the store has all that the source has."""

        def has_all() -> bool:
            self.check()
            with suppress(RuntimeError, subprocess.TimeoutExpired, json.JSONDecodeError):
                found = self.store.stats()
                wanted = (str(self.feed.position), self.feed.epoch, "ready")
                return (found["cursor"], found["epoch"], found["state"]) == wanted
            return False

        wait_until(has_all, "the store has all that the source has")
        self._acknowledge()
        self.oracle.settle()

    def rest(self) -> None:
        """No more changes."""
        self._changes_end.set()
        for part in self._parts:
            if part.ends is self._changes_end:
                part.join(DEADLINE)

    def _acknowledge(self) -> None:
        """What patctl has acknowledged to pat-sync."""
        record = self.folder / "acks"
        if record.exists():
            when = acknowledgements(record)
            keys = {token: digest(token) for token in self.oracle.tokens()}
            self.oracle.acknowledge({token: when[key] for token, key in keys.items() if key in when})

    def lost(self) -> list[str]:
        """Tokens that are not as they should be, once all has arrived."""
        connections = self.each_worker()
        found = []
        for token in self.oracle.tokens():
            wanted = LET_IN if self.oracle.is_allowed(token) else REFUSED
            statuses = {connection.status("/pat", token) for connection in connections}
            if statuses != {wanted}:
                found.append(f'"{token}" gets {statuses}, and should get {wanted}')
        for connection in connections:
            connection.close()
        return found

    def observations(self, begin: int = 0) -> list[Observation]:
        self._acknowledge()
        seen = itertools.chain(self.asked, *(list(client.seen) for client in self._clients))
        return [one for one in seen if one.sent >= begin]

    def late_answers(self, samples: list[Sample], limit: float) -> list[Sample]:
        """Those of workers that the fault had not stopped."""

        def was_stopped(one: Sample) -> bool:
            return any(
                pid == one.worker and begin <= one.received and one.sent <= end for pid, begin, end in self.stopped
            )

        return [sample for sample in samples if sample.late > limit and not was_stopped(sample)]


def _is_serving(pid: int) -> bool:
    with suppress(OSError):
        return b"shutting down" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False
