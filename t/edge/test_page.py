"""The page of auth_pat_status in a real browser, served by the real module, which counts real requests.

With AUTH_PAT_SCREENSHOTS=folder, pictures of it are left there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from authority import Authority
from basics import DEADLINE, VERSION, wait_until
from nginx import Nginx, quote
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from store import Issued, Store
from transport import Site

# All of them share one browser.
pytestmark = pytest.mark.xdist_group("chromium")

SCREENSHOTS = os.environ.get("AUTH_PAT_SCREENSHOTS")

REASONS = ("missing", "malformed", "unknown", "revoked", "expired", "not_yet_valid", "address_denied", "scope_denied",
           "require_denied", "stale", "store_error")
PASSES = ("ok", "anonymous", "preflight", "fail_open")

API = "api.example.com"
UPLOAD = "upload.example.com"
UNKNOWN = Issued("x" * 40, "")

Record = dict[str, Any]
Table = dict[str, dict[str, str]]


class Browser:
    """Chromium with one tab. What selenium does not say the types of is here."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                     "--disable-background-networking", "--disable-component-update", "--disable-sync",
                     "--disable-dev-shm-usage", f"--user-data-dir={profile}"):
            options.add_argument(flag)  # type: ignore[no-untyped-call]
        options.accept_insecure_certs = True  # which no authority of the system has signed
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)  # type: ignore[no-untyped-call]

    def tell(self, command: str, **parameters: object) -> Any:
        return self.driver.execute_cdp_cmd(command, parameters)

    def log(self, name: str) -> list[Record]:
        """What was logged since the last time."""
        entries: list[Record] = self.driver.get_log(name)  # type: ignore[no-untyped-call]
        return entries

    def open(self, nginx: Nginx, *, url: str = "", width: int = 1440, scheme: str = "light") -> None:
        for name in ("browser", "performance"):
            self.log(name)
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.driver.get(url or page_of(nginx))
        # Gone when the page is loaded again.
        self.run("window.stays = true")

    def close(self) -> None:
        self.driver.quit()

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.log("browser")]

    def requested(self) -> set[str]:
        """The addresses that were asked for since the page was opened."""
        messages = (json.loads(entry["message"])["message"] for entry in self.log("performance"))
        return {message["params"]["request"]["url"] for message in messages
                if message["method"] == "Network.requestWillBeSent"}

    def text(self, selector: str) -> str:
        """What is to be seen of an element, in one line; empty if nothing is."""
        found: str = self.run("""
            const element = document.querySelector(arguments[0]);
            return element?.checkVisibility() ? element.innerText : ''""", selector)
        return " ".join(found.split())

    def texts(self, selector: str) -> list[str]:
        found: list[str] = self.run(
            "return Array.from(document.querySelectorAll(arguments[0]), one => one.innerText)", selector)
        return [" ".join(text.split()) for text in found]

    def table(self, selector: str) -> Table:
        """The cells of a table by the first words of their row and the title of their column."""
        heads, rows = self.run("""
            const table = document.querySelector(arguments[0]);
            return [Array.from(table.tHead.rows[0].cells, cell => cell.innerText.replaceAll('\u200b', '')),
                    Array.from(table.querySelectorAll('tbody tr'), row =>
                        Array.from(row.cells, cell => (cell.querySelector('code') ?? cell).innerText))]""", selector)
        return {row[0]: dict(zip(heads[1:], row[1:])) for row in rows}

    def figures(self) -> dict[str, str]:
        """The large figures, each with the small print below it."""
        found: list[list[str]] = self.run("""
            return Array.from(document.querySelectorAll('#figures > div'),
                              one => [one.querySelector('dt').innerText,
                                      Array.from(one.querySelectorAll('dd'), value => value.innerText).join(', ')])""")
        return {name: " ".join(value.split()) for name, value in found}

    def wait_for_text(self, selector: str, part: str) -> None:
        wait_until(lambda: part in self.text(selector), lambda: f'"{part}" in "{self.text(selector)}"')

    def picture(self, name: str) -> None:
        if SCREENSHOTS is None:
            return
        folder = Path(SCREENSHOTS)
        folder.mkdir(parents=True, exist_ok=True)
        taken = self.tell("Page.captureScreenshot", captureBeyondViewport=True)
        (folder / f"{name}.png").write_bytes(base64.b64decode(taken["data"]))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with tempfile.TemporaryDirectory(prefix="auth-pat-chromium-") as profile:
        made = Browser(Path(profile))
        yield made
        made.close()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    yield chromium
    # So that it asks no nginx any more.
    chromium.driver.get("about:blank")


