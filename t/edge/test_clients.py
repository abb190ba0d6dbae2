"""Real clients (curl, wget, git, pip, npm, apt, Python, JavaScript): each example of docs/clients.md is run as it
stands there, against a server with the parameters of that document, whose table has what they send and what is
decided."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import zipfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pytest
from basics import DEADLINE, ROOT, temporary_folder, wait_until
from nginx import Nginx
from store import Store

DOCUMENT = (ROOT / "docs" / "clients.md").read_text()
HOST = "api.example.com"

# How each language is run, with the end of the name of its files; and an example, whose first line is its name.
LANGUAGES = {"sh": ("sh", "-eu", ".sh"), "python": ("python3", ".py"), "js": ("node", ".mjs")}
EXAMPLE = re.compile(r"^```(sh|python|js)\n(?:#|//) (.*)\n((?s:.*?))^```$", re.MULTILINE)

CONFIGURATION = """
    log_format presented escape=json
        '{"uri":"$uri","verdict":"$auth_pat_status","authorization":"$http_authorization","key":"$http_x_api_key"}';
    auth_pat_store STORE;
    server {
        listen 127.0.0.1:PORT;
        access_log FOLDER/presented.log presented;
        root FOLDER/html;
        types { text/html html; }
        auth_pat api PARAMETERS;
        location / { }
    }
