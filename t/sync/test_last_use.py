"""From a request to nginx to the platform's view, with the real module, pat-sync and PostgreSQL."""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from basics import DEADLINE, wait_until
from nginx import Nginx
from postgresql import Connection, Database
from sidecar import PatSync, once
from store import Store

FAST = ("--usage-interval", "0.1", "--edge", "e1")


HTTP = """
    auth_pat_zone pat:10m;
    server {
        listen 127.0.0.1:PORT;
        listen unix:FOLDER/socket;
        auth_pat api;
        auth_pat_store STORE;
        location / { empty_gif; }
    }
    server {
        listen 127.0.0.1:PORT2;
        location = /usage {
            allow 127.0.0.1;
            deny all;
            auth_pat_store STORE;
            auth_pat_usage;
        }
        location = /denied { deny all; auth_pat_store STORE; auth_pat_usage; }
        location = /guarded { auth_pat api; auth_pat_store STORE; auth_pat_usage; }
        location = /page { empty_gif; }
    }
"""


class Site(Nginx):
    """A server that requires tokens, and the one from docs/pat-sync.md that reports last use."""

    def __init__(self, folder: Path, store: Path) -> None:
        super().__init__(folder, HTTP, workers=2, STORE=store)

    def replace_workers(self) -> None:
        """Reload, and wait until the old workers are gone."""
        before = self.reload()
        wait_until(lambda: not set(before) & set(self.workers()), "the old workers end")

    def get(self, token: str, address: str = "127.0.0.1") -> int:
        """The status of a request on a new connection."""
        with closing(
            http.client.HTTPConnection("127.0.0.1", self.port, DEADLINE, source_address=(address, 0))
        ) as client:
            return self._get(client, token)

    def get_by_socket(self, token: str) -> int:
        with closing(http.client.HTTPConnection("localhost")) as client:
            client.sock = socket.socket(socket.AF_UNIX)
            client.sock.connect(f"{self.folder}/socket")
            return self._get(client, token)

    @staticmethod
    def _get(client: http.client.HTTPConnection, token: str) -> int:
        client.request("GET", "/", headers={"Authorization": f"Bearer {token}"})
        answer = client.getresponse()
        answer.read()
        return answer.status

    def usage_url(self, path: str = "/usage") -> str:
        return f"http://127.0.0.1:{self.port2}{path}"


class Edge:
    """The whole chain, with the clients' tokens and a record of their use."""

    def __init__(self, database: Database, store: Store, nginx: Site, owner: Connection) -> None:
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
                "--usage-url", self.nginx.usage_url(), *FAST, *more]  # fmt: skip

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
def edge(database: Database, store: Store, tmp_path: Path) -> Iterator[Edge]:
    with database.connect() as owner, Site(tmp_path / "nginx", store.folder) as nginx:
        yield Edge(database, store, nginx, owner)


@contextmanager
def clients(edge: Edge, tokens: list[tuple[str, str]], count: int = 3) -> Iterator[None]:
    """Clients that use the tokens until the end of the context."""
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
                edge.nginx.replace_workers()
                time.sleep(0.05 * life)
                # At whatever it is doing.
                sync.kill()
                edge.nginx.replace_workers()
    with PatSync(*edge.arguments()):
        with clients(edge, tokens):
            edge.nginx.replace_workers()
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
    """More uses than fit into one batch."""
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
        ("/denied", "it answers 403 Forbidden: does its location allow this host's address, and require no token?"),
        ("/guarded", "it answers 401 Unauthorized: does its location allow this host's address"),
        ("/nowhere", "it answers 404 Not Found: is the URL right, and does its location have auth_pat_usage?"),
        ("/page", 'its Content-Type is "image/gif", not application/x-ndjson: does its location have auth_pat_usage?'),
    ],
)
def test_a_location_that_tells_nothing_is_told(path: str, cause: str, edge: Edge) -> None:
    done = once(*edge.arguments("--usage-url", edge.nginx.usage_url(path)))
    assert done.returncode == 0
    assert cause in done.stderr.splitlines()[-1]


def test_a_cursor_that_nginx_can_not_have_given_is_told(edge: Edge) -> None:
    with edge.database.connect("edge") as login:
        login.execute("SELECT pat.record_use('e1', %s, '[]')", (1 << 60,))
    done = once(*edge.arguments())
    assert "it answers 400 Bad Request: nginx does not accept this edge's last batch as a cursor" in done.stderr
    assert "use was not reported" not in once(*edge.arguments("--edge", "e2")).stderr
