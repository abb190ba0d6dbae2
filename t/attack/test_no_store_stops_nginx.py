"""What the owner of a store does with it stops neither the start nor a reload of nginx, and no other site."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from basics import wait_until
from nginx import Nginx
from store import Store
from users import User, nginx_t, patctl, run

#: What nginx allows all stores together, and what a busy machine may need besides.
LOOK = 2.5
SLOWNESS = 15.0

SITES = """server {
    listen 127.0.0.1:PORT;
    location = /good { auth_pat API; auth_pat_store GOOD; try_files /nowhere =204; }
    location = /bad { auth_pat API; auth_pat_store BAD; try_files /nowhere =204; }
}"""


@contextmanager
def spoiled(store: Path, how: str, attacker: User) -> Iterator[None]:
    if how == "open.lock held":
        with (store / "open.lock").open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield
        return
    (store / how).unlink()
    assert attacker.run(["mkfifo", "-m", "666", store / how]).returncode == 0
    yield


@pytest.mark.parametrize("how", ["data.mdb", "lock.mdb", "open.lock", "open.lock held"])
def test_a_store_that_hangs(folder: Path, owned_store: Store, attacker: User, how: str) -> None:
    good = Store(folder / "good", "--owner", attacker.name, "--group", "www-data")
    with spoiled(owned_store.folder, how, attacker):
        begin = time.monotonic()
        tested = run(nginx_t(folder, owned_store.folder, good.folder, user="www-data"))
        assert time.monotonic() - begin < LOOK + SLOWNESS
        assert tested.returncode == 0, tested.stderr
        assert '[warn]' in tested.stderr
        assert f'store "{good.folder}"' not in tested.stderr


def test_a_reload_with_a_store_that_hangs(folder: Path, owned_store: Store, attacker: User) -> None:
    good = Store(folder / "good", "--owner", attacker.name, "--group", "www-data")
    token = good.issue()
    with spoiled(owned_store.folder, "open.lock held", attacker):
        with Nginx(folder, SITES, GOOD=good.folder, BAD=owned_store.folder, user="www-data") as nginx:
            assert nginx.request("/good", "test", headers=token.header) == 204
            nginx.reload()
            assert nginx.request("/good", "test", headers=token.header) == 204


def test_an_error_elsewhere_is_still_one(folder: Path, owned_store: Store, attacker: User) -> None:
    """A store that hangs does not hide that another has the wrong pepper."""
    pepper = folder / "pepper"
    pepper.write_text("a" * 64)
    patctl(folder / "other", "--pepper-file", str(pepper), "init", "--owner", attacker.name, "--group", "www-data")
    with spoiled(owned_store.folder, "data.mdb", attacker):
        tested = run(nginx_t(folder, owned_store.folder, folder / "other", user="www-data"))
    assert tested.returncode == 1
    assert "the pepper does not match" in tested.stderr


def test_stopping_does_not_depend_on_a_store(folder: Path, owned_store: Store) -> None:
    with Nginx(folder, SITES, GOOD=owned_store.folder, BAD=owned_store.folder, user="www-data") as nginx:
        conf = (folder / "nginx.conf").read_text()
        pepper = folder / "pepper"
        pepper.write_text("a" * 64)
        (folder / "nginx.conf").write_text(conf.replace("auth_pat API;", f"auth_pat API; auth_pat_pepper_file {pepper};"))
        command = nginx_t(folder, owned_store.folder, user="www-data")
        command[1:] = ["-s", "stop", "-p", str(folder), "-c", f"{folder}/nginx.conf", "-e", "stderr"]
        run(command, check=True)
        assert nginx.process.wait(SLOWNESS) == 0


def test_nothing_is_left_of_a_look(folder: Path, owned_store: Store, attacker: User) -> None:
    """Neither processes nor open files, after reloads with a store that hangs."""
    with spoiled(owned_store.folder, "open.lock held", attacker):
        with Nginx(folder, SITES, GOOD=owned_store.folder, BAD=owned_store.folder, user="www-data") as nginx:
            before = open_files(nginx.process.pid)
            for _ in range(2):
                nginx.reload()
            wait_until(lambda: len(nginx.children()) == 1, "one worker is left")
            # The master closes the channel to a worker some time after that worker's end.
            wait_until(lambda: open_files(nginx.process.pid) == before, f"the master has its {before} open files again")


def open_files(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))
