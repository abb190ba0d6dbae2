"""Each allocation of nginx fails in turn, those of the module and of LMDB too, while it serves a request or reloads. What
follows is a refusal, or the old configuration goes on: never a yes to a bad token, and never the end of a process."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import socket
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from basics import DEADLINE, NGINX, temporary_folder, wait_until
from failing import Failing
from nginx import Nginx
from store import Issued, Store

SECRET = "for those with a good token"

TOKENS = {
    "good": '"scopes":["read","write"],"claims":{"plan":"pro"},"expires_at":4000000000',
    "revoked": '"revoked_at":1600000000',
    "expired": '"expires_at":1600000000',
    "early": '"not_before":4000000000',
    "remote": '"cidrs":["192.0.2.0/24"]',
    "narrow": '"scopes":["read"]',
}

CONFIGURATION = """
    log_format all "$uri $status $auth_pat_status $auth_pat_id $auth_pat_subject $auth_pat_name $auth_pat_scope "
        "$auth_pat_expires $auth_pat_expires_in $auth_pat_claim_plan $auth_pat_store_age";
    auth_pat_zone pat:1m;
    map $arg_realm $realm { default API; other "of $arg_realm"; }
    map $arg_scope $all_scopes { default "read $arg_scope"; }
    map $arg_token $any_token { default "$arg_token"; }
    server {
        listen 127.0.0.1:PORT;
        access_log FOLDER/access.log all;
        auth_pat $realm;
        auth_pat_store STORE;
        root FOLDER/html;

        location /guarded { }
        location /scope { auth_pat_require_scope read write; try_files /guarded =500; }
        location /by-argument { auth_pat_require_scope $arg_scope; try_files /guarded =500; }
        location /by-map { auth_pat_require_scope $all_scopes; try_files /guarded =500; }
        location /require { auth_pat_require $arg_yes error=402; try_files /guarded =500; }
        location /token { auth_pat API token=$arg_token; try_files /guarded =500; }
        location /basic { auth_pat API scheme=basic user=robot; try_files /guarded =500; }
        location /sources {
            auth_pat API scheme=bearer,basic,token header=X-API-Key header=Private-Token token=$arg_token;
            try_files /guarded =500;
        }
        location /optional { auth_pat_optional on; try_files /guarded =500; }
        location /optional-map { auth_pat API token=$any_token; auth_pat_optional on; try_files /guarded =500; }
        location /fresh { auth_pat_max_age 1h; try_files /guarded =500; }
        location /open { auth_pat_fail_open on; try_files /guarded =500; }
        location /early { set $early "$auth_pat_subject"; add_header X-Early $early; try_files /guarded =500; }
        location /try { try_files /nowhere @named; }
        location @named { try_files /guarded =500; }
        location /recheck { auth_pat_recheck 1s; try_files /guarded =500; }
        location /long { auth_pat_recheck 100ms; limit_rate 100k; }
        location /error-page { error_page 401 403 503 /refused; try_files /guarded =500; }
        location /refused { auth_pat off; try_files /nowhere =418; }
        location /error-named { error_page 401 403 503 = @refused; try_files /guarded =500; }
        location @refused { auth_pat off; try_files /nowhere =418; }
        location /any { satisfy any; deny all; try_files /guarded =500; }
        location /header { add_header X-Id "$auth_pat_id $auth_pat_claim_plan" always; try_files /guarded =500; }
        location /dry { auth_pat_dry_run on; try_files /nowhere =204; }
        location /status { auth_pat off; auth_pat_status; }
        location /usage { auth_pat off; auth_pat_usage; }
    }
