"""Another user of this host gets no session of a PostgreSQL that the tour or the tests start."""

from __future__ import annotations

import glob
import os
import pwd
import re
import subprocess
from collections.abc import Iterator

import pytest
from basics import ROOT
from postgresql import PostgreSQL, prepare

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="ATTACK NOT TRIED: becoming another user needs root")

PSQL = sorted(glob.glob("/usr/lib/postgresql/*/bin/psql"))[-1]
LOGINS = ("postgres", "edge", "shop", "root", "nobody")


def sessions(connection: str) -> list[str]:
    """The logins that another user gets a session with, and what he is there."""
    other = pwd.getpwnam("nobody")
    got = []
    for login in LOGINS:
        done = subprocess.run(
            [PSQL, "-XAtwc", "SELECT current_user, rolsuper FROM pg_roles WHERE rolname = current_user",
             f"{connection} user={login} dbname=postgres connect_timeout=60"],
            capture_output=True, text=True, check=False, cwd="/", env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
            user=other.pw_uid, group=other.pw_gid, extra_groups=[],
        )  # fmt: skip
        if done.returncode == 0:
            got.append(f"{login}: {done.stdout.strip()}")
        else:
            assert re.search("connection to server .* failed", done.stderr), done.stderr
    return got


@pytest.fixture(scope="module")
def tour() -> Iterator[str]:
    """The folder of scripts/quickstart --postgres, while it waits to be tried."""
    command = [str(ROOT / "scripts" / "quickstart"), "--postgres"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        try:
            assert running.stdout is not None
            said = ""
            for line in running.stdout:
                said += line
                if match := re.search(r'psql "host=(\S+)', line):
                    yield match[1]
                    break
            else:
                pytest.fail(f"the tour has ended:\n{said}")
        finally:
            # SIGINT is ignored below a shell that has put this in the background.
            running.terminate()


def test_of_the_tour(tour: str) -> None:
    assert sessions(f"host={tour}") == []
    # Not even where the folder is no obstacle.
    os.chmod(tour, 0o755)
    os.chmod(f"{tour}/.s.PGSQL.5432", 0o777)
    assert sessions(f"host={tour}") == []


def test_of_the_tests() -> None:
    with PostgreSQL(fsync=False) as server:
        server.start()
        prepare(server)
        assert sessions(f"host=127.0.0.1 port={server.port}") == []
        assert sessions(f"host={server.folder} port={server.port}") == []
