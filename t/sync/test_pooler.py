"""A pooler in front of PostgreSQL, which gives each transaction or session a server that others used before."""

from __future__ import annotations

import re

import pytest
from basics import wait_until
from pooler import PgBouncer
from postgresql import Database, issue
from sidecar import PatSync, load, make_another_snapshot_due, once, pat_sync
from store import Store
from usage_server import UsageServer

FAST = ("--poll-interval", "0.1", "--heartbeat-interval", "0.3", "--query-timeout", "5")
TOLD = "info: the source is behind a pooler"


def only(pooler: PgBouncer, database: Database, servers: int) -> None:
    """Nothing is left on any of the servers that the pooler has for an edge."""
    found = pooler.states(database, servers)
    assert len({state[0] for state in found}) == servers
    assert {state[1:] for state in found} == {("0", "0", 0, 0, 0, '"$user", public', 0)}


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_what_is_issued_and_revoked_reaches_the_store(mode: str, database: Database, store: Store) -> None:
    with PgBouncer(database.server, mode) as pooler, database.connect() as owner:
        load(owner, 100)
        with PatSync("--source", pooler.url(database), "--store", store.folder, *FAST, "--batch", "10") as sync:
            wait_until(lambda: store.stats()["meta_tokens"] == 100, "the snapshot")
            for _ in range(12):  # more than psycopg asks for without preparing
                id, token = issue(owner)
                wait_until(lambda: store.verdict(token) == "ok", "the token")
                owner.execute("SELECT pat.revoke(%s)", (id,))
                wait_until(lambda: store.verdict(token) == "revoked", "the revocation")
            assert not sync.find("failed")

            # A pooler that is started again is no news.
            pooler.stop()
            sync.wait_for_line("failed")
            pooler.start()
            sync.wait_for_line("is back after")
            id, token = issue(owner)
            wait_until(lambda: store.verdict(token) == "ok", "the token")
            assert len(sync.find(TOLD)) == 1


def test_nothing_is_left_on_a_server_of_the_pooler(database: Database, store: Store) -> None:
    with PgBouncer(database.server, "transaction") as pooler, database.connect() as owner, UsageServer() as nginx:
        load(owner, 100)
        arguments = ("--source", pooler.url(database), "--store", store.folder, *FAST, "--batch", "10")
        with PatSync(*arguments, "--usage-url", nginx.url, "--edge", "e1", "--usage-interval", "0.1") as sync:
            wait_until(lambda: store.stats()["meta_tokens"] == 100, "the snapshot")
            nginx.use("load-1", 3)
            wait_until(lambda: nginx.is_reported, "the use")
            for _ in range(12):
                id, token = issue(owner)
                owner.execute("SELECT pat.revoke(%s)", (id,))
                wait_until(lambda: store.verdict(token) == "revoked", "the revocation")
            only(pooler, database, 4)
            assert not sync.find("failed|was not reported")
        only(pooler, database, 4)
        uses = owner.execute("SELECT uses FROM pat.tokens WHERE id = 'load-1'").fetchone()
        assert uses == (3,)


def test_a_pooler_in_session_mode_can_be_listened_through(database: Database, store: Store) -> None:
    with PgBouncer(database.server, "session") as pooler, database.connect() as owner:
        arguments = ("--source", pooler.url(database), "--store", store.folder, "--pooler", "session")
        with PatSync(*arguments, "--poll-interval", "3600", "--heartbeat-interval", "3600") as sync:
            wait_until(lambda: store.stats()["state"] == "ready", "the snapshot")
            _, token = issue(owner)
            wait_until(lambda: store.verdict(token) == "ok", "what NOTIFY tells")
            assert not sync.find(TOLD)
            assert sync.stop() == 0
        # As this pooler has no server_reset_query, the next client would listen.
        only(pooler, database, 2)


def test_a_connection_without_a_pooler_is_listened_on(database: Database, store: Store) -> None:
    with database.connect() as owner:
        arguments = ("--source", database.url("edge"), "--store", store.folder)
        with PatSync(*arguments, "--poll-interval", "3600", "--heartbeat-interval", "3600") as sync:
            wait_until(lambda: store.stats()["state"] == "ready", "the snapshot")
            _, token = issue(owner)
            wait_until(lambda: store.verdict(token) == "ok", "what NOTIFY tells")
            assert not sync.find(TOLD)


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_pool_of_one_is_told_at_once(mode: str, database: Database, store: Store) -> None:
    with PgBouncer(database.server, mode, size=1) as pooler:
        done = once("--source", pooler.url(database), "--store", store.folder, "--query-timeout", "20")
        assert done.returncode == 1
        assert "the pooler has no second server for this login" in done.stderr.splitlines()[-1]
        assert "raise its pool_size" in done.stderr.splitlines()[-1]
        assert store.stats()["state"] == "empty"


def test_a_pool_of_one_is_enough_for_changes(database: Database, store: Store) -> None:
    assert once("--source", database.url("edge"), "--store", store.folder).returncode == 0
    with database.connect() as owner:
        _, token = issue(owner)
    with PgBouncer(database.server, "transaction", size=1) as pooler:
        assert once("--source", pooler.url(database), "--store", store.folder).returncode == 0
        assert store.verdict(token) == "ok"
        make_another_snapshot_due(store)
        done = once("--source", pooler.url(database), "--store", store.folder, *FAST)
        assert "the pooler has no second server" in done.stderr.splitlines()[-1]


def test_a_pooler_in_statement_mode_is_refused(database: Database, store: Store) -> None:
    with PgBouncer(database.server, "statement") as pooler:
        done = once("--source", pooler.url(database), "--store", store.folder)
        assert done.returncode == 1
        assert "pool_mode = transaction or session" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_status_asks_through_a_pooler(mode: str, database: Database, store: Store) -> None:
    with PgBouncer(database.server, mode) as pooler:
        arguments = ("--source", pooler.url(database), "--store", store.folder, *FAST)
        with PatSync(*arguments):
            wait_until(lambda: store.stats()["state"] == "ready", "the snapshot")
            wait_until(lambda: pat_sync("status", *arguments).returncode == 0, "all is well")
            only(pooler, database, 2)


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_comparison_goes_through_a_pooler(mode: str, database: Database, store: Store) -> None:
    with PgBouncer(database.server, mode, size=2) as pooler, database.connect() as owner:
        load(owner, 100)
        arguments = ("--source", pooler.url(database), "--store", store.folder, "--batch", "10")
        assert once(*arguments).returncode == 0
        assert pat_sync("compare", *arguments).stdout == "tokens compared: 100\nthe store equals the source\n"
        owner.execute("ALTER TABLE pat.token DISABLE TRIGGER USER")
        owner.execute("DELETE FROM pat.token WHERE id = 'load-7'")
        done = pat_sync("compare", *arguments)
        assert (done.returncode, done.stdout.splitlines()[1]) == (1, "only in store: load-7")
        only(pooler, database, 2)


def test_an_option_that_a_pooler_refuses_is_told(database: Database, store: Store) -> None:
    with PgBouncer(database.server, "transaction") as pooler:
        done = once("--source", f"{pooler.url(database)}?options=-cwork_mem%3D4MB", "--store", store.folder)
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert re.search("unsupported startup parameter.* options.*: remove it from the source", last)
