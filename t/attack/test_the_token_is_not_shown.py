"""What patctl knows of a token while it works is nobody else's to see."""

from __future__ import annotations

import subprocess
from pathlib import Path

from basics import PATCTL
from store import Store
from users import User


def test_not_by_the_arguments_of_patctl(store: Store) -> None:
    """Everybody may read what a program was called with."""
    token = store.issue().token
    done = subprocess.run(
        [PATCTL, "--store", str(store.folder), "revoke", token], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "revoke this one" in done.stderr
    assert token not in done.stderr


def test_not_by_the_files_of_the_store(store: Store, attacker: User) -> None:
    token = store.issue().token
    for file in sorted(store.folder.iterdir()):
        assert attacker.run(["cat", file]).returncode != 0, file
        assert token.encode() not in Path(file).read_bytes()
