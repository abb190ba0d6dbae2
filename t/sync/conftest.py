"""Fixtures: a PostgreSQL for all tests, and a database with the schema for each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from servers import Database, PostgreSQL, new_database, prepare

_numbers = itertools.count(1)


# PostgreSQL


@pytest.fixture(scope="session")
def server() -> Iterator[PostgreSQL]:
    """For tests that leave the server itself alone; others make their own."""
    with PostgreSQL(fsync=False) as made:
        made.start()
        prepare(made)
        yield made


@pytest.fixture
def database(server: PostgreSQL) -> Iterator[Database]:
    with new_database(server, f"pat_{next(_numbers)}") as made:
        yield made
