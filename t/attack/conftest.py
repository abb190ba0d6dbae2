"""Attacks that must not succeed, a file for each kind. Most need root, as it is root whom they are after: without it they
are left out, loudly. What one process can show by itself is tested elsewhere: forged records in t/forged.t, damaged pages
and locks in t/unit, requests that wait for their token to be revoked in t/parked.t."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from basics import temporary_folder
from store import Store
from users import User, run

SKIPPED = "NOT RUN: the attacks of t/attack need root, to have a victim and an attacker. Run them as root."


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0:
        for item in items:
            if getattr(getattr(item, "module", None), "NEEDS_ROOT", True):
                item.add_marker(pytest.mark.skip(reason=SKIPPED))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if os.geteuid() != 0:
        terminalreporter.section("t/attack")
        terminalreporter.line(SKIPPED)


@pytest.fixture
def attacker() -> User:
    return User("nobody")


@pytest.fixture
def workers_user() -> User:
    """Whom nginx's workers run as."""
    return User("www-data")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of root's that everybody may enter."""
    with temporary_folder() as path:
        yield path


@pytest.fixture
def store(folder: Path) -> Store:
    """One of root's."""
    return Store(folder / "store")


@pytest.fixture
def owned_store(folder: Path, attacker: User) -> Store:
    """One of the attacker's, which nginx's workers may read, as pat-sync's is."""
    return Store(folder / "store", "--owner", attacker.name, "--group", "www-data")


@pytest.fixture
def private_accounts(folder: Path) -> list[str]:
    """What to put before a command for a shell that may make users: it has an /etc of its own."""
    shutil.copytree("/etc", folder / "etc", symlinks=True)
    command = ["unshare", "--mount", "sh", "-c", 'mount --bind "$1/etc" /etc && exec sh -c "$2"', "sh", str(folder)]
    if run([*command, "true"]).returncode != 0:
        pytest.skip("NOT RUN: mounting is not permitted here")
    return command