"""


class Request(NamedTuple):
    """`status` is that of the answer where there is memory enough. A status below 400 tells nobody the secret."""

    path: str
    token: str
    status: int
    accept: str = "*/*"
    source: str = "Authorization: Bearer"

    def __str__(self) -> str:
        return f"{self.path} {self.token or 'no token'} {self.accept} {self.source}"

    def credential(self) -> str:
        """The line of the head that has the token, if there is one."""
        if not self.token:
            return ""
        token = _token(self.token)
        value = b64encode(f"robot:{token}".encode()).decode() if self.source.endswith("Basic") else token
        return f"{self.source} {value}\r\n"


REQUESTS = [
    Request("/guarded", "good", 200),
    Request("/guarded", "", 401),
    Request("/guarded", "unknown", 401),
    Request("/guarded", "malformed", 401),
    Request("/guarded", "revoked", 401),
    Request("/guarded", "expired", 401),
    Request("/guarded", "early", 401),
    Request("/guarded", "remote", 403),
    Request("/guarded?realm=other", "good", 200),
    Request("/guarded?realm=other", "revoked", 401),
    Request("/scope", "good", 200),
    Request("/scope", "narrow", 403),
    Request("/by-argument?scope=write", "good", 200),
    Request("/by-argument?scope=write", "narrow", 403),
    Request("/by-map?scope=write", "good", 200),
    Request("/by-map?scope=write", "narrow", 403),
    Request("/require?yes=1", "good", 200),
    Request("/require", "good", 402),
    Request("/token?token=TOKEN", "good", 200),
    Request("/token?token=TOKEN", "revoked", 401),
    Request("/basic", "good", 200, source="Authorization: Basic"),
    Request("/basic", "revoked", 401, source="Authorization: Basic"),
    Request("/basic", "malformed", 401, source="Authorization: Basic"),
    Request("/basic", "", 401),
    *(
        Request("/sources", token, status, source=source)
        for source in ("Authorization: Bearer", "Authorization: Basic", "Authorization: token", "Private-Token:")
        for token, status in (("good", 200), ("revoked", 401), ("remote", 403))
    ),
    Request("/sources?token=TOKEN", "good", 401),
    Request("/sources", "", 401),
    Request("/optional", "good", 200),
    Request("/optional", "", 200),
    Request("/optional", "revoked", 401),
    Request("/optional-map?token=TOKEN", "good", 200),
    Request("/optional-map?token=TOKEN", "", 200),
    Request("/optional-map?token=TOKEN", "revoked", 401),
    Request("/fresh", "good", 503),
    Request("/open", "good", 200),
    Request("/open", "unknown", 401),
    Request("/open", "revoked", 401),
    Request("/early", "good", 200),
    Request("/early", "revoked", 401),
    Request("/try", "good", 200),
    Request("/try", "revoked", 401),
    Request("/recheck", "good", 200),
    Request("/recheck", "revoked", 401),
    Request("/error-page", "revoked", 418),
    Request("/error-named", "revoked", 418),
    Request("/any", "good", 200),
    Request("/any", "revoked", 401),
    Request("/header", "good", 200),
    Request("/header", "narrow", 200),
    Request("/header", "revoked", 401),
    Request("/dry", "good", 204),
    Request("/dry", "revoked", 204),
    Request("/status", "", 200, "application/json"),
    Request("/status", "", 200, "text/plain"),
    Request("/status", "", 200, "text/html"),
    Request("/usage?after=0", "", 200),
]


GOOD = Request("/guarded", "good", 200)
AFTER_RELOAD = (
    Request("/guarded", "revoked", 401),
    Request("/guarded", "unknown", 401),
    Request("/scope", "narrow", 403),
    GOOD,
)


class Site:
    """An nginx, and what makes its allocations fail."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "store")
        lines = [f'{{"token":"{_token(name)}","id":"id-{name}","subject":"alice",{more}}}' for name, more in TOKENS.items()]
        self.store.patctl("import", "--plaintext", "--strict", "-", input="\n".join(lines))
        self.failing = Failing(folder / "orders", NGINX)
        os.environ["FAIL_ALLOCATIONS"] = str(folder / "orders")
        self.nginx = Nginx(folder, CONFIGURATION, STORE=self.store.folder)
        (folder / "html" / "guarded").write_text(SECRET)
        (folder / "html" / "long").write_bytes(bytes(10_000_000))

    def reload(self, http: str = CONFIGURATION) -> str:
        """Has the master reload, which may give up, and returns what is logged meanwhile."""
        nginx = self.nginx
        nginx.configure(http)
        begin = len(nginx.error_log())
        before = nginx.workers()

        def said() -> str:
            assert nginx.process.poll() is None, (self.where(), nginx.error_log()[begin:])
            return nginx.error_log()[begin:]

        nginx.process.send_signal(signal.SIGHUP)
        wait_until(lambda: ": reconfiguring" in said(), "nginx begins to reload")

        def is_over() -> bool:
            # Which the master does when it has reloaded, or has given up.
            nginx.process.send_signal(signal.SIGUSR1)
            return ": reopening logs" in said()

        wait_until(is_over, lambda: (self.where(), said()))
        if "start worker processes" in said():
            wait_until(
                lambda: len(nginx.workers()) == 1 and nginx.workers() != before, lambda: (self.where(), said())
            )
        return said()

    def check(self) -> None:
        """It serves as before, as soon as a worker that had no memory to open the store with has tried again."""

        def serves(request: Request) -> bool:
            status = self.ask(request)[0]
            assert status in (request.status, 503), (request, self.where())
            return status == request.status

        for request in AFTER_RELOAD:
            wait_until(partial(serves, request), lambda: (request, self.where()))

    def ask(self, request: Request) -> tuple[int, str]:
        """The status of the answer, or 0 if there is none, and the whole of it."""
        path = request.path.replace("TOKEN", _token(request.token) if request.token else "")
        head = f"GET {path} HTTP/1.1\r\nHost: test\r\nAccept: {request.accept}\r\nConnection: close\r\n{request.credential()}\r\n"
        answer = b""
        with socket.create_connection(("127.0.0.1", self.nginx.port), DEADLINE) as client:
            try:
                client.sendall(head.encode())
                while part := client.recv(65536):
                    answer += part
            except (ConnectionResetError, BrokenPipeError):
                pass
        found = re.match(rb"HTTP/1\.1 (\d+) ", answer)
        return (int(found[1]) if found else 0), answer.decode()

    def where(self) -> str:
        return f"the allocation that fails: {self.failing.calls()}"

    def fail_each(
        self, process: Callable[[], int], act: Callable[[], object], check: Callable[[], None] | None = None
    ) -> int:
        """Acts until no allocation of that process is left that could fail, and checks what that has left behind. Returns
        how many there are."""
        most = 0
        for and_later in (False, True):
            number = 0
            while number == 0 or self.failing.has_failed:
                number += 1
                with self.failing.allocation(number, process=process(), and_later=and_later):
                    act()
                if check:
                    check()
            most = max(most, number - 1)
        return most