def page_of(nginx: Nginx) -> str:
    return f"{nginx.url}/status"


def with_page(servers: str, *, zone: str = "auth_pat_zone pat:1m;", status: str = "") -> str:
    """The configuration of an nginx with a page, where `status` stands before auth_pat_status, and of other servers."""
    return f"""
        server_names_hash_bucket_size 256;
        {zone}
        server {{
            listen 127.0.0.1:PORT default_server;
            server_name status.example.com;
            location = /status {{ {status} auth_pat_status; }}
        }}
        {servers}"""


def servers_for(store: Store, upstream: int = 9) -> str:
    """A server with a location for each reason to refuse a request, and for each to let one in."""
    absent = store.folder.parent / "absent"
    return f"""
        server {{
            listen 127.0.0.1:PORT;
            server_name {API};
            auth_pat api;
            auth_pat_store {quote(store.folder)};
            set $never 0;

            location = /token {{ try_files /nowhere =204; }}
            location = /scope {{ auth_pat_require_scope admin; try_files /nowhere =204; }}
            location = /require {{ auth_pat_require $never; try_files /nowhere =204; }}
            location = /fresh {{ auth_pat_max_age 1m; try_files /nowhere =204; }}
            location = /absent {{ auth_pat_store {absent}; try_files /nowhere =204; }}
            location = /preflight {{ auth_pat_preflight pass; try_files /nowhere =204; }}
            location = /optional {{ auth_pat_optional on; try_files /nowhere =204; }}
            location = /dry-run {{ auth_pat_dry_run on; auth_pat_require_scope admin; try_files /nowhere =204; }}
            location = /fail-open {{ auth_pat_fail_open on; auth_pat_store {absent}; try_files /nowhere =204; }}
            location = /long {{ auth_pat_recheck 100ms; proxy_pass http://127.0.0.1:{upstream}; }}
        }}
        server {{
            listen 127.0.0.1:PORT;
            server_name {UPLOAD};
            auth_pat upload;
            auth_pat_store {quote(store.folder)};
            location = /token {{ try_files /nowhere =204; }}
        }}"""


def one_server(store: Store, directives: str = "") -> str:
    return f"""server {{ listen 127.0.0.1:PORT; server_name {API};
               location / {{ auth_pat a; auth_pat_store {quote(store.folder)}; {directives} }} }}"""


FAILS_OPEN = "auth_pat_fail_open on; auth_pat_max_age 1m; try_files /nowhere =204;"


@pytest.fixture
def nginx(folder: Path, store: Store) -> Iterator[Nginx]:
    with Nginx(folder, with_page(servers_for(store))) as started:
        yield started


def start_again(nginx: Nginx, store: Store, status: str) -> None:
    """With something else before auth_pat_status."""
    nginx.stop()
    nginx.configure(with_page(servers_for(store), status=status))
    nginx.start()


def expired(store: Store) -> Issued:
    """A token that has expired, which patctl does not issue."""
    token = f"a-token-of-{random.SystemRandom().randrange(10**12)}"
    record = {"digest": hashlib.sha256(token.encode()).hexdigest(), "id": token[-12:], "subject": "user:1",
              "expires_at": int(time.time()) - 60}
    store.patctl("import", "--strict", "-", input=json.dumps(record))
    return Issued(token, token[-12:])


@contextmanager
def request_without_end(nginx: Nginx, token: Issued) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", nginx.port), DEADLINE) as client:
        head = f"GET /long HTTP/1.1\r\nHost: {API}\r\nAuthorization: Bearer {token.token}\r\n\r\n"
        client.sendall(head.encode())
        yield client


def refuse_for_every_reason(nginx: Nginx, store: Store) -> dict[str, int]:
    """Makes requests that are refused, and how many of which."""
    good = store.issue()
    revoked = store.issue()
    store.revoke(revoked)
    tomorrow = str(int(time.time()) + 86400)
    early = store.issue("--subject", "alice", "--not-before", tomorrow)
    elsewhere = store.issue("--subject", "alice", "--cidr", "192.0.2.0/24")

    assert nginx.request("/token", API, times=13) == 401
    assert nginx.request("/token", API, headers={"Authorization": "Bearer not/a token"}, times=2) == 401
    assert nginx.request("/token", API, headers=UNKNOWN.header, times=7) == 401
    assert nginx.request("/token", API, headers=revoked.header, times=4) == 401
    assert nginx.request("/token", API, headers=expired(store).header, times=5) == 401
    assert nginx.request("/token", API, headers=early.header, times=1) == 401
    assert nginx.request("/token", API, headers=elsewhere.header, times=3) == 403
    assert nginx.request("/scope", API, headers=good.header, times=6) == 403
    assert nginx.request("/require", API, headers=good.header, times=8) == 403
    assert nginx.request("/fresh", API, headers=good.header, times=9) == 503
    assert nginx.request("/absent", API, headers=good.header, times=10) == 503
    return dict(zip(REASONS, (13, 2, 7, 4, 5, 1, 3, 6, 8, 9, 10)))


