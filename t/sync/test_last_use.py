"""From a request to nginx to what the platform shows: with the module, pat-sync and PostgreSQL as they are built here."""

from __future__ import annotations

import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType

import pytest
from servers import DEADLINE, ROOT, Connection, Database, free_port, wait_until
from sidecar import PatSync, Store, once

MODULE = os.environ.get("TEST_NGINX_LOAD_MODULES", str(ROOT / "build" / "ngx_http_auth_pat_module.so"))
NGINX = shutil.which(os.environ.get("TEST_NGINX_BINARY", "nginx"), path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"

FAST = ("--usage-interval", "0.1", "--edge", "e1")


class Nginx:
    """A server with tokens, and one as docs/pat-sync.md has it, which tells what was used."""

    def __init__(self, folder: Path, store: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.port = free_port()
        self.usage_port = free_port()
        self.socket = folder / "socket"
        temporary = " ".join(
            f"{kind}_temp_path {folder}/temp;" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (folder / "nginx.conf").write_text(f"""
            {" ".join(f"load_module {module};" for module in MODULE.split())}
            {"user root;" if os.geteuid() == 0 else ""}
            daemon off;
            worker_processes 2;
            pid {folder}/pid;
            events {{ worker_connections 256; }}
            http {{
                {temporary}
                access_log off;
                auth_pat_zone pat:10m;
                server {{
                    listen 127.0.0.1:{self.port};
                    listen unix:{self.socket};
                    auth_pat api;
                    auth_pat_store {store};
                    location / {{ empty_gif; }}
                }}
                server {{
                    listen 127.0.0.1:{self.usage_port};
                    location = /usage {{
                        allow 127.0.0.1;
                        deny all;
                        auth_pat_store {store};
                        auth_pat_usage;
                    }}
                    location = /denied {{ deny all; auth_pat_store {store}; auth_pat_usage; }}
                    location = /guarded {{ auth_pat api; auth_pat_store {store}; auth_pat_usage; }}
                    location = /page {{ empty_gif; }}
                }}
            }}""")
        self.start()

    def __enter__(self) -> Nginx:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        command = [NGINX, "-p", str(self.folder), "-c", f"{self.folder}/nginx.conf", "-e", f"{self.folder}/error.log"]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_until(lambda: len(self.workers()) == 2 and self._answers(), "nginx answers")

    def stop(self) -> None:
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(DEADLINE)

    def reload(self) -> None:
        before = set(self.workers())
        self._process.send_signal(signal.SIGHUP)
        wait_until(lambda: not before & set(self.workers()) and len(self.workers()) == 2, "new workers")

    def workers(self) -> list[int]:
        if self._process.poll() is not None:
            raise RuntimeError(f"nginx has ended: {(self.folder / 'error.log').read_text()}")
        pid = self._process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.usage_port)) == 0

    def get(self, token: str, address: str = "127.0.0.1") -> int:
        """The status of a request with a connection of its own."""
        with closing(
            http.client.HTTPConnection("127.0.0.1", self.port, DEADLINE, source_address=(address, 0))
        ) as client:
            return self._get(client, token)

    def get_by_socket(self, token: str) -> int:
        with closing(http.client.HTTPConnection("localhost")) as client:
            client.sock = socket.socket(socket.AF_UNIX)
            client.sock.connect(str(self.socket))
            return self._get(client, token)

    @staticmethod
    def _get(client: http.client.HTTPConnection, token: str) -> int:
        client.request("GET", "/", headers={"Authorization": f"Bearer {token}"})
        answer = client.getresponse()
        answer.read()
        return answer.status

    def url(self, path: str = "/usage") -> str:
        return f"http://127.0.0.1:{self.usage_port}{path}"


class Edge:
    """All of it, with tokens that clients have, and what they have used."""

    def __init__(self, database: Database, store: Store, nginx: Nginx, owner: Connection) -> None:
        self.database = database
        self.store = store
        self.nginx = nginx
        self.owner = owner
        self.used: Counter[str] = Counter()
        self._lock = threading.Lock()

    def issue(self, count: int) -> list[tuple[str, str]]:
        rows = self.owner.execute(
            "SELECT made.id, made.token FROM generate_series(1, %s) AS n, pat.issue('user:' || n) AS made", (count,)
        )
        return [(id, token) for id, token in rows]

    def use(self, id: str, token: str, address: str = "127.0.0.1") -> None:
        assert self.nginx.get(token, address) == 200
        with self._lock:
            self.used[id] += 1

    def arguments(self, *more: str) -> list[str]:
        return ["--source", self.database.url("edge"), "--store", str(self.store.folder),
                "--usage-url", self.nginx.url(), *FAST, *more]  # fmt: skip

    def uses(self) -> Counter[str]:
        rows = self.owner.execute("SELECT id, uses FROM pat.tokens WHERE uses > 0")
        return Counter({id: count for id, count in rows})

    def wait_until_counted(self) -> None:
        wait_until(lambda: self.uses().total() >= self.used.total(), "the uses are counted")
        assert self.uses() == self.used

    def shown(self, id: str) -> tuple[float | None, str | None, int]:
        (row,) = self.owner.execute(
            "SELECT extract(epoch FROM last_used_at)::float8, host(last_used_from), uses FROM pat.tokens WHERE id = %s",
            (id,),
        ).fetchall()
        return row[0], row[1], row[2]


@pytest.fixture
def edge(database: Database, tmp_path: Path) -> Iterator[Edge]:
    store = Store(tmp_path / "store")
    with database.connect() as owner, Nginx(tmp_path / "nginx", store.folder) as nginx:
        yield Edge(database, store, nginx, owner)


@contextmanager
def clients(edge: Edge, tokens: list[tuple[str, str]], count: int = 3) -> Iterator[None]:
    """They use the tokens for as long as it lasts."""
    ending = threading.Event()
    failures: list[BaseException] = []

    def run(dice: random.Random) -> None:
        try:
            while not ending.wait(0.002):
                edge.use(*dice.choice(tokens))
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(random.Random(number),)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ending.set()
        for thread in threads:
            thread.join()
    assert not failures


def wait_until_let_in(edge: Edge, token: str) -> None:
    wait_until(lambda: edge.store.verdict(token) == "ok", "the token is known")


def test_a_request_is_shown_with_time_address_and_count(edge: Edge) -> None:
    began = int(time.time())
    (used, token), (by_socket, other), (unused, _), (revoked, refused) = edge.issue(4)
    edge.owner.execute("SELECT pat.revoke(%s)", (revoked,))
    with PatSync(*edge.arguments()) as sync:
        wait_until_let_in(edge, token)
        for source in ("127.0.0.1", "127.0.0.9"):
            edge.use(used, token, source)
        # Within a second, which worker was last is not known.
        time.sleep(1.1)
        edge.use(used, token, "127.0.0.7")
        assert edge.nginx.get_by_socket(other) == 200
        edge.used[by_socket] += 1
        assert edge.nginx.get(refused) == 401
        edge.wait_until_counted()

        at, address, uses = edge.shown(used)
        assert at is not None and began <= at <= time.time()
        assert (address, uses) == ("127.0.0.7", 3)
        assert edge.shown(by_socket)[1:] == (None, 1)
        assert edge.shown(unused) == edge.shown(revoked) == (None, None, 0)
        assert not sync.find("warning")


def test_counts_are_exact_whatever_is_reloaded_or_killed(edge: Edge) -> None:
    tokens = edge.issue(30)
    for life in range(6):
        with PatSync(*edge.arguments()) as sync:
            wait_until_let_in(edge, tokens[0][1])
            if life == 0:
                wait_until_let_in(edge, tokens[-1][1])
            with clients(edge, tokens):
                edge.nginx.reload()
                time.sleep(0.05 * life)
                # At whatever it is doing.
                sync.kill()
                edge.nginx.reload()
    with PatSync(*edge.arguments()):
        with clients(edge, tokens):
            edge.nginx.reload()
        edge.wait_until_counted()
        time.sleep(2)
        assert edge.uses() == edge.used
        assert edge.used.total() > 100


def test_counts_go_on_after_a_restart_of_nginx(edge: Edge) -> None:
    tokens = edge.issue(5)
    with PatSync(*edge.arguments()) as sync:
        wait_until_let_in(edge, tokens[-1][1])
        for restarts in range(3):
            for id, token in tokens:
                edge.use(id, token)
            edge.wait_until_counted()
            edge.nginx.stop()
            sync.wait_for_line("use was not reported.*Connection refused", restarts + 1)
            edge.nginx.start()
        for id, token in tokens:
            edge.use(id, token)
        edge.wait_until_counted()
        sync.wait_for_line("use is reported again")


def test_use_waits_in_nginx_while_the_platform_is_away(edge: Edge) -> None:
    """More of it than goes into one batch."""
    tokens = edge.issue(1100)
    assert once(*edge.arguments()).returncode == 0
    for id, token in tokens:
        edge.use(id, token)
    edge.use(*tokens[0])
    # A worker adds what it has counted once a second.
    time.sleep(1.5)
    with PatSync(*edge.arguments("--usage-interval", "3600")):
        edge.wait_until_counted()


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("/denied", "it answers 403 Forbidden: does its location allow the address of this host, and ask for no token?"),
        ("/guarded", "it answers 401 Unauthorized: does its location allow the address of this host"),
        ("/nowhere", "it answers 404 Not Found: is the URL right, and has its location auth_pat_usage?"),
        ("/page", 'it answers with "image/gif" and not with application/x-ndjson: has its location auth_pat_usage?'),
    ],
)
def test_a_location_that_tells_nothing_is_told(path: str, cause: str, edge: Edge) -> None:
    done = once(*edge.arguments("--usage-url", edge.nginx.url(path)))
    assert done.returncode == 0
    assert cause in done.stderr.splitlines()[-1]


def test_a_cursor_that_nginx_can_not_have_given_is_told(edge: Edge) -> None:
    with edge.database.connect("edge") as login:
        login.execute("SELECT pat.record_use('e1', %s, '[]')", (1 << 60,))
    done = once(*edge.arguments())
    assert "it answers 400 Bad Request: the last batch of this edge is no cursor of nginx" in done.stderr
    assert "use was not reported" not in once(*edge.arguments("--edge", "e2")).stderr
