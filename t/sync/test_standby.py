"""A standby as the source, several behind one address, and what the heartbeat says then; and changes without a number."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from basics import free_port, wait_until
from network import Network
from postgresql import Database, PostgreSQL, new_database, prepare
from sidecar import PatSync, make_another_snapshot_due, once, pat_sync, scrape, value
from store import Store

FAST = ("--poll-interval", "0.1", "--heartbeat-interval", "0.1")

# What docs/pat-sync.md has the primary write, so that its standbys know that nothing else happened.
WRITE = "SELECT pg_logical_emit_message(true, 'pat', '')"


class Alternating(Network):
    """Forwards connections to two ports in turn."""

    def __init__(self, first: int, second: int) -> None:
        self._targets = (("127.0.0.1", second), ("127.0.0.1", first))
        self._accepted = 0
        super().__init__(first)

    def _accept(self) -> None:
        self._accepted += 1
        self._to = self._targets[self._accepted % 2]
        super()._accept()


class Cluster(SimpleNamespace):
    """A primary, two standbys, and a third one that follows the first standby."""

    primary: PostgreSQL
    standby: PostgreSQL
    other: PostgreSQL
    cascading: PostgreSQL


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    settings = {"wal_receiver_status_interval": "1s", "wal_sender_timeout": "2s"}
    servers = [PostgreSQL(fsync=False, settings=settings) for _ in range(4)]
    try:
        primary, standby, other, cascading = servers
        primary.start()
        prepare(primary)
        primary.psql("GRANT pg_read_all_stats TO edge")
        standby.become_standby_of(primary)
        other.become_standby_of(primary)
        standby.start()
        other.start()
        cascading.become_standby_of(standby)
        cascading.start()
        yield Cluster(primary=primary, standby=standby, other=other, cascading=cascading)
    finally:
        for server in servers:
            server.close()


@pytest.fixture
def shop(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Database]:
    with new_database(cluster.primary, f"shop_{abs(hash(request.node.name))}") as made:
        yield made


def put(shop: Database, *ids: str) -> None:
    with shop.connect() as connection:
        for id in ids:
            connection.execute(
                "INSERT INTO pat.token (digest, id, subject) VALUES (sha256(%s), %s, 'user:1')", (id.encode(), id)
            )


def revoke(shop: Database, id: str) -> None:
    with shop.connect() as connection:
        connection.execute("UPDATE pat.token SET revoked_at = now() WHERE id = %s", (id,))


def url(server: PostgreSQL, shop: Database) -> str:
    return server.url("edge", shop.name)


def status(source: str, store: Store) -> subprocess.CompletedProcess[str]:
    # The query timeout is a part of what a heartbeat may be old: a slow machine takes seconds from a change to the end of
    # this.
    return pat_sync("status", "--source", source, "--store", store.folder, *FAST, "--query-timeout", "8")


def test_a_lagging_server_behind_the_same_address_changes_nothing(
    cluster: Cluster, shop: Database, store: Store
) -> None:
    put(shop, "a", "b")
    for server in (cluster.standby, cluster.other):
        server.catch_up(shop.server)
    cluster.other.psql("SELECT pg_wal_replay_pause()")
    try:
        revoke(shop, "a")
        cluster.standby.catch_up(shop.server)
        assert once("--source", url(cluster.standby, shop), "--store", store.folder).returncode == 0
        assert store.tokens() == {"a": "revoked", "b": "ok"}
        epoch = store.stats()["epoch"]

        make_another_snapshot_due(store)
        with Alternating(cluster.standby.port, cluster.other.port) as network:
            source = f"postgresql://edge@127.0.0.1:{network.port}/{shop.name}"
            with PatSync("--source", source, "--store", store.folder, *FAST) as sync:
                sync.wait_for_line("it leads to another server, which lags", 3)
                assert store.tokens()["a"] == "revoked"
                assert store.stats()["epoch"] == epoch
                assert not sync.find("patctl failed")
                cluster.other.psql("SELECT pg_wal_replay_resume()")
                wait_until(lambda: store.stats()["state"] == "ready", "a snapshot")
                assert (store.tokens()["a"], store.stats()["epoch"]) == ("revoked", epoch)
    finally:
        cluster.other.psql("SELECT pg_wal_replay_resume()")


def test_another_history_is_not_believed_of_a_standby(cluster: Cluster, shop: Database, store: Store) -> None:
    put(shop, "a", "b")
    assert once("--source", shop.url("edge"), "--store", store.folder).returncode == 0
    found = store.stats()
    number = found["cursor"].partition(":")[0]
    lines = [{"op": "commit", "cursor": f"{number}:0123456789abcdef"}]
    store.patctl("apply", input="".join(json.dumps(line) + "\n" for line in lines))
    cluster.standby.catch_up(shop.server)
    done = once("--source", url(cluster.standby, shop), "--store", store.folder)
    assert done.returncode == 1
    assert "a standby is not trusted in this" in done.stderr
    assert store.stats()["epoch"] == found["epoch"]
    # The primary knows.
    assert once("--source", shop.url("edge"), "--store", store.folder).returncode == 0
    assert store.stats()["epoch"] == f"{found['epoch']}#1"


def test_once_from_a_standby_ends(cluster: Cluster, shop: Database, store: Store) -> None:
    put(shop, "a")
    cluster.standby.catch_up(shop.server)
    done = once("--source", url(cluster.standby, shop), "--store", store.folder)
    assert done.returncode == 0
    assert store.tokens() == {"a": "ok"}
    # How old this is, nobody knows.
    assert (store.stats()["heartbeat"] or 0) <= 1

    cluster.standby.psql("SELECT pg_wal_replay_pause()")
    try:
        put(shop, "b")
        assert once("--source", shop.url("edge"), "--store", store.folder).returncode == 0
        done = once("--source", url(cluster.standby, shop), "--store", store.folder)
        assert done.returncode == 1
        assert "behind the store" in done.stderr
    finally:
        cluster.standby.psql("SELECT pg_wal_replay_resume()")


def test_the_heartbeat_of_a_standby_follows_what_it_receives(cluster: Cluster, shop: Database, store: Store) -> None:
    put(shop, "a")
    cluster.standby.catch_up(shop.server)
    source = url(cluster.standby, shop)

    def write_until_well() -> None:
        def is_well() -> bool:
            shop.psql(WRITE)
            return status(source, store).returncode == 0

        wait_until(is_well, "all is well")

    with PatSync("--source", source, "--store", store.folder, *FAST):
        wait_until(lambda: store.tokens() == {"a": "ok"}, "the token")
        began = time.time()
        write_until_well()
        assert began - 2 <= store.stats()["heartbeat"] <= time.time()

        # Nobody knows whether its primary is idle or gone.
        wait_until(lambda: "is the primary idle, or" in status(source, store).stdout, "an old heartbeat")
        assert "the store is 0 changes behind" in status(source, store).stdout
        write_until_well()

        # What it has received and not replayed, it does not have.
        cluster.standby.psql("SELECT pg_wal_replay_pause()")
        try:
            paused_at = time.time()
            put(shop, "b")
            for _ in range(15):
                shop.psql(WRITE)
                time.sleep(0.2)
            assert store.stats()["heartbeat"] <= paused_at + 1
            assert "b" not in store.tokens()
        finally:
            cluster.standby.psql("SELECT pg_wal_replay_resume()")
        wait_until(lambda: "b" in store.tokens(), "the other token")
        write_until_well()


def test_changes_without_a_number_are_told(database: Database, store: Store) -> None:
    """The edge cannot have them numbered, as on a standby."""
    port = free_port()
    held = 'pat_sync_heartbeat_held{reason="unnumbered"}'
    source = f"{database.url('edge')}?options=-c%20default_transaction_read_only%3Don"
    with PatSync(
        "--source", source, "--store", store.folder, "--metrics-listen", f"127.0.0.1:{port}", *FAST
    ) as sync:
        wait_until(lambda: status(source, store).returncode == 0, "all is well")
        assert value(scrape(port), held) == 0
        with database.connect() as connection:
            connection.execute("ALTER TABLE pat.token DISABLE TRIGGER USER")
            put(database, "a")
            database.install()
            sync.wait_for_line("error: the source has changes without a number")
            heartbeat = store.stats()["heartbeat"]
            put(database, "b")
            wait_until(lambda: store.tokens() == {"b": "ok"}, "what has a number")
            started = time.monotonic()
            wait_until(lambda: time.monotonic() > started + 1.5, "heartbeats that might come")
            assert store.stats()["heartbeat"] <= heartbeat + 1
            assert len(sync.find("without a number")) == 1
            assert value(scrape(port), held) == 1
            done = status(source, store)
            assert done.returncode == 1
            assert "wrong: the source has changes without a number" in done.stdout
            # The next look of an edge that may write numbers them.
            other = Store(store.folder.parent / "other")
            assert once("--source", database.url("edge"), "--store", other.folder).returncode == 0
        wait_until(lambda: store.tokens() == other.tokens() == {"a": "ok", "b": "ok"}, "all")
        wait_until(lambda: status(source, store).returncode == 0, "all is well")
        assert value(scrape(port), held) == 0


# The last: the primary does not come back.
def test_a_cascading_standby_whose_primary_is_gone_gets_old(cluster: Cluster, shop: Database, store: Store) -> None:
    put(shop, "a")
    cluster.cascading.catch_up(shop.server)
    with PatSync("--source", url(cluster.cascading, shop), "--store", store.folder, *FAST):

        def has_heartbeat() -> bool:
            shop.psql(WRITE)
            return (store.stats()["heartbeat"] or 0) > 1

        wait_until(has_heartbeat, "a heartbeat")
        cluster.primary.kill()
        gone_at = time.time()
        wait_until(lambda: time.time() > gone_at + 5, "five seconds")
        assert store.tokens() == {"a": "ok"}
        assert store.stats()["heartbeat"] <= gone_at + 1