def seconds_of(age: str) -> int:
    """Of "100 s ago" or "3 min 20 s ago"."""
    match = re.fullmatch(r"(?:(\d+) min )?(?:(\d+) s )?ago", age)
    assert match, age
    return 60 * int(match[1] or 0) + int(match[2] or 0)


def number(count: int) -> str:
    return f"{count:,}"


def status_rows(status: Record) -> Table:
    """What the table of statuses should be, where nothing failed open."""
    history = {**status["history"]["requests"], "fail_open": status["history"]["fail_open"]}
    requests = {**status["requests"], "fail_open": status["fail_open"]}
    with_dry_run = any(status["dry_run"].values())
    with_closed = any(status["closed"].values())

    def row(names: tuple[str, ...]) -> dict[str, str]:
        cells = {
            "Trend": "",
            "1 min": number(sum(sum(history[name][-6:]) for name in names)),
            "15 min": number(sum(sum(history[name]) for name in names)),
            "Total": number(sum(requests[name] for name in names)),
        }
        if with_dry_run:
            cells["Dry run"] = number(sum(status["dry_run"].get(name, 0) for name in names))
        if with_closed:
            cells["Closed"] = number(sum(status["closed"].get(name, 0) for name in names))
        return cells

    return {"Refused": row(REASONS), **{name: row((name,)) for name in REASONS},
            "Let in": row(PASSES), **{name: row((name,)) for name in PASSES}}


def test_its_numbers_are_those_of_the_json(browser: Browser, folder: Path, store: Store) -> None:
    with ExitStack() as stack:
        upstream = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        nginx = stack.enter_context(Nginx(folder, with_page(servers_for(store, upstream.getsockname()[1]))))

        good, other = store.issue(), store.issue()
        refused = refuse_for_every_reason(nginx, store)
        nginx.request("/token", API, headers=good.header, times=1234)
        nginx.request("/token", UPLOAD, headers=other.header, times=17)
        nginx.request("/token", UPLOAD, times=2)
        nginx.request("/optional", API, times=11)
        nginx.request("/preflight", API, method="OPTIONS", times=12,
                     headers={"Origin": "https://example.com", "Access-Control-Request-Method": "PUT"})
        assert nginx.request("/dry-run", API, times=3) == 204
        assert nginx.request("/dry-run", API, headers=good.header, times=4) == 204
        doomed = store.issue()
        client = stack.enter_context(request_without_end(nginx, doomed))
        nginx.counted(ok=1234 + 17 + 1)
        store.revoke(doomed)
        assert client.recv(1) == b""
        wait_until(lambda: nginx.status()["closed"]["revoked"] == 1, "the request was closed")
        nginx.counted(**{**refused, "missing": 13 + 2, "ok": 1252, "anonymous": 11, "preflight": 12})
        status = nginx.status()
        assert (status["dry_run"]["missing"], status["dry_run"]["scope_denied"]) == (3, 4)

        browser.open(nginx)
        assert f" · auth_pat {VERSION} · nginx " in browser.text("#about")
        # The last minute may go by in between.
        wait_until(lambda: browser.table("#statuses") == status_rows(nginx.status()),
                   lambda: (browser.table("#statuses"), status_rows(nginx.status())))

        servers = browser.table("#servers")
        assert servers[API] == {
            "Share refused": f"{100 * 68 / (68 + 1234 + 1 + 11 + 12):.1f} %", "Let in": "1,258", "Refused": "68",
            **{name: number(count) for name, count in refused.items()}, "Dry run": "7", "Closed": "1"}
        assert {name: text for name, text in servers[UPLOAD].items() if text != "0"} == {
            "Share refused": "11 %", "Let in": "17", "Refused": "2", "missing": "2"}
        assert set(servers) == {server["name"] for server in status["servers"]}

        tokens = browser.table("#tokens")
        assert list(tokens) == [token["id"] for token in status["tokens"]["top"]]
        assert list(tokens)[:2] == [good.id, other.id]
        assert (tokens[good.id]["Uses"], tokens[good.id]["From"]) == ("1,234", "127.0.0.1")
        assert seconds_of(tokens[good.id]["Last used"]) >= 0
        assert browser.text("#tokens caption") == (
            f"{status['tokens']['known']} tokens remembered, of at most {number(status['tokens']['capacity'])}")

        legend = browser.texts("#legend li")
        all_refused = sum(refused.values()) + 2
        assert legend == [
            *(f"{name} {count} ({float(f'{100 * count / all_refused:.1f}'):g} %)"
              if 100 * count / all_refused < 10 else f"{name} {count} ({round(100 * count / all_refused)} %)"
              for name, count in {**refused, "missing": 15}.items()),
            "missing, dry run 3", "scope_denied, dry run 4"]
        assert f"{all_refused} requests refused, 1,275 let in" in browser.run(
            "return document.querySelector('#charts svg').getAttribute('aria-label')")

        found = next(one for one in status["stores"] if one["path"] == str(store.folder))
        words = browser.texts(".store")[[one["path"] for one in status["stores"]].index(str(store.folder))]
        assert words == (f"{store.folder} ready Heartbeat none Transaction {found['transaction']}"
                         f" Tokens {found['tokens']} Readers {found['readers']} of {number(found['max_readers'])}"
                         f" Revoked {found['revoked']} Map {found['used_bytes'] // 1024} KiB of 32 GiB")
        assert (found["revoked"], found["open"]) == (2, True)

        figures = browser.figures()
        assert figures["Stores open"] == "1 of 2, without a source"
        assert figures["Let in by fail-open"].startswith("0, since ")

        for scheme in ("light", "dark"):
            browser.open(nginx, scheme=scheme)
            browser.picture(scheme)
        browser.open(nginx, width=360)
        browser.picture("narrow")


