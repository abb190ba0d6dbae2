"""Fixtures: a PostgreSQL for all tests; a database with the schema, a feed with one token and an empty store for each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from authority import Authority
from feed_server import Feed
from postgresql import NOT_FOR_EVER, Connection, Database, PostgreSQL, new_database, prepare
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
def owner(database: Database) -> Iterator[Connection]:
    with database.connect(options=NOT_FOR_EVER) as connection:
        yield connection


@pytest.fixture
def shop(database: Database) -> Iterator[Connection]:
    with database.connect("shop", options=NOT_FOR_EVER) as connection:
        yield connection


@pytest.fixture
def edge(database: Database) -> Iterator[Connection]:
    with database.connect("edge", options=NOT_FOR_EVER) as connection:
        yield connection


@pytest.fixture
def profile(database: Database) -> Iterator[Connection]:
    with database.connect("profile", options=NOT_FOR_EVER) as connection:
        yield connection


@pytest.fixture
def admin(database: Database) -> Iterator[Connection]:
    with database.connect("admin", options=NOT_FOR_EVER) as connection:
        yield connection


@pytest.fixture
def auditor(database: Database) -> Iterator[Connection]:
    with database.connect("auditor", options=NOT_FOR_EVER) as connection:
        yield connection


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def feed() -> Iterator[Feed]:
    with Feed() as made:
        made.put("a")
        yield made


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ca")
