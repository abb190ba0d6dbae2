"""From a database to a store, through pat-sync and patctl: afterwards they are equal, whatever happened between."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from basics import wait_until
from network import Network
from pat_sync.sources.postgresql import database as _mends_psycopg  # noqa: F401
from postgresql import Connection, Database, PostgreSQL, issue
from psycopg.pq import PGconn
from sidecar import PatSync, load, load_fast, make_another_snapshot_due, records_of
from store import Store

WRITERS = 16
SMALL_DISK_BYTES = 4 << 20


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "pat-sync.log"


@pytest.fixture
def pat_sync(database: Database, store: Store, log: Path) -> Iterator[PatSync]:
    with PatSync("--source", database.url("edge"), "--store", store.folder, log_file=log) as running:
        wait_until(lambda: store.stats()["state"] == "ready", "the first snapshot is there")
        yield running


def wait_until_equal(store: Store, connection: Connection, seconds: float = 30) -> None:
    wait_until(lambda: store.records() == records_of(connection), "the store equals the database", seconds)
    store.patctl("verify")


def test_issue_use_revoke(database: Database, store: Store, pat_sync: PatSync) -> None:
    with database.connect() as connection:
        id, token = issue(connection)
        wait_until(lambda: store.verdict(token) == "ok", "the token is known")
        connection.execute("SELECT pat.revoke(%s)", (id,))
        wait_until(lambda: store.verdict(token) == "revoked", "the token is revoked")
        wait_until_equal(store, connection)
    assert pat_sync.stop() == 0


def test_a_rotated_token_lives_on_for_the_overlap(database: Database, store: Store, pat_sync: PatSync) -> None:
    with database.connect() as connection:
        id, old = issue(connection)
        row = connection.execute("SELECT token FROM pat.rotate(%s, '2 seconds')", (id,)).fetchone()
        assert row is not None
        new: str = row[0]
        wait_until(lambda: store.verdict(new) == "ok", "the new token is known")
        assert store.verdict(old) in ("ok", "expired")
        wait_until(lambda: store.verdict(old) == "expired", "the old one has expired")
        assert store.verdict(new) == "ok"


def test_sixteen_writers_at_once(database: Database, store: Store, pat_sync: PatSync) -> None:
    """Short and long transactions and rollbacks, while an unrelated transaction is open that delays nothing."""
    failures: list[BaseException] = []

    def write(number: int) -> None:
        try:
            with database.connect(autocommit=False) as connection:
                for turn in range(40):
                    made = [issue(connection, f"user:{number}")[0] for _ in range(1 + turn % 3)]
                    if turn % 10 == number % 10:
                        connection.execute("SELECT pg_sleep(0.05)")
                    if turn % 7 == 0:
                        connection.rollback()
                        continue
                    connection.commit()
                    connection.execute("SELECT pat.revoke(%s)", (made[0],))
                    if turn % 5 == 0:
                        connection.execute("SELECT pat.revoke_subject(%s)", (f"user:{(number + 1) % WRITERS}",))
                    connection.commit()
        except BaseException as failure:
            failures.append(failure)

    with database.connect(autocommit=False) as unrelated, database.connect() as connection:
        unrelated.execute("CREATE TABLE of_others (n integer)")
        unrelated.execute("SELECT pg_current_xact_id()")
        threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
        for thread in threads:
            thread.start()

        slowest = 0.0
        for _ in range(20):
            id, token = issue(connection, "probe")
            wait_until(lambda: store.verdict(token) == "ok", "the token is known")
            began = time.monotonic()
            connection.execute("SELECT pat.revoke(%s)", (id,))
            wait_until(lambda: store.verdict(token) == "revoked", "the token is revoked")
            slowest = max(slowest, time.monotonic() - began)
        for thread in threads:
            thread.join()
        assert not failures
        wait_until_equal(store, connection)
        # The store is asked by starting patctl, on a machine that is busy with 16 writers.
        assert slowest < 2, "a revocation waited for something"
        assert len(store.records()) > WRITERS * 40
        assert unrelated.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS


def test_revocations_overtake_a_backlog(database: Database, store: Store, pat_sync: PatSync) -> None:
    with database.connect() as connection:
        id, token = issue(connection)
        wait_until(lambda: store.verdict(token) == "ok", "the token is known")
        os.kill(pat_sync.process.pid, signal.SIGSTOP)
        load(connection, 40000)
        connection.execute("SELECT pat.revoke(%s)", (id,))
        os.kill(pat_sync.process.pid, signal.SIGCONT)
        # Also where it takes minutes to load so many.
        wait_until(lambda: store.verdict(token) == "revoked", "the token is revoked", 120)
        assert store.stats()["meta_tokens"] < 40001, "everything that stood before it came before it"
        wait_until_equal(store, connection, 120)


def test_a_stopped_pat_sync_claims_nothing_when_it_comes_back(database: Database, store: Store, log: Path) -> None:
    with PatSync("--source", database.url("edge"), "--store", store.folder, "--heartbeat-interval", "0.1", log_file=log) as running:
        wait_until(lambda: store.stats()["heartbeat"] is not None, "there is a heartbeat")
        os.kill(running.process.pid, signal.SIGSTOP)
        stopped = time.time()
        wait_until(lambda: (store.stats()["heartbeat_age"] or 0) >= 3, "the store is three seconds old")
        assert store.stats()["heartbeat"] <= stopped + 1
        os.kill(running.process.pid, signal.SIGCONT)
        wait_until(lambda: (store.stats()["heartbeat_age"] or 9) <= 1, "the store is fresh again")


def test_a_new_epoch_brings_a_snapshot(database: Database, store: Store, pat_sync: PatSync) -> None:
    with database.connect() as connection:
        load(connection, 100)
        wait_until_equal(store, connection)
        before = store.stats()["epoch"]
        connection.execute("SELECT pat.new_epoch()")
        wait_until(lambda: store.stats()["epoch"] != before and store.stats()["state"] == "ready", "the epoch is new")
        id, token = issue(connection)
        wait_until(lambda: store.verdict(token) == "ok", "changes go on")
        wait_until_equal(store, connection)


def _advance_less(connection: Connection) -> None:
    issue(connection)


def _advance_further(connection: Connection) -> None:
    for _ in range(50):
        issue(connection)


@pytest.mark.parametrize("advance", [_advance_less, _advance_further], ids=["behind", "ahead"])
def test_a_database_that_was_put_back_to_an_older_state(
    store: Store, log: Path, advance: Callable[[Connection], None]
) -> None:
    """The database continues from an older copy, so the same numbers get another meaning."""
    with PostgreSQL() as server:
        server.start()
        server.install("postgres")
        server.create_login("edge", "pat_edge")
        with server.connect(autocommit=True) as connection:
            kept, kept_token = issue(connection)
            load(connection, 20)
        server.stop()
        server.save("older")
        server.start()

        with PatSync("--source", server.url("edge"), "--store", store.folder, log_file=log):
            with server.connect(autocommit=True) as connection:
                connection.execute("SELECT pat.revoke(%s)", (kept,))
                lost, lost_token = issue(connection)
                for _ in range(10):
                    issue(connection)
                wait_until(lambda: store.verdict(lost_token) == "ok", "the token is known")
                wait_until_equal(store, connection)
            server.stop()
            server.put_back("older")
            # Elsewhere, so that pat-sync sees it only once it has advanced.
            port, server.port = server.port, 0
            server.start()
            with server.connect(autocommit=True) as connection:
                advance(connection)
            server.stop()
            server.port = port
            server.start()
            with server.connect(autocommit=True) as connection:
                wait_until_equal(store, connection)
                assert store.verdict(lost_token) == "unknown"
                assert store.verdict(kept_token) == "ok", "the restored database is the truth"
                id, token = issue(connection)
                wait_until(lambda: store.verdict(token) == "ok", "changes go on")


def test_a_network_that_goes_dead(database: Database, store: Store, log: Path) -> None:
    with Network(database.server.port) as network:
        source = f"postgresql://edge@127.0.0.1:{network.port}/{database.name}"
        with PatSync("--source", source, "--store", store.folder, "--query-timeout", "1", log_file=log), database.connect() as connection:
            id, token = issue(connection)
            wait_until(lambda: store.verdict(token) == "ok", "the token is known")
            network.go_dead()
            connection.execute("SELECT pat.revoke(%s)", (id,))
            wait_until(lambda: "trying again" in log.read_text(), "pat-sync gives the connection up")
            assert store.verdict(token) == "ok"
            network.restore()
            wait_until(lambda: store.verdict(token) == "revoked", "the token is revoked")
            wait_until_equal(store, connection)


def test_what_nobody_was_woken_up_for_is_found_by_looking(database: Database, store: Store, log: Path) -> None:
    with database.connect() as connection:
        connection.execute("ALTER TABLE pat.token DISABLE TRIGGER USER")
        connection.execute("INSERT INTO pat.token (digest, id, subject) VALUES (sha256('quiet'), 'quiet', 'user:1')")
        with PatSync("--source", database.url("edge"), "--store", store.folder, log_file=log):
            wait_until(lambda: store.tokens() == {"quiet": "ok"}, "the token is known")
            connection.execute("UPDATE pat.token SET revoked_at = now()")
            wait_until(lambda: store.tokens() == {"quiet": "revoked"}, "the token is revoked", 5)


def test_notifications_leave_nothing_in_memory(database: Database) -> None:
    def memory_bytes() -> int:
        (size,) = re.findall(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(size) << 10

    count, size = 5000, 7000
    pgconn = PGconn.connect(database.server.socket_url("postgres", database.name).encode())
    pgconn.exec_(b"LISTEN large")
    seen = 0
    before = 0
    with database.connect() as connection:
        for number in range(count):
            connection.execute("SELECT pg_notify('large', repeat('x', %s))", (size,))
            # The first ones are for what grows once.
            if number == count // 10:
                before = memory_bytes()
            pgconn.consume_input()
            while pgconn.notifies() is not None:
                seen += 1
    grown = memory_bytes() - before
    pgconn.finish()
    assert seen > count // 2
    assert grown < seen * size // 4


def test_another_pepper_stops_it(database: Database, store: Store, log: Path) -> None:
    with database.connect() as connection:
        connection.execute("SELECT pat.use_pepper(%s)", (b"p" * 32,))
    with PatSync("--source", database.url("edge"), "--store", store.folder, log_file=log) as running:
        running.wait_for_line("pepper")
        assert store.stats()["state"] == "empty"


# --- a full disk ---


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_delays_and_loses_nothing(database: Database, tmp_path: Path, log: Path) -> None:
    with small_disk(tmp_path / "disk") as disk, database.connect() as connection:
        store = Store(disk / "store")
        with PatSync("--source", database.url("edge"), "--store", store.folder, log_file=log) as running:
            id, token = issue(connection)
            wait_until(lambda: store.verdict(token) == "ok", "the token is known")

            ballast = disk / "ballast"
            free = os.statvfs(disk)
            ballast.write_bytes(b"x" * (free.f_bavail * free.f_frsize - (100 << 10)))
            load(connection, 5000)
            connection.execute("SELECT pat.revoke(%s)", (id,))
            running.wait_for_line("full")
            assert store.verdict(token) in ("ok", "revoked"), "it goes on serving"
            store.patctl("verify")

            ballast.unlink()
            wait_until(lambda: store.verdict(token) == "revoked", "the token is revoked")
            wait_until_equal(store, connection)
            assert running.process.poll() is None


# --- many tokens ---


def test_a_snapshot_of_many_tokens_killed_in_the_middle(database: Database, store: Store, log: Path) -> None:
    """Changes go on while it is taken, and the next one completes it; an unchanged one writes next to nothing."""
    count = int(os.environ.get("PAT_TOKENS", "1000000"))
    with database.connect() as connection:
        load_fast(connection, count)

        with PatSync("--source", database.url("edge"), "--store", store.folder, log_file=log) as first:
            wait_until(lambda: store.stats()["state"] == "resync", "the snapshot has begun")
            id, token = issue(connection)
            wait_until(lambda: store.verdict(token) == "ok", "changes go on")
            assert store.stats()["state"] == "resync"
            connection.execute("SELECT pat.revoke(%s)", (id,))
            wait_until(lambda: store.verdict(token) == "revoked", "so do revocations")
            first.kill()
        store.patctl("verify")
        assert store.stats()["state"] == "resync"

        with PatSync("--source", database.url("edge"), "--store", store.folder, log_file=log) as second:
            wait_until(lambda: store.stats()["meta_tokens"] > count // 10, "the snapshot is being written", 120)
            os.kill(second.child(), signal.SIGKILL)
            second.kill()
        store.patctl("verify")
        issue(connection)

        with PatSync("--source", database.url("edge"), "--store", store.folder, log_file=log):
            wait_until(lambda: store.stats()["state"] == "ready", "the snapshot is complete", 120)
            wait_until_equal(store, connection, 60)

        found = store.stats()
        make_another_snapshot_due(store)
        assert PatSync("--source", database.url("edge"), "--store", store.folder, "--once", log_file=log).process.wait(120) == 0
        after = store.stats()
        assert after["state"] == "ready"
        assert after["commit"] - found["commit"] <= 5
        assert after["file_size"] <= found["file_size"] * 1.01
