"""`pat-sync compare`: compares the store with the database, token by token.

It finds changes that following the database misses: a deletion made with triggers off, and a row restored together with
its number. Within an epoch a number identifies one state of a token, so comparing digests and numbers is enough.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

from pat_sync.configuration import Settings
from pat_sync.errors import ConfigurationError, SourceFailed
from pat_sync.log import scrub
from pat_sync.sources.postgresql.queries import Position, Row
from pat_sync.sources.postgresql.source import PostgresqlSource
from pat_sync.sources.source import Source
from pat_sync.status import read_stats

# How long the store may lag: recent changes are still on their way.
_PATIENCE = 10.0

# How many tokens of each kind are listed.
_MOST_NAMED = 100


class _StoreFailed(Exception):
    pass


@dataclass
class _Difference:
    """Tokens that differ in the same way."""

    name: str
    count: int = 0
    ids: list[str] = field(default_factory=list)

    def add(self, row: Row) -> None:
        self.count += 1
        if len(self.ids) < _MOST_NAMED:
            self.ids.append(row.id)


def print_comparison(settings: Settings, source: Source) -> bool:
    """Compare, print the result, and return whether store and source are equal."""
    if not isinstance(source, PostgresqlSource):
        raise ConfigurationError("only a source postgresql:// can be compared: other sources send all tokens with each snapshot")
    only_in_store = _Difference("only_in_store")
    only_in_source = _Difference("only_in_source")
    different = _Difference("different")
    compared = 0
    problems: list[str] = []
    try:
        with closing(source.open_snapshot()) as snapshot:
            problem = _wait_for(settings, snapshot.epoch, snapshot.position)
            if problem is None:
                missing: list[Row] = []
                for in_store, in_source in _merge(_exported(settings), snapshot.rows()):
                    compared += 1
                    if in_source is None:
                        assert in_store is not None
                        # Expected if it is newer than the snapshot, or kept because it was revoked on this host.
                        if in_store.seq <= snapshot.position and not in_store.is_local:
                            only_in_store.add(in_store)
                    elif in_store is None:
                        missing.append(in_source)
                    elif in_store.seq != in_source.seq and in_store.seq <= snapshot.position and not in_store.is_local:
                        different.add(in_source)
            else:
                problems.append(problem)
        if problem is None:
            # Leave out what has been deleted since.
            for row in missing:
                if source.has(row.digest):
                    only_in_source.add(row)
    except SourceFailed as error:
        problems.append(f"cannot read the source: {scrub(str(error))}")
    except _StoreFailed as error:
        problems.append(str(error))

    differences = [only_in_store, only_in_source, different]
    if any(difference.count for difference in differences):
        problems.append("they differ: to repair all edges, run SELECT pat.new_epoch() in the source")
    if settings.as_json:
        named = {difference.name: difference.ids for difference in differences}
        print(json.dumps({"compared": compared, **named, "problems": problems}))
    else:
        print(f"tokens compared: {compared}")
        for difference in differences:
            text = difference.name.replace("_", " ")
            for id in difference.ids:
                print(f"{text}: {id}")
            if difference.count > len(difference.ids):
                print(f"{text}: {difference.count - len(difference.ids)} more")
        for problem in problems:
            print(f"wrong: {problem}")
        if not problems:
            print("the store equals the source")
    return not problems


def _wait_for(settings: Settings, epoch: str, position: int) -> str | None:
    """Wait until the store has caught up with the snapshot; return what is wrong if it does not."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        problems: list[str] = []
        stats = read_stats(settings, problems)
        if stats is None:
            return problems[0]
        reached = Position.parse(stats["cursor"])
        if stats["epoch"].partition("#")[0] == epoch and reached is not None and reached.seq >= position:
            return None
        if time.monotonic() >= deadline:
            return "the store is behind its source, so they cannot be compared: see pat-sync status"
        time.sleep(0.2)


def _exported(settings: Settings) -> Iterator[Row]:
    """The store's tokens, ordered by digest."""
    command = [str(settings.patctl), "export", "--store", str(settings.store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as export:
        assert export.stdout is not None
        for line in export.stdout:
            record = json.loads(line)
            is_local = "local_revoked_at" in record or "denied" in record
            yield Row(bytes.fromhex(record["digest"]), record.get("seq", 0), record["id"], is_local)
    if export.returncode != 0:
        raise _StoreFailed("cannot read the whole store: see patctl verify")


def _merge(in_store: Iterator[Row], in_source: Iterator[Row]) -> Iterator[tuple[Row | None, Row | None]]:
    """Join two lists, ordered by digest; None where a digest is missing from one of them."""
    a, b = next(in_store, None), next(in_source, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a.digest < b.digest):
            yield a, None
            a = next(in_store, None)
        elif a is None or b.digest < a.digest:
            yield None, b
            b = next(in_source, None)
        else:
            yield a, b
            a, b = next(in_store, None), next(in_source, None)