"""


class Example(NamedTuple):
    language: str
    name: str
    text: str

    def at(self, address: str) -> str:
        """The same for a server that is there, without TLS."""
        text = re.sub(rf"https://(\S*@)?{re.escape(HOST)}", rf"http://\g<1>{address}", self.text)
        return text.replace(f"//{HOST}", f"//{address}").replace(HOST, address.split(":")[0])


EXAMPLES = {name: Example(language, name, text) for language, name, text in EXAMPLE.findall(DOCUMENT)}
NETRC = EXAMPLES.pop("netrc")


class Presented(NamedTuple):
    """What a request has presented, with TOKEN in place of the token, and what was decided."""

    credential: str
    verdict: str


class Site(Nginx):
    """A server with a package of each kind, for which its clients need a token."""

    def __init__(self, folder: Path, parameters: str) -> None:
        self.store = Store(folder / "store")
        self.issued = self.store.issue("--subject", "robot")
        self.runs = 0
        super().__init__(folder, CONFIGURATION, STORE=self.store.folder, PARAMETERS=parameters)
        html = folder / "html"
        publish(html / "v1" / "things", "[]\n")
        publish_wheel(html / "simple" / "example")
        publish_repository(folder / "work", html / "repo.git")
        version = {"name": "example", "version": "1.0.0", "dist": {"tarball": f"{self.url}/npm/example.tgz"}}
        package = {"name": "example", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
        publish(html / "npm" / "example", json.dumps(package))

    def run(self, example: Example) -> tuple[subprocess.CompletedProcess[str], list[Presented]]:
        """Runs an example in a home of its own. Returns how it ended, and the requests that it has made."""
        self.runs += 1
        home = self.folder / f"home{self.runs}"
        home.mkdir(mode=0o700)
        if "netrc" in example.name:
            self.start_example(NETRC, home).check_returncode()
        done = self.start_example(example, home)

        # A request is logged once it is answered, before the next one is.
        end = f"/end-of-{self.runs}"
        assert self.request(end, "test") == 401
        wait_until(lambda: end in self.log(), "the requests are logged")
        lines = [json.loads(line) for line in self.log().splitlines()]
        *before, _ = (number for number, line in enumerate(lines) if line["uri"].startswith("/end-of-"))
        return done, [self.presented(line) for line in lines[before[-1] + 1 if before else 0 : -1]]

    def start_example(self, example: Example, home: Path) -> subprocess.CompletedProcess[str]:
        *command, suffix = LANGUAGES[example.language]
        program = home / f"example{suffix}"
        program.write_text(example.at(f"127.0.0.1:{self.port}"))
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(home),
            "TOKEN": self.issued.token,
            "LC_ALL": "C.UTF-8",
            # Nobody is asked for anything, and nothing is looked up elsewhere.
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_NOSYSTEM": "1",
            "PIP_NO_INPUT": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "NPM_CONFIG_UPDATE_NOTIFIER": "false",
        }
        return subprocess.run([*command, program], cwd=home, env=environment, timeout=DEADLINE,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)

    def log(self) -> str:
        return (self.folder / "presented.log").read_text()

    def presented(self, line: dict[str, str]) -> Presented:
        scheme, _, rest = line["authorization"].partition(" ")
        if scheme == "Basic":
            rest = base64.b64decode(rest).decode()
        credentials = [f"{scheme} {rest}"] if scheme else []
        if line["key"]:
            credentials.append(f"X-API-Key: {line['key']}")
        return Presented(" and ".join(credentials).replace(self.issued.token, "TOKEN"), line["verdict"])


def publish(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(text)


def publish_wheel(folder: Path) -> None:
    name = "example-1.0-py3-none-any.whl"
    publish(folder / "index.html", f'<!DOCTYPE html><html><body><a href="{name}">{name}</a></body></html>\n')
    with zipfile.ZipFile(folder / name, "w") as wheel:
        wheel.writestr("example.py", "")
        wheel.writestr("example-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: example\nVersion: 1.0\n")
        wheel.writestr("example-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("example-1.0.dist-info/RECORD", "")


def publish_repository(work: Path, repository: Path) -> None:
    """As files, without a program."""

    def git(*arguments: str | Path) -> None:
        subprocess.run(["git", *arguments], check=True, capture_output=True)

    git("init", work)
    (work / "README").write_text("an example\n")
    git("-C", work, "add", "README")
    git("-C", work, "-c", "user.name=test", "-c", "user.email=test@test.invalid", "commit", "-m", "an example")
    git("clone", "--bare", work, repository)
    git("-C", repository, "update-server-info")


def parameters() -> str:
    found = re.search(r"^ *auth_pat api (scheme=.*);$", DOCUMENT, re.MULTILINE)
    assert found
    return found[1]


@pytest.fixture(scope="module")
def everything() -> Iterator[Site]:
    """What the document configures."""
    with temporary_folder() as folder, Site(folder, parameters()) as site:
        yield site


@pytest.fixture(scope="module")
def revoked() -> Iterator[Site]:
    with temporary_folder() as folder, Site(folder, parameters()) as site:
        site.store.revoke(site.issued)
        yield site


@pytest.fixture(scope="module")
def bearer_alone() -> Iterator[Site]:
    with temporary_folder() as folder, Site(folder, "scheme=bearer") as site:
        yield site


def row(name: str, requests: list[Presented]) -> str:
    """A line of the document's table."""
    different = [request for request, _ in groupby(requests)]
    sends = ", then ".join(f"`{request.credential}`" if request.credential else "nothing" for request in different)
    return f"| {name} | {sends} | {', then '.join(f'`{request.verdict}`' for request in different)} |"


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_works_and_the_table_has_what_it_sends(everything: Site, name: str) -> None:
    done, requests = everything.run(EXAMPLES[name])
    assert done.returncode == 0, (done.stdout, done.stderr, requests)
    found = row(name, requests)
    print(found)
    assert requests[-1].verdict == "ok"
    assert found in DOCUMENT.splitlines()


def test_the_table_has_each_example_once() -> None:
    table = re.search(r"^\| example \|.*\n\|.*\n((?:\|.*\n)*)", DOCUMENT, re.MULTILINE)
    assert table
    assert [line.split(" | ")[0].removeprefix("| ") for line in table[1].splitlines()] == list(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_client_with_a_revoked_token_fails(revoked: Site, name: str) -> None:
    done, requests = revoked.run(EXAMPLES[name])
    assert done.returncode != 0
    assert {request.verdict for request in requests} <= {"missing", "revoked"}
    assert "revoked" in {request.verdict for request in requests}


@pytest.mark.parametrize("name", EXAMPLES)
def test_without_parameters_only_bearer_is_accepted(bearer_alone: Site, name: str) -> None:
    done, requests = bearer_alone.run(EXAMPLES[name])
    sends_bearer = any(request.credential == "Bearer TOKEN" for request in requests)
    assert (done.returncode == 0) == sends_bearer, (done.stdout, done.stderr, requests)
    assert {request.verdict for request in requests} == {"ok" if sends_bearer else "missing"}
