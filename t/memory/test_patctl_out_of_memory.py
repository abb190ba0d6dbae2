"""Each allocation of patctl fails in turn, those of LMDB too, while it changes a store: it says so and leaves the store as it
was, or has changed it. Most of them come before, when it reads its command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from basics import PATCTL, ROOT
from failing import Failing
from store import Record, Store

FAULT = 3
NEW = {"op": "put", "digest": "a" * 64, "id": "new", "subject": "bob", "seq": 1}


class Change(NamedTuple):
    arguments: tuple[str, ...]
    lines: tuple[Record, ...] = ()
    functions: tuple[str, ...] = ()
    """Parts of their names; without any, allocations fail whoever makes them."""


CHANGES = {
    "revoke": Change(("revoke", "--subject", "alice")),
    "apply": Change(
        ("apply",),
        (NEW, {"op": "revoke", "digest": "b" * 64, "seq": 2}, {"op": "commit", "cursor": "2"}),
        ("::apply", "pat::store::"),
    ),
}


@pytest.mark.parametrize("and_later", [False, True], ids=["one", "one and all later ones"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_change_is_made_or_is_not(tmp_path: Path, change: Change, and_later: bool) -> None:
    store = Store(tmp_path / "store")
    data = store.folder / "data.mdb"
    store.issue("--subject", "alice")
    store.patctl("import", "--strict", "-", input=json.dumps({"digest": "b" * 64, "id": "b", "subject": "b"}))
    before = data.read_bytes()
    records = store.records()
    shutil.copytree(store.folder, tmp_path / "before")
    failing = Failing(tmp_path / "orders", PATCTL)
    if change.functions:
        failing.only(*change.functions)

    number = changed = unchanged = 0
    while number == 0 or failing.has_failed:
        number += 1
        with failing.allocation(number, and_later=and_later):
            done = subprocess.run(
                [PATCTL, "--store", str(store.folder), *change.arguments],
                env={
                    **os.environ,
                    "LD_PRELOAD": str(ROOT / "build" / "failing.so"),
                    "FAIL_ALLOCATIONS": str(tmp_path / "orders"),
                },
                input="".join(json.dumps(line) + "\n" for line in change.lines),
                capture_output=True,
                text=True,
            )
        said = (done, failing.calls())
        assert done.returncode in (0, FAULT), said
        if done.returncode == FAULT:
            assert "out of memory" in done.stderr or "Cannot allocate memory" in done.stderr, said
        if data.read_bytes() == before:
            assert done.returncode == FAULT, said
            unchanged += 1
        else:
            assert store.patctl("verify"), said
            assert store.records() != records, said
            changed += 1
            shutil.rmtree(store.folder)
            shutil.copytree(tmp_path / "before", store.folder)

    assert changed > 0 and unchanged > (10 if change.functions else 1000)
    # Nor have those that failed left anything behind.
    assert store.patctl("verify") and store.records() == records
