"""Fixtures: a PostgreSQL for all tests, and a database with the schema and an empty store for each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgresql import Database, PostgreSQL, new_database, prepare
from store import Store

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[PostgreSQL]:
    """Shared by tests that do not change the server itself; others create their own."""
    with PostgreSQL(fsync=False) as made:
        made.start()
        prepare(made)
        yield made


@pytest.fixture
def database(server: PostgreSQL) -> Iterator[Database]:
    with new_database(server, f"pat_{next(_numbers)}") as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")
