"""A pat-sync as it is installed, and what it keeps equal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from servers import ROOT, Connection, wait_until

PATCTL = Path(os.environ.get("PATCTL", ROOT / "build" / "patctl"))
PAT_SYNC = ROOT / "scripts" / "pat-sync"


class Store:
    """A store in a folder, and what patctl says of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def patctl(self, *arguments: str, input: str = "") -> str:
        command = [str(PATCTL), "--store", str(self.folder), *arguments]
        done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            raise RuntimeError(f"patctl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.patctl("--json", "stats"))
        return found

    def tokens(self) -> dict[str, dict[str, Any]]:
        """The records by digest."""
        records = map(json.loads, self.patctl("export").splitlines())
        return {record["digest"]: record for record in records}

    def verdict(self, token: str) -> str:
        command = [str(PATCTL), "--store", str(self.folder), "check"]
        done = subprocess.run(command, input=token, capture_output=True, text=True, timeout=120)
        return done.stdout.split("\n")[0]


def tokens_of(connection: Connection) -> dict[str, dict[str, Any]]:
    """What a store should hold: the rows of a snapshot, by digest, as `patctl export` writes them."""
    lines = connection.execute("SELECT change FROM pat.snapshot()").fetchall()
    records = [json.loads(line) for (line,) in lines]
    for record in records:
        assert record.pop("op") == "put"
    return {record["digest"]: record for record in records}


def load(connection: Connection, count: int) -> None:
    """Tokens that were made elsewhere, in one transaction. Their triggers fire, as in real life."""
    connection.execute(
        "INSERT INTO pat.token (digest, id, subject, name, scopes, issued_at, expires_at)"
        " SELECT sha256(int8send(n)), 'load-' || n, 'user:' || n %% 1000, 'daily upload', '{reports:read,orders:write}',"
        " now(), now() + interval '90 days' FROM generate_series(1, %s) AS n", (count,))


def load_fast(connection: Connection, count: int) -> None:
    """The same without triggers, for very many; only for a database that has no other tokens."""
    connection.execute("ALTER TABLE pat.token DISABLE TRIGGER USER")
    load(connection, count)
    connection.execute("UPDATE pat.token SET seq = nextval('pat.seq') WHERE seq IS NULL")
    connection.execute("ALTER TABLE pat.token ENABLE TRIGGER USER")
    connection.execute("VACUUM ANALYZE pat.token")


def make_another_snapshot_due(store: Store) -> None:
    """Leaves the store as an interrupted snapshot of its source would that has changed nothing yet."""
    found = store.stats()
    begin = {"op": "snapshot_begin", "epoch": found["epoch"], "seq": found["last_sequence"]}
    with suppress(RuntimeError):  # which says that the snapshot did not end
        store.patctl("apply", input=json.dumps(begin) + "\n")
    assert store.stats()["state"] == "resync"


class PatSync:
    """A running pat-sync. Its log is a file, to which one after the other may write."""

    def __init__(self, source: str, store: Path, *options: str, log: Path, environment: dict[str, str] | None = None) -> None:
        self.log = log
        self._already = log.stat().st_size if log.exists() else 0
        command = [str(PAT_SYNC), "--source", source, "--store", str(store), "--patctl", str(PATCTL), *options]
        with log.open("ab") as to:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=to, stderr=to,
                                            env={**os.environ, **(environment or {})})

    def __enter__(self) -> PatSync:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            print(self.text(), file=sys.stderr)
        self.kill()

    def text(self) -> str:
        """What it has logged."""
        return self.log.read_bytes()[self._already :].decode(errors="replace")

    def wait_for(self, text: str, seconds: float = 30) -> None:
        wait_until(lambda: text in self.text() or self.process.poll() is not None, f'pat-sync says "{text}"', seconds)
        assert text in self.text(), self.text()

    def children(self) -> list[int]:
        try:
            return [int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()]
        except FileNotFoundError:
            return []

    def stop(self) -> int:
        """Ends it as systemd would; its exit status."""
        self.process.terminate()
        return self.process.wait(30)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