def test_its_figures_tell_how_much_is_refused_in_the_last_minute(browser: Browser, nginx: Nginx, store: Store) -> None:
    token = store.issue()
    nginx.request("/token", API, headers=token.header, times=150)
    nginx.request("/token", API, headers=UNKNOWN.header, times=30)
    nginx.request("/token", API, times=20)
    nginx.counted(ok=150, unknown=30, missing=20)
    browser.open(nginx)
    figures = browser.figures()
    # Between 50 and 60 seconds were counted.
    rate, *small = figures["Refused, last minute"].split(", ")
    assert small == ["50", "25 % of requests; most: unknown"]
    assert rate in {f"{round(60 * 50 / seconds)}/min" for seconds in range(51, 61)}
    rate, *small = figures["Let in, last minute"].split(", ")
    assert small == ["150 requests"]
    assert rate in {f"{150 / seconds:.1f}/s" for seconds in range(51, 61)}


def test_nothing_but_itself_is_asked_for_and_nothing_is_complained_about(browser: Browser, nginx: Nginx) -> None:
    nginx.request("/token", API, times=3)
    browser.open(nginx)
    nginx.request("/token", API, times=3)
    nginx.counted(missing=6)
    wait_until(lambda: browser.table("#statuses")["missing"]["Total"] == "6", "the page is up to date")
    assert browser.requested() == {page_of(nginx)}
    assert browser.complaints() == []


def test_its_policy_is_strict_and_holds(browser: Browser, nginx: Nginx) -> None:
    answer = httpx.get(page_of(nginx), headers={"Accept": "text/html"})
    headers, page = answer.headers, answer.text

    def hash_of(element: str) -> str:
        contents = page.split(f"<{element}>")[1].split(f"</{element}>")[0]
        return f"'sha256-{base64.b64encode(hashlib.sha256(contents.encode()).digest()).decode()}'"

    assert headers["Content-Type"].startswith("text/html")
    assert headers["Cache-Control"] == "no-store"
    assert dict(part.split(maxsplit=1) for part in headers["Content-Security-Policy"].split("; ")) == {
        "default-src": "'none'", "style-src": hash_of("style"), "script-src": hash_of("script"),
        "connect-src": "'self'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'"}

    browser.open(nginx)
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        address = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/"
        browser.run("""
            window.broken = [];
            addEventListener('securitypolicyviolation', event => broken.push(event.effectiveDirective));
            const add = (name, properties) =>
                document.body.append(Object.assign(document.createElement(name), properties));
            add('script', { textContent: 'window.hacked = true' });
            add('script', { src: arguments[0] });
            add('style', { textContent: 'body { display: none }' });
            add('img', { src: arguments[0] });
            add('iframe', { src: arguments[0] });
            document.body.setAttribute('style', 'display: none');
            document.body.setAttribute('onclick', 'window.hacked = true');
            document.body.click();
            fetch(arguments[0]).catch(() => {});
            """, address)
        expected = {"script-src-elem", "script-src-attr", "style-src-elem", "style-src-attr", "img-src", "frame-src",
                    "connect-src"}
        wait_until(lambda: set(browser.run("return broken")) == expected, lambda: browser.run("return broken"))
        assert browser.run("return window.hacked") is None
        assert browser.run("return getComputedStyle(document.body).display") == "block"


