"""A pat-sync as it is installed, and what it keeps equal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from basics import DEADLINE, PATCTL, ROOT, wait_until
from postgresql import Connection
from store import Record, Store

PAT_SYNC = str(ROOT / "scripts" / "pat-sync")
RECORDER = ROOT / "t" / "sync" / "recorder"


def records_of(connection: Connection) -> dict[str, Record]:
    """What a store should hold: the rows of a snapshot, by digest, as `patctl export` writes them."""
    lines = connection.execute("SELECT change FROM pat.snapshot()").fetchall()
    records = [json.loads(line) for (line,) in lines]
    for record in records:
        assert record.pop("op") == "put"
    return {record["digest"]: record for record in records}


LOADED_TOKENS = """
    SELECT sha256(int8send(n)) AS digest, 'load-' || n AS id, 'user:' || n %% 1000 AS subject, 'daily upload' AS name,
        '{reports:read,orders:write}'::text[] AS scopes, now() AS issued_at, now() + interval '90 days' AS expires_at
    FROM generate_series(1, %s) AS n"""


def load(connection: Connection, count: int) -> None:
    """Tokens that were made elsewhere, in one transaction. Their triggers fire, as in real life."""
    connection.execute(
        f"INSERT INTO pat.token (digest, id, subject, name, scopes, issued_at, expires_at) {LOADED_TOKENS}", (count,))


def load_fast(connection: Connection, count: int) -> None:
    """The same without triggers, for very many; only for a database that has no other tokens."""
    connection.execute("ALTER TABLE pat.token DISABLE TRIGGER USER")
    connection.execute(
        "INSERT INTO pat.token (digest, id, subject, name, scopes, issued_at, expires_at, seq, numbered_digest,"
        " numbered_hash) SELECT *, digest, pat.content_hash(digest, id, subject, name, scopes, '{}', issued_at, NULL,"
        " expires_at, NULL, '{}', seq) FROM"
        f" (SELECT *, nextval('pat.seq') AS seq FROM ({LOADED_TOKENS}) AS loaded) AS numbered",
        (count,))
    for name in ("token_before", "token_after", "at_commit", "token_truncate"):
        connection.execute(f"ALTER TABLE pat.token ENABLE ALWAYS TRIGGER {name}")
    connection.execute("VACUUM ANALYZE pat.token")


def make_another_snapshot_due(store: Store) -> None:
    """Leaves the store as an interrupted snapshot of its source would that has changed nothing yet."""
    found = store.stats()
    begin = {"op": "snapshot_begin", "epoch": found["epoch"], "seq": found["last_sequence"]}
    with suppress(RuntimeError):  # which says that the snapshot did not end
        store.patctl("apply", input=json.dumps(begin) + "\n")
    assert store.stats()["state"] == "resync"


def environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """Nothing of this host reaches pat-sync but PATH: no configuration, nor what is in a home, as .pgpass."""
    own = {"PAT_SYNC_CONFIG": os.devnull, "PAT_SYNC_PATCTL": PATCTL, "HOME": "/nonexistent",
           "PGPASSFILE": os.environ["PGPASSFILE"]}
    return {"PATH": os.environ["PATH"], **own, **(more or {})}


class PatSync:
    """A running pat-sync. What it logs goes to a file; `log_file` takes that of several, one after the other."""

    def __init__(self, *arguments: str | Path, env: dict[str, str] | None = None, log_file: Path | None = None) -> None:
        self._log = tempfile.TemporaryFile() if log_file is None else log_file.open("ab+")
        self._begin = self._log.seek(0, os.SEEK_END)
        self.process = subprocess.Popen([PAT_SYNC, *map(str, arguments)], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=self._log, env=environment(env))

    def __enter__(self) -> PatSync:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            print(*self.log, sep="\n", file=sys.stderr)
        self.stop()
        self._log.close()

    @property
    def log(self) -> list[str]:
        """The whole lines that it has logged."""
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), size - self._begin, self._begin).decode(errors="replace")
        return text.split("\n")[:-1]

    def find(self, pattern: str) -> list[str]:
        return [line for line in self.log if re.search(pattern, line)]

    def wait_for_line(self, pattern: str, count: int = 1) -> list[str]:
        wait_until(lambda: len(self.find(pattern)) >= count, f'"{pattern}" in the log')
        return self.find(pattern)

    def children(self) -> list[int]:
        """The process ids of patctl, or of what stands before it."""
        found = []
        with suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{self.process.pid}/task").iterdir():
                for pid in map(int, (task / "children").read_text().split()):
                    # Libraries run other programs when they are loaded.
                    if b"\0apply\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        found.append(pid)
        return found

    def child(self) -> int:
        wait_until(self.children, "patctl runs")
        return self.children()[0]

    def stop(self) -> int:
        """Ends it as systemd would; its exit status."""
        self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Sidecar:
    """A supervisor: restarts pat-sync whenever it has ended. Its store is in a folder, to which it adds logs: pat-sync.log,
    and acks of t/sync/recorder."""

    def __init__(self, source: str, folder: Path, ends: threading.Event, *options: str, patctl: str = PATCTL,
                 env: dict[str, str] | None = None) -> None:
        self.source = source
        self.folder = folder
        self.ends = ends
        self.current: PatSync | None = None
        self._options = options
        self._env = {"PATCTL": patctl, "RECORD": str(folder / "acks"), **(env or {})}

    def __call__(self) -> None:
        self.current = PatSync("--source", self.source, "--store", self.folder / "store", "--patctl", RECORDER,
                               *self._options, env=self._env, log_file=self.folder / "pat-sync.log")
        while self.current.process.poll() is None and not self.ends.is_set():
            self.ends.wait(0.02)

    def send(self, number: signal.Signals) -> bool:
        if self.current is None or self.current.process.poll() is not None:
            return False
        self.current.process.send_signal(number)
        return True

    def patctl(self) -> int | None:
        """The process id of the recorder's child, the last one that was recorded, if it runs."""
        with suppress(FileNotFoundError, ProcessLookupError):
            numbers = [line for line in (self.folder / "acks").read_text().splitlines() if line.startswith("pid ")]
            if numbers:
                pid = int(numbers[-1].split()[1])
                if b"apply" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        return None

    def send_to_patctl(self, number: signal.Signals) -> bool:
        pid = self.patctl()
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
                return True
        return False


def acknowledgements(record: Path) -> dict[str, int]:
    """When each revocation was acknowledged first."""
    result: dict[str, int] = {}
    for line in record.read_text().splitlines():
        time_text, _, digest = line.partition(" ")
        if time_text != "pid":
            result.setdefault(digest, int(time_text))
    return result


def pat_sync(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs it to its end."""
    command = [PAT_SYNC, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment(env))


def once(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return pat_sync("--once", *arguments, env=env)


def scrape(port: int) -> str:
    """The metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE) as answer:
        text: str = answer.read().decode()
        return text


def value(text: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found, f"{name} in {text}"
    return float(found[1])
