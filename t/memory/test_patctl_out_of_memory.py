"""Each allocation of patctl fails in turn, those of LMDB too, while it changes a store: it says so and leaves the store as it
was, or has changed it. What comes before, reading the command line, is left alone: it takes most of the allocations."""

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


CHANGES = {
    "revoke": Change(("revoke", "--subject", "alice")),
    "apply": Change(("apply",), (NEW, {"op": "revoke", "digest": "b" * 64, "seq": 2}, {"op": "commit", "cursor": "2"})),
}


@pytest.mark.parametrize("and_later", [False, True], ids=["one", "one and all later ones"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_change_is_made_or_is_not(tmp_path: Path, change: Change, and_later: bool) -> None:
    store = Store(tmp_path / "store")
    store.issue("--subject", "alice")
    store.patctl("import", "--strict", "-", input=json.dumps({"digest": "b" * 64, "id": "b", "subject": "b"}))
    before = store.records()
    shutil.copytree(store.folder, tmp_path / "before")
    failing = Failing(tmp_path / "orders", PATCTL)
    failing.only("::apply", "::revoke", "pat::store::")

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
        assert store.patctl("verify"), said
        is_changed = store.records() != before
        assert is_changed or done.returncode == FAULT, said
        changed += is_changed
        unchanged += not is_changed
        shutil.rmtree(store.folder)
        shutil.copytree(tmp_path / "before", store.folder)

    assert changed > 0 and unchanged > 10