def _token(name: str) -> str:
    return "!" if name == "malformed" else f"the-token-of-{name}-00001"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with temporary_folder() as folder:
        made = Site(folder)
        with made.nginx:
            yield made


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_a_request_is_refused_or_answered_as_ever(site: Site, request_: Request) -> None:
    status, whole = site.ask(request_)
    assert status == request_.status, whole
    gets_in = SECRET in whole
    (worker,) = site.nginx.workers()

    def act() -> None:
        status, answer = site.ask(request_)
        assert status in (0, request_.status) or status >= 400, f"{answer}; {site.where()}"
        assert gets_in or SECRET not in answer, f"{answer}; {site.where()}"
        assert site.nginx.workers() == [worker], site.where()

    assert site.fail_each(lambda: worker, act) > 20
    assert site.ask(request_)[0] == request_.status


@pytest.mark.parametrize("in_master", [True, False], ids=["in the master", "in what it starts"])
def test_a_reload_fails_or_is_complete(site: Site, in_master: bool) -> None:
    """What nginx allocates itself is left alone: it crashes where that fails (1.22 in ngx_regex_cleanup), and workers end."""
    master = site.nginx.process.pid
    site.failing.only("pat::")
    assert site.fail_each(lambda: master if in_master else -master, site.reload, site.check) > 10
    site.failing.all()


@pytest.mark.parametrize("is_new", [True, False], ids=["a new zone", "a new server in a zone that there is"])
def test_a_zone_has_no_memory_left(site: Site, is_new: bool) -> None:
    """nginx's slab allocator has none."""
    reloads = itertools.count(1)
    logged = ""

    def act() -> None:
        nonlocal logged
        number = next(reloads)
        if is_new:
            logged = site.reload(CONFIGURATION.replace("pat:1m", f"pat:{1024 + 4 * number}k"))
        else:
            logged = site.reload(f"{CONFIGURATION} server {{ listen 127.0.0.1:PORT; server_name of-{number}; }}")

    def check() -> None:
        has_failed = site.failing.has_failed
        assert ("start worker processes" in logged) == (not is_new or not has_failed), logged
        refusal = "is too small for" if is_new else "has no room for 1 more servers or stores"
        assert (refusal in logged) == has_failed, logged
        site.check()
        let_in = site.nginx.status()["requests"]["ok"]
        assert site.ask(GOOD)[0] == 200
        wait_until(lambda: site.nginx.status()["requests"]["ok"] > let_in, "it is counted")

    site.failing.only("init_zone")
    assert site.fail_each(lambda: site.nginx.process.pid, act, check) >= (4 if is_new else 1)
    site.failing.all()
    site.reload()


@pytest.mark.parametrize("functions", [("check_due",), ()], ids=["in the recheck", "anywhere"])
def test_a_request_is_cut_when_its_token_is_revoked(site: Site, functions: tuple[str, ...]) -> None:
    """A recheck itself allocates nothing; what ends the request does."""
    (worker,) = site.nginx.workers()
    connection: socket.socket
    issued: Issued

    def act() -> None:
        """Between the rechecks before and after the revocation, and in them."""
        site.store.revoke(issued)
        deadline = time.monotonic() + DEADLINE
        try:
            while connection.recv(65536):
                assert time.monotonic() < deadline, site.where()
        except ConnectionResetError:
            pass
        assert site.nginx.workers() == [worker], site.where()

    def begin() -> int:
        nonlocal connection, issued
        issued = site.store.issue("--subject", "alice")
        connection = socket.create_connection(("127.0.0.1", site.nginx.port), DEADLINE)
        connection.sendall(f"GET /long HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {issued.token}\r\n\r\n".encode())
        assert connection.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
        return worker

    if functions:
        site.failing.only(*functions)
    assert site.fail_each(begin, act, lambda: connection.close()) > 0
    site.failing.all()
