"""The owner of a store may have its path lead to the store of somebody else. LMDB must not have a file twice in a process:
when one of both is closed, the locks of the other are gone, and its writer takes the worker for dead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from basics import wait_until
from nginx import Nginx
from store import Store
from test_no_store_stops_nginx import SITES
from users import User, nginx_t, run

#: The owner of the other store, whom the host need not know.
OTHER = "54321"


@pytest.fixture
def other(folder: Path) -> Store:
    return Store(folder / "good", "--owner", OTHER, "--group", "www-data")


@pytest.fixture
def bad(folder: Path, attacker: User) -> Store:
    """In a folder of its owner's, who can put something else in its place."""
    home = folder / "home"
    home.mkdir()
    attacker.own(home)
    return Store(home / "store", "--owner", attacker.name, "--group", "www-data")


def lead(store: Store, to: Store, how: str, attacker: User) -> None:
    if how == "folder":
        store.folder.rename(f"{store.folder}.old")
        command = ["ln", "-s", to.folder, store.folder]
    else:
        (store.folder / how).rename(store.folder / "old")
        command = ["ln", "-s", to.folder / how, store.folder / how]
    assert attacker.run(command).returncode == 0


def locks(worker: int, file: Path) -> int:
    """How many of LMDB's locks a worker has on the lock.mdb of a store."""
    inode = file.stat().st_ino
    return sum(
        line.split()[1:2] == ["POSIX"] and line.split()[4] == str(worker) and line.split()[5].endswith(f":{inode}")
        for line in Path("/proc/locks").read_text().splitlines()
    )


@pytest.mark.parametrize("how", ["folder", "data.mdb"])
@pytest.mark.parametrize("is_first", [True, False])
def test_nginx_starts(folder: Path, bad: Store, other: Store, attacker: User, how: str, is_first: bool) -> None:
    lead(bad, other, how, attacker)
    stores = [bad.folder, other.folder] if is_first else [other.folder, bad.folder]
    tested = run(nginx_t(folder, *stores, user="www-data"))
    assert tested.returncode == 0, tested.stderr
    assert ("use one path for it" if how == "folder" else "is a link, or no regular file") in tested.stderr


@pytest.mark.parametrize("is_first", [True, False])
def test_the_other_is_served_from_the_start(
    folder: Path, bad: Store, other: Store, attacker: User, is_first: bool
) -> None:
    token = other.issue()
    lead(bad, other, "folder", attacker)
    first, second = (bad, other) if is_first else (other, bad)
    of_other, of_bad = ("/bad", "/good") if is_first else ("/good", "/bad")
    with Nginx(folder, SITES, GOOD=first.folder, BAD=second.folder, user="www-data") as nginx:
        assert nginx.request(of_other, "test", headers=token.header) == 204
        assert nginx.request(of_bad, "test", headers=token.header) == 503


@pytest.mark.parametrize("how", ["folder", "lock.mdb"])
def test_the_other_keeps_its_locks(folder: Path, bad: Store, other: Store, attacker: User, how: str) -> None:
    token = other.issue()
    with Nginx(folder, SITES, GOOD=other.folder, BAD=bad.folder, user="www-data") as nginx:
        assert nginx.request("/good", "test", headers=token.header) == 204
        (worker,) = nginx.workers()
        lock = other.folder / "lock.mdb"
        assert locks(worker, lock) > 0

        if how == "folder":
            lead(bad, other, how, attacker)
        else:  # by a hard link, which a member of the other's group may make
            (bad.folder / how).unlink()
            os.link(lock, bad.folder / how)
        wait_until(lambda: nginx.request("/bad", "test", headers=token.header) == 503, "the worker has looked")
        assert locks(worker, lock) > 0
        assert nginx.request("/good", "test", headers=token.header) == 204

        nginx.logged("under another path")
        assert f'store "{other.folder}"' not in nginx.error_log()