def test_it_updates_itself_without_being_loaded_again(browser: Browser, nginx: Nginx, store: Store) -> None:
    token = store.issue()
    browser.open(nginx)
    assert browser.table("#statuses")["ok"]["Total"] == "0"
    assert browser.text("#tokens caption").startswith("No token was used since ")

    nginx.request("/token", API, headers=token.header, times=5)
    wait_until(lambda: browser.table("#statuses")["ok"]["Total"] == "5", "5 requests are shown")
    assert browser.table("#tokens")[token.id]["Uses"] == "5"
    nginx.request("/token", API, headers=UNKNOWN.header, times=4)
    wait_until(lambda: browser.texts("#legend li") == ["unknown 4 (100 %)"], "the refusals are shown")
    assert browser.run("return window.stays")


def test_it_updates_itself_over_tls(browser: Browser, folder: Path, store: Store, authority: Authority) -> None:
    servers = f"""
        log_format test '$server_protocol $request_uri $status';
        {servers_for(store)}
        server {{ LISTEN server_name tls.example.com; location = /status {{ auth_pat_status; }} }}"""
    token = store.issue()
    with Site(folder, with_page(servers), authority, access_log=f"{folder}/access.log test") as nginx:
        url = f"https://127.0.0.1:{nginx.tls_port}/status"
        browser.open(nginx, url=url)
        nginx.request("/token", API, headers=token.header, times=5)
        wait_until(lambda: browser.table("#statuses")["ok"]["Total"] == "5", "5 requests are shown")
        assert browser.requested() == {url}
        assert browser.complaints() == []
        nginx.accessed("HTTP/2.0 /status 200")


def test_what_is_selected_and_focused_stays_so(browser: Browser, nginx: Nginx, store: Store) -> None:
    token = store.issue()
    nginx.request("/token", API, headers=token.header)
    nginx.counted(ok=1)
    browser.open(nginx)
    browser.run("""
        getSelection().selectAllChildren(document.querySelector('#tokens .id'));
        document.querySelector('#by-server .wide').focus();""")
    nginx.request("/token", API, headers=token.header)
    wait_until(lambda: browser.table("#tokens")[token.id]["Uses"] == "2", "the use is shown")
    assert browser.run("return String(getSelection())") == token.id
    assert browser.run("return document.activeElement.className") == "wide"


def test_it_is_loaded_again_when_nginx_has_another_version_of_it(browser: Browser, nginx: Nginx, store: Store) -> None:
    browser.open(nginx)
    start_again(nginx, store, """sub_filter "'use strict'" "'use  strict'";""")
    wait_until(lambda: browser.run("return window.stays") is None, "the page was loaded again")


def test_it_shows_a_store_that_becomes_unreadable_and_recovers(browser: Browser, folder: Path, store: Store) -> None:
    with Nginx(folder, with_page(one_server(store))) as nginx:
        browser.open(nginx)
        browser.wait_for_text("#verdict", "The store is open")
        assert browser.run("return document.querySelector('#headline').dataset.level") == "ok"

        store.folder.rename(folder / "aside")
        browser.wait_for_text("#verdict", "The store can’t be read")
        problem = nginx.status()["stores"][0]["problem"]
        assert browser.text("#problems") == f"{store.folder}: {problem}"
        assert browser.text(".store") == f"{store.folder} can’t be read {problem}"
        assert browser.figures()["Stores open"].startswith("0 of 1")
        assert browser.run("return document.querySelector('#headline').dataset.level") == "bad"
        assert browser.run("return document.title").startswith("✕ ")

        (folder / "aside").rename(store.folder)
        browser.wait_for_text("#verdict", "The store is open")
        assert "Tokens 0" in browser.text(".store")
        assert not browser.run("return document.title").startswith("✕ ")


