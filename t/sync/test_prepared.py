"""Two-phase commit: a prepared transaction does not delay other revocations, and none of its changes is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import psycopg
import pytest
from basics import wait_until
from postgresql import NOT_FOR_EVER, Connection, Database, PostgreSQL, issue, new_database, one, prepare
from psycopg import errors
from sidecar import PatSync, pat_sync
from store import Store
from test_postgres import changes, insert, number_found, source

OFF = f"-c pat.notify=off {NOT_FOR_EVER}"


@pytest.fixture(scope="module")
def prepared_server() -> Iterator[PostgreSQL]:
    with PostgreSQL(fsync=False, settings={"max_prepared_transactions": "10"}) as made:
        made.start()
        prepare(made)
        yield made


@pytest.fixture
def database(prepared_server: PostgreSQL) -> Iterator[Database]:
    with new_database(prepared_server, "pat_prepared") as made:
        yield made
        with made.connect() as connection:
            for (gid,) in connection.execute("SELECT gid FROM pg_prepared_xacts").fetchall():
                connection.execute(f"ROLLBACK PREPARED '{gid}'")


def prepare_as(database: Database, name: str, *queries: str) -> None:
    with database.connect("shop", options=OFF) as connection:
        connection.execute("BEGIN")
        for query in queries:
            connection.execute(query)
        connection.execute(f"PREPARE TRANSACTION '{name}'")


@pytest.mark.parametrize(
    "statement",
    ["PREPARE TRANSACTION 'a'", "prepare  transaction 'a';", "/* of * a ** driver */ PREPARE TRANSACTION 'a' ;",
     "-- a comment\n  PREPARE TRANSACTION 'a'"],
)
def test_without_the_setting_there_is_a_hint(shop: Connection, statement: str) -> None:
    shop.execute("BEGIN")
    issue(shop)
    with pytest.raises(errors.FeatureNotSupported, match="cannot be prepared") as caught:
        shop.execute(statement)
    assert "pat.notify = off" in str(caught.value.diag.message_hint)
    assert one(shop, "SELECT count(*) FROM pat.tokens") == 0


@pytest.mark.parametrize(
    "text", ["SELECT pat.issue('a', name => 'prepare transaction x')", "SELECT pat.issue('a') /* PREPARE TRANSACTION 'x' */",
             "BEGIN; SELECT pat.issue('PREPARE TRANSACTION a'); COMMIT"]
)
def test_only_that_statement_is_taken_for_it(shop: Connection, text: str) -> None:
    shop.execute(text)
    assert one(shop, "SELECT count(*) FROM pat.tokens") == 1


def test_another_revocation_reaches_the_edge_while_one_stays_prepared(
    database: Database, shop: Connection, store: Store
) -> None:
    tokens = dict(issue(shop, f"user:{n}") for n in range(4))
    a, b, c, d = tokens
    with PatSync("--source", database.url("edge"), "--store", store.folder, "--heartbeat-interval", "0.3") as sync:
        wait_until(lambda: set(store.tokens()) == set(tokens), "the tokens")
        prepare_as(database, "one", f"SELECT pat.revoke('{a}')", "SELECT pat.issue('user:9', id => 'new')")
        prepare_as(database, "two", f"SELECT pat.revoke('{b}')")
        shop.execute("SELECT pat.revoke(%s)", (c,))
        wait_until(lambda: store.verdict(tokens[c]) == "revoked", "the other revocation", 5)
        shop.execute("SELECT pat.revoke_subject('user:3')")
        wait_until(lambda: store.verdict(tokens[d]) == "revoked", "the revocation of a subject", 5)
        assert store.tokens() == {a: "ok", b: "ok", c: "revoked", d: "revoked"}
        assert pat_sync("status", "--source", database.url("edge"), "--store", store.folder).returncode == 0

        shop.execute("COMMIT PREPARED 'one'")
        wait_until(lambda: store.tokens() == {a: "revoked", b: "ok", c: "revoked", d: "revoked", "new": "ok"},
                   "what was prepared", 5)
        shop.execute("ROLLBACK PREPARED 'two'")
        heartbeat = store.stats()["heartbeat"]
        wait_until(lambda: store.stats()["heartbeat"] > heartbeat + 1, "heartbeats")
        assert store.tokens()[b] == "ok"
        assert not sync.find("error:")


def test_the_setting_decides_only_when_a_change_is_looked_for(shop: Connection, edge: Connection) -> None:
    received: list[psycopg.Notify] = []
    edge.add_notify_handler(received.append)
    edge.execute("LISTEN pat_changes")
    for setting in ("off", "FALSE", "no", "0"):
        shop.execute(f"SET pat.notify = '{setting}'")
        token_id, _ = issue(shop)
        edge.execute("SELECT 1")
        assert received == [] and changes(edge, source(edge).position) == []
        position = source(edge).position
        assert len(number_found(edge)) == 1
        edge.execute("SELECT 1")
        assert len(received) == 1
        ((_, _, line),) = changes(edge, position)
        assert json.loads(line)["id"] == token_id
        received.clear()
    for setting in ("on", "", "sometimes"):
        shop.execute(f"SET pat.notify = '{setting}'")
        issue(shop)
        assert not source(edge).unnumbered


def test_deletions_can_be_prepared(database: Database, edge: Connection) -> None:
    with database.connect(options=OFF) as owner:
        insert(owner)
        assert number_found(edge) == [bytes(32)]
        owner.execute("BEGIN; DELETE FROM pat.token")
        owner.execute("PREPARE TRANSACTION 'a'")
        assert number_found(edge) == []
        owner.execute("COMMIT PREPARED 'a'")
        assert source(edge).unnumbered and number_found(edge) == [bytes(32)]
        assert [json.loads(line)["op"] for _, _, line in changes(edge, 1)] == ["delete"]
        assert not source(edge).unnumbered


def test_numbering_does_not_wait_for_what_is_prepared(database: Database, shop: Connection, edge: Connection) -> None:
    """The status reports it, as changes committed before are not numbered either."""
    with database.connect("shop", options=OFF) as quiet:
        token_id, _ = issue(quiet)
        other_id, _ = issue(quiet)
    prepare_as(database, "a", f"SELECT pat.revoke('{token_id}')")
    assert len(number_found(edge)) == 2
    assert len(number_found(edge)) == 1
    assert [json.loads(line)["id"] for _, _, line in changes(edge)] == [other_id]
    shop.execute("COMMIT PREPARED 'a'")
    assert len(number_found(edge)) == 1 and number_found(edge) == []


@pytest.mark.parametrize("query", ["SELECT pat.number_found()", "SELECT pat.record_use('e', 1, '[]')"])
def test_an_edge_can_not_prepare_what_would_hold_others_up(database: Database, shop: Connection, query: str) -> None:
    with database.connect("shop", options=OFF) as quiet:
        issue(quiet)
    with database.connect("edge", options=OFF) as edge:
        edge.execute("BEGIN")
        edge.execute(query)
        with pytest.raises(psycopg.Error, match="PREPARE|prepared"):
            edge.execute("PREPARE TRANSACTION 'a'")
    issue(shop)


def test_an_edge_that_follows_many_such_changes_has_fresh_heartbeats(
    database: Database, store: Store
) -> None:
    """Each look finds new changes without a number, which is not a problem."""
    options = ("--source", database.url("edge"), "--store", store.folder)
    with PatSync(*options, "--poll-interval", "0.2", "--heartbeat-interval", "0.2") as sync, \
            database.connect("shop", options=OFF) as quiet:
        started = time.time()
        while time.time() < started + 6:
            issue(quiet)
        assert store.stats()["heartbeat"] >= started + 2
        wait_until(lambda: len(store.tokens()) == one(quiet, "SELECT count(*) FROM pat.tokens"), "all tokens")
        assert not sync.find("error:")
