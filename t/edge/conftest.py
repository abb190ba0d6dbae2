"""Fixtures: a folder that nginx's workers may enter, and a store in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from basics import temporary_folder
from store import Store


@pytest.fixture
def folder() -> Iterator[Path]:
    with temporary_folder() as path:
        yield path


@pytest.fixture
def store(folder: Path) -> Store:
    return Store(folder / "store")