def test_the_age_of_a_store_grows(browser: Browser, nginx: Nginx, store: Store) -> None:
    age = ".store [data-at]"
    store.heartbeat(time.time() - 200)
    browser.open(nginx)
    first = seconds_of(browser.text(age))
    assert first >= 200
    wait_until(lambda: seconds_of(browser.text(age)) > first, "its age grows")
    assert seconds_of(browser.figures()["Stores open"].partition("source last reached ")[2]) > first

    store.heartbeat(time.time())
    wait_until(lambda: seconds_of(browser.text(age)) < first, "it was reached again")


def test_an_old_store_is_pointed_out(browser: Browser, folder: Path, store: Store) -> None:
    with Nginx(folder, with_page(one_server(store))) as nginx:
        store.heartbeat(time.time() - 200)
        browser.open(nginx)
        browser.wait_for_text("#verdict", "The store is open, but not all is well")
        assert browser.text("#problems") == f"{store.folder}: its source was last reached more than a minute ago"
        assert browser.text(".store dl div").startswith("Heartbeat 3 min ")

        store.heartbeat(time.time())
        browser.wait_for_text("#verdict", "The store is open and fresh")
        assert browser.text("#problems") == ""


def test_it_says_that_nginx_is_gone_and_since_when_and_recovers(browser: Browser, nginx: Nginx) -> None:
    browser.open(nginx)
    nginx.request("/token", API, times=3)
    wait_until(lambda: browser.table("#statuses")["missing"]["Total"] == "3", "the requests are shown")
    assert browser.text("#silence") == ""
    assert browser.text("#live").startswith("live, as of ")

    nginx.stop()
    browser.wait_for_text("#silence", "nginx does not answer. The figures below are from ")
    last = browser.text("#live").removeprefix("not live, as of ")
    assert f"are from {last}, " in browser.text("#silence")
    assert browser.run("return document.title").startswith("✕ no answer")
    wait_until(lambda: seconds_of(browser.text("#silence [data-at]")) >= 5, "the silence lasts")
    assert browser.table("#statuses")["missing"]["Total"] == "3"

    nginx.start()
    nginx.request("/token", API, times=2)
    wait_until(lambda: browser.text("#silence") == "", "nginx answers again")
    wait_until(lambda: browser.table("#statuses")["missing"]["Total"] == "2", "the new requests are shown")
    assert browser.text("#live").startswith("live, as of ")
    assert browser.run("return window.stays")


def test_it_says_that_nginx_answers_something_else(browser: Browser, nginx: Nginx, store: Store) -> None:
    browser.open(nginx)
    start_again(nginx, store, "deny all;")
    browser.wait_for_text("#silence", "nginx answers 403. The figures below are from ")
    start_again(nginx, store, "default_type text/html; return 200 'another page';")
    browser.wait_for_text("#silence", "nginx answers something else")


def test_fail_open_is_the_worst_of_news_from_the_first_look(browser: Browser, folder: Path, store: Store) -> None:
    with Nginx(folder, with_page(one_server(store, FAILS_OPEN))) as nginx:
        assert nginx.request("/", API, headers=store.issue().header, times=6) == 204
        nginx.counted(stale=6)
        browser.open(nginx)
        assert browser.text("#verdict") == "Requests are let in unchecked"
        assert browser.text("#problems") == "6 requests let in unchecked by auth_pat_fail_open in the last minute"
        assert browser.figures()["Let in by fail-open"] == "6, 6 in the last minute"
        assert browser.run("return document.querySelector('#headline').dataset.level") == "bad"
        assert browser.run("return document.title").startswith("✕ ")


def test_what_failed_open_more_than_a_minute_ago_is_no_news(browser: Browser, folder: Path, store: Store) -> None:
    with Nginx(folder, with_page(one_server(store, FAILS_OPEN))) as nginx:
        nginx.request("/", API, headers=store.issue().header, times=6)
        nginx.counted(stale=6)
        browser.open(nginx)
        # Until nginx is asked again, it is as if a minute had gone by.
        verdict, figures, legend = browser.run("""
            const later = structuredClone(data);
            for (const series of [later.history.fail_open, ...Object.values(later.history.requests)]) {
                series.splice(0, 6);
                series.push(0, 0, 0, 0, 0, 0);
            }
            showAll(later);
            return ['verdict', 'figures', 'legend'].map(id => document.getElementById(id).innerText)""")
        assert verdict == "The store is open"
        assert "in the last minute" not in figures
        assert "let in by fail-open 6" in legend


