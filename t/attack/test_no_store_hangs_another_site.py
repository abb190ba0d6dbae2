"""A store that hangs takes nothing from the other sites of the same nginx."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
from nginx import Nginx
from store import Store

NEEDS_ROOT = False

HTTP = """
    server { listen 127.0.0.1:PORT; server_name good;
             auth_pat_store GOOD; location / { auth_pat API; try_files /nowhere =204; } }
    server { listen 127.0.0.1:PORT; server_name hanging;
             auth_pat_store HANGING; location / { auth_pat API; try_files /nowhere =204; } }
"""


def fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def hold_lock(file: Path) -> BinaryIO:
    """As LMDB takes it on lock.mdb, and waits for it."""
    opened = file.open("r+b")
    fcntl.lockf(opened, fcntl.LOCK_EX, 1, 0)
    return opened


def hold_flock(file: Path) -> BinaryIO:
    opened = file.open("rb")
    fcntl.flock(opened, fcntl.LOCK_EX)
    return opened


@pytest.mark.parametrize(
    ("file", "hang", "said"),
    [
        ("data.mdb", fifo, "data.mdb"),
        ("lock.mdb", fifo, "lock.mdb"),
        ("open.lock", fifo, "open.lock"),
        ("lock.mdb", hold_lock, "a process holds a lock in lock.mdb"),
        ("open.lock", hold_flock, "open.lock is taken"),
    ],
)
def test_the_other_site_answers(
    folder: Path, store: Store, file: str, hang: Callable[[Path], BinaryIO | None], said: str
) -> None:
    hanging = Store(folder / "hanging")
    good, other = store.issue(), hanging.issue()
    held = hang(hanging.folder / file)
    with Nginx(folder / "nginx", HTTP, GOOD=store.folder, HANGING=hanging.folder) as server:
        server.logged(rf"\[crit\].*{hanging.folder}.*{said}")
        # Through the second at which the worker tries the other store again.
        until = time.monotonic() + 3
        while time.monotonic() < until:
            assert server.request("/", "good", headers=good.header) == 204
        assert server.request("/", "hanging", headers=other.header) == 503
        store.revoke(good)
        assert server.request("/", "good", headers=good.header) == 401
    if held is not None:
        held.close()