def test_what_fails_open_is_let_in_and_not_refused(browser: Browser, nginx: Nginx) -> None:
    nginx.request("/fail-open", API, headers=UNKNOWN.header, times=6)
    nginx.request("/token", API, times=2)
    nginx.counted(store_error=6, missing=2)
    browser.open(nginx, scheme="dark")
    figures = browser.figures()
    assert figures["Refused, last minute"].endswith("/min, 2, 25 % of requests; most: missing")
    assert figures["Let in, last minute"].endswith("/min, 6 requests")

    rows = browser.table("#statuses")
    assert {name: row["15 min"] for name, row in rows.items() if row["15 min"] != "0"} == {
        "Refused": "2", "missing": "2", "store_error": "6", "Let in": "6", "fail_open": "6"}
    assert all(row["Total"] == row["15 min"] for row in rows.values())
    assert {name: text for name, text in browser.table("#servers")[API].items() if text != "0"} == {
        "Share refused": "25 %", "Let in": "6", "Refused": "2", "missing": "2", "store_error": "6", "Fail-open": "6"}

    assert browser.texts("#legend li") == ["missing 2 (25 %)", "store_error 6 (75 %)", "let in by fail-open 6"]
    assert browser.run("return document.querySelectorAll('#charts path[fill=\"url(#hatch)\"]').length") == 1
    assert "2 requests refused, 6 let in" in browser.run(
        "return document.querySelector('#charts svg').getAttribute('aria-label')")
    browser.picture("fail-open")


def test_dry_runs_have_a_chart_only_where_there_are_any(browser: Browser, nginx: Nginx) -> None:
    titles = "#charts .title"
    browser.open(nginx)
    drawn = "return Array.from(document.querySelectorAll(arguments[0]), one => one.textContent)"
    assert browser.run(drawn, titles) == ["Refused, in 10 s", "Let in, in 10 s"]
    assert "Dry run" not in browser.table("#statuses")["missing"]

    nginx.request("/dry-run", API, times=9)
    wait_until(lambda: browser.run(drawn, titles)
               == ["Refused, in 10 s", "Dry run: would be refused, in 10 s", "Let in, in 10 s"],
               "there is a chart of dry runs")
    assert browser.run("return document.querySelectorAll('#charts path[fill=\"url(#hatch)\"]').length") == 1
    assert browser.table("#statuses")["missing"]["Dry run"] == "9"
    assert browser.table("#statuses")["missing"]["Total"] == "0"
    assert browser.figures()["Dry run, last minute"].endswith("9 would have been refused")


def test_the_charts_can_be_read_with_keyboard_and_pointer(browser: Browser, nginx: Nginx) -> None:
    nginx.request("/token", API, times=3)
    nginx.counted(missing=3)
    browser.open(nginx)
    assert browser.text("#tip") == ""

    def press(key: str) -> None:
        browser.tell("Input.dispatchKeyEvent", type="keyDown", key=key, code=key)

    def spoken(attribute: str) -> Any:
        return browser.run("return document.querySelector('#cursor').getAttribute(arguments[0])", attribute)

    browser.run("document.querySelector('#cursor').focus()")
    assert spoken("aria-valuenow") == "89"
    press("Home")
    assert spoken("aria-valuenow") == "0"
    assert "nothing refused let in 0" in browser.text("#tip")
    press("End")
    # Ten seconds may have gone by since.
    for moves in range(3):
        assert spoken("aria-valuenow") == str(89 - moves)
        if "missing 3" in browser.text("#tip"):
            break
        press("ArrowLeft")
    assert "missing 3 let in 0" in browser.text("#tip")
    assert "missing 3, let in 0" in spoken("aria-valuetext")
    press("ArrowLeft")
    assert spoken("aria-valuenow") == str(88 - moves)
    press("Escape")
    assert browser.text("#tip") == ""

    browser.tell("Input.dispatchMouseEvent", type="mouseMoved", x=200, y=300)
    browser.wait_for_text("#tip", "nothing refused let in 0")


# The contrast of each text with what is behind it, where it is less than 4.5 to 1 (WCAG 2, 1.4.3).
PALE = """
    const channels = color => color.match(/[\\d.]+/g).map(Number);
    const luminance = color => {
        const [r, g, b] = channels(color).map(value => value / 255)
            .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = element => {
        const color = getComputedStyle(element).backgroundColor;
        return channels(color)[3] === 0 ? behind(element.parentElement) : color;
    };
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const pale = [];
    let seen = 0;
    while (texts.nextNode()) {
        const element = texts.currentNode.parentElement;
        if (texts.currentNode.data.trim() === '' || !element.checkVisibility() || element.closest('script')) continue;
        const style = getComputedStyle(element);
        const color = element instanceof SVGElement ? style.fill : style.color;
        const [dark, light] = [luminance(color), luminance(behind(element))].sort((one, other) => one - other);
        const contrast = (light + 0.05) / (dark + 0.05);
        seen++;
        if (contrast < 4.5) pale.push(`${texts.currentNode.data}: ${contrast.toFixed(2)}`);
    }
    return [seen, pale]"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_light_and_dark(browser: Browser, nginx: Nginx, store: Store, scheme: str) -> None:
    refuse_for_every_reason(nginx, store)
    nginx.request("/dry-run", API, times=2)
    nginx.request("/fail-open", API, headers=UNKNOWN.header)
    nginx.counted(store_error=11)
    browser.open(nginx, scheme=scheme)
    red, green, blue = browser.run(
        "return getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)")
    assert (red + green + blue > 600) == (scheme == "light")
    browser.run("document.querySelector('#cursor').focus()")
    nginx.stop()
    browser.wait_for_text("#silence", "nginx does not answer")
    seen, pale = browser.run(PALE)
    assert seen > 150
    assert pale == []


def test_a_narrow_page_does_not_scroll_sideways(browser: Browser, nginx: Nginx, store: Store) -> None:
    refuse_for_every_reason(nginx, store)
    nginx.request("/dry-run", API, times=2)
    nginx.counted(store_error=10, missing=13)
    for width in (360, 700, 1000, 1440):
        browser.open(nginx, width=width)
        assert browser.run("return innerWidth") == width
        # Nor is anything cut off but what scrolls by itself.
        assert browser.run("""
            const root = document.documentElement;
            return Array.from(document.querySelectorAll('main *, header *'))
                .filter(one => !one.closest('.wide > *') && one.getBoundingClientRect().right > root.clientWidth)
                .map(one => one.outerHTML)""") == []
        assert browser.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_hostile_names_do_no_harm(browser: Browser, folder: Path) -> None:
    name = "</script><script>alert(1)</script><!--"
    store = Store(folder / "a\"b'c<img src=x onerror=alert(1)>")
    server = f"""server {{ listen 127.0.0.1:PORT; server_name "{name}" harmless;
                 location / {{ auth_pat a; auth_pat_store {quote(store.folder)}; try_files /nowhere =204; }} }}"""
    with Nginx(folder, with_page(server)) as nginx:
        nginx.request("/", "harmless")
        nginx.counted(missing=1)
        browser.open(nginx, width=360)
        assert browser.table("#servers")[name]["missing"] == "1"
        assert browser.text(".store h3 .id") == str(store.folder)
        assert browser.run("return [document.scripts.length, document.images.length]") == [2, 0]
        assert browser.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        store.folder.rename(folder / "aside")
        browser.wait_for_text("#problems", f"{store.folder}: ")
        assert browser.complaints() == []
        assert browser.requested() == {page_of(nginx)}


def test_without_a_zone_it_says_so_and_shows_the_stores(browser: Browser, folder: Path, store: Store) -> None:
    with Nginx(folder, with_page(servers_for(store), zone="")) as nginx:
        browser.open(nginx)
        assert "The configuration has no auth_pat_zone." in browser.text("#uncounted")
        browser.picture("without-zone")
        for part in ("#recent", "#by-status", "#by-token", "#by-server"):
            assert browser.text(part) == ""
        assert f"{store.folder} empty" in browser.texts(".store")[0] + browser.texts(".store")[1]

        store.issue()
        wait_until(lambda: any("Tokens 1 " in text for text in browser.texts(".store")), "the token is shown")
        assert browser.complaints() == []


def test_where_there_is_nothing_it_says_so(browser: Browser, folder: Path) -> None:
    with Nginx(folder, with_page("")) as nginx:
        browser.open(nginx, scheme="dark")
        browser.picture("empty")
        assert browser.text("#verdict") == "There is no store"
        assert browser.text("#no-stores") == "No location has an auth_pat_store."
        assert browser.text("#legend") == "Nothing was refused in the last 15 minutes."
        assert browser.text("#tokens").startswith("No token was used since ")
        assert browser.text("#uncounted") == ""
        assert browser.complaints() == []
