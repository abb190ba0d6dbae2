"""A caller's settings change neither the results of the functions nor what edges learn."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from postgresql import NOT_FOR_EVER, Connection, Database, PostgreSQL, issue, new_database, one
from psycopg.types.json import Json
from sidecar import once
from store import Store
from test_postgres import changes, number_found, pairs, snapshot, source

# Settings that any login can change, each with a value that is not the usual one.
HOSTILE: dict[str, dict[str, str]] = {
    "strings": {
        "standard_conforming_strings": "off", "backslash_quote": "off", "escape_string_warning": "off",
        "array_nulls": "off", "transform_null_equals": "on", "quote_all_identifiers": "on", "bytea_output": "escape",
        "xmlbinary": "hex", "xmloption": "document", "client_encoding": "UTF8", "gin_fuzzy_search_limit": "1",
        "default_text_search_config": "simple"},
    "numbers and times": {
        "DateStyle": "SQL, DMY", "IntervalStyle": "sql_standard", "TimeZone": "America/New_York",
        "extra_float_digits": "-15", "lc_numeric": "C", "lc_time": "C", "lc_monetary": "C"},
    "names": {"search_path": "pg_temp, pat", "row_security": "off", "check_function_bodies": "off"},
    "transactions": {
        "synchronous_commit": "off", "default_transaction_isolation": "repeatable read", "commit_siblings": "0",
        "default_transaction_deferrable": "on", "client_min_messages": "error", "vacuum_freeze_min_age": "0"},
    "plans": {
        "plan_cache_mode": "force_custom_plan", "jit": "on", "enable_indexscan": "off", "enable_seqscan": "off",
        "enable_nestloop": "off", "constraint_exclusion": "on", "work_mem": "64kB", "from_collapse_limit": "1",
        "geqo": "off", "default_toast_compression": "pglz"},
    "ours": {"pat.numbering": "1", "pat.notify": "maybe"},
}
HOSTILE["all"] = {name: value for group in HOSTILE.values() for name, value in group.items()}


def run_all(shop: Connection, edge: Connection, owner: Connection) -> list[Any]:
    """Calls every function, and returns the results without random values and times."""
    said: list[Any] = []
    shop.execute("SELECT pat.issue('ann', %s, ARRAY['a:b', 'c'], cidrs => ARRAY['192.0.2.0/24', '2001:db8::1'],"
                 " claims => %s, id => 't1')", ("na\\me", '{"plan": "pro", "a": ""}'))
    # These two end on the other side of a change of clocks, whenever this runs.
    for n, days in ((5, 182), (6, 240)):
        shop.execute("SELECT pat.issue('cleo', id => %s, expires_at => now() + %s * interval '24 hours')", (f"t{n}", days))
        said.append(one(shop, "SELECT id FROM pat.rotate(%s, overlap => '200 days', new_id => %s)", f"t{n}", f"t{n}b"))
    for n in (2, 3):
        shop.execute("SELECT pat.issue('bob', not_before => '2030-03-01 00:00:00+00', expires_at => '2031-01-01 00:00:00+00',"
                     " id => %s, digest => sha256(%s))", (f"t{n}", bytes([n])))
    said.append(one(shop, "SELECT id FROM pat.rotate('t1', overlap => '1 day', new_id => 't4')"))
    said.append(one(shop, "SELECT pat.revoke('t2')"))
    said.append(one(shop, "SELECT pat.revoke('t2')"))
    bads: list[dict[str, Any]] = [{"scopes": ["a\\b"]}, {"subject": "a\x01"}, {"subject": "a "}, {"scopes": ["a,b"]}, {"name": "\x7f"}]
    for bad in bads:
        with pytest.raises(psycopg.errors.CheckViolation):
            issue(shop, **{"subject": "ann", **bad})
    shop.execute("SET default_transaction_isolation = 'read committed'")
    said.append(one(shop, "SELECT pat.revoke_subject('bob')"))
    said.append(one(shop, "SELECT pat.purge(now() - interval '1 hour')"))
    with pytest.raises(psycopg.errors.CheckViolation):
        owner.execute("INSERT INTO pat.token (digest, id, subject) VALUES ('x', 'x', 'x')")
    uses = [{"id": "t1", "at": 1700000000, "from": "192.0.2.1", "count": 2}, {"id": "t1", "at": 1, "from": "unix:"},
            {"id": "\\", "at": 1}]
    said.append(one(edge, "SELECT pat.record_use('e', 7, %s)", Json(uses)))
    said.append(one(edge, "SELECT pat.record_use('e', 7, %s)", Json(uses)))
    said.append(one(edge, "SELECT pat.last_batch('e')"))
    said.append(source(edge)[1:])
    said.append(number_found(edge))
    for seq, digest, line in changes(edge):
        change = json.loads(line)
        lifetime = change.get("expires_at", 0) - change["issued_at"]
        times = {name: change.pop(name, None) is None for name in ("issued_at", "revoked_at", "expires_at")}
        said.append((seq, {**change, "digest": ""}, times, 0 if "not_before" in change else round(lifetime / 60)))
        assert one(edge, "SELECT pat.continues(%s, %s)", seq, digest.hex()[:16]) is True
    said.append(len(changes(edge, 0, only_revocations=True)))
    said.append(len(snapshot(edge)))
    said.append(pairs(shop, "SELECT id, status || uses FROM pat.tokens"))
    # Whoever writes the row again, its hash is the same.
    owner.execute("ALTER TABLE pat.token DISABLE TRIGGER ALL; UPDATE pat.token SET replaced_by = replaced_by")
    said.append(one(owner, "SELECT count(*) FROM pat.token WHERE NOT is_numbered"))
    return said


@pytest.fixture(scope="module")
def usual(server: PostgreSQL) -> list[Any]:
    with new_database(server, "pat_usual") as database, database.connect("shop") as shop, \
            database.connect("edge") as edge, database.connect() as owner:
        return run_all(shop, edge, owner)


@pytest.mark.parametrize("settings", HOSTILE.values(), ids=HOSTILE)
def test_every_function_does_the_same_whatever_is_set(
    database: Database, usual: list[Any], settings: dict[str, str]
) -> None:
    with database.connect("shop") as shop, database.connect("edge") as edge, database.connect() as owner:
        for connection in (shop, edge, owner):
            for name, value in settings.items():
                # Versions differ in what there is.
                if "." in name or one(connection, "SELECT count(*) FROM pg_settings WHERE name ILIKE %s", name):
                    connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        assert run_all(shop, edge, owner) == usual


def test_a_session_that_ends_at_its_first_error_has_none(database: Database) -> None:
    options = "-c exit_on_error=on"
    with database.connect("shop", options=options) as shop, database.connect("edge", options=options) as edge:
        token_id, _ = issue(shop)
        assert one(edge, "SELECT pat.record_use('e', 1, %s)", Json([{"id": token_id, "at": 1, "from": "unix:"}])) == 1
        assert one(shop, "SELECT pat.revoke(%s)", token_id) is True
        assert source(edge).position == 2


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
def test_whatever_the_isolation_an_edge_is_woken_and_numbers_count_on(database: Database, level: str) -> None:
    with database.connect("shop") as shop, database.connect("edge") as edge:
        shop.execute("SELECT set_config('default_transaction_isolation', %s, false)", (level,))
        received: list[psycopg.Notify] = []
        edge.add_notify_handler(received.append)
        edge.execute("LISTEN pat_changes")
        for n in range(1, 4):
            with shop.transaction():
                # What said once that all was done for this transaction.
                shop.execute("SELECT set_config('pat.numbering', pg_current_xact_id()::text, true)")
                issue(shop)
            edge.execute("SELECT 1")
            assert len(received) == n and source(edge).position == n


def test_a_sequence_that_fell_behind_catches_up_whatever_is_set(database: Database) -> None:
    with database.connect("shop") as shop, database.connect("edge") as edge, database.connect() as owner:
        for _ in range(3):
            issue(shop)
        owner.execute("SELECT setval('pat.seq', 1)")
        with shop.transaction():
            shop.execute("SELECT set_config('pat.numbering', pg_current_xact_id()::text, true)")
            issue(shop)
        assert source(edge).position == 4


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
@pytest.mark.parametrize("edge_level", ["read committed", "serializable"])
def test_a_number_below_the_cursor_of_an_edge_loses_no_revocation(
    database: Database, store: Store, level: str, edge_level: str
) -> None:
    """The sequence fell behind, as after a partial restore."""
    options = ("--source", database.url("edge"), "--store", store.folder)
    with database.connect("shop") as shop, database.connect() as owner:
        first, second = issue(shop)[0], issue(shop)[0]
        owner.execute("UPDATE pat.token SET name = 'n' WHERE id = %s", (first,))
        assert once(*options).returncode == 0
        owner.execute("SELECT setval('pat.seq', 1, false)")
        shop.execute("SELECT set_config('default_transaction_isolation', %s, false)", (level,))
        shop.execute("SELECT pat.revoke(%s)", (second,))
        try:
            owner.execute(f"ALTER ROLE edge SET default_transaction_isolation = '{edge_level}'")
            assert once(*options).returncode == 0
            assert store.tokens() == {first: "ok", second: "revoked"}
        finally:
            owner.execute("ALTER ROLE edge RESET ALL")
        assert not source(owner).unnumbered
        assert one(owner, "SELECT nextval('pat.seq') > pat.position()")


# As a restore puts them back, which a change that is SERIALIZABLE does not see.
PUT_SEQUENCES_BACK = (
    "SELECT setval(oid::regclass, CASE relname WHEN 'seq' THEN 1 ELSE 0 END, false) FROM pg_class"
    " WHERE relnamespace = 'pat'::regnamespace AND relname IN ('seq', 'highest')"
)


def test_a_sequence_that_caught_up_loses_no_revocation_if_the_transaction_is_rolled_back(
    database: Database, store: Store
) -> None:
    """Setting a sequence survives a rollback, unlike everything else."""
    options = ("--source", database.url("edge"), "--store", store.folder)
    with database.connect("shop") as shop, database.connect() as owner:
        a, b, c = (issue(shop)[0] for _ in range(3))
        owner.execute("UPDATE pat.token SET name = 'n' WHERE id = %s", (a,))
        assert once(*options).returncode == 0
        owner.execute(PUT_SEQUENCES_BACK)
        shop.execute("SET default_transaction_isolation = serializable")
        shop.execute("SELECT pat.revoke(%s)", (b,))
        assert one(owner, "SELECT seq FROM pat.token WHERE id = %s", b) == 1 and source(owner).unnumbered

        owner.execute("CREATE TABLE orders (n int PRIMARY KEY);"
                      " CREATE TABLE lines (n int REFERENCES orders DEFERRABLE INITIALLY DEFERRED)")
        with pytest.raises(psycopg.errors.ForeignKeyViolation), owner.transaction():
            owner.execute("UPDATE pat.token SET name = 'z' WHERE id = %s", (c,))
            owner.execute("INSERT INTO lines VALUES (7)")
        assert not source(owner).unnumbered
        assert once(*options).returncode == 0
        assert store.tokens() == {a: "ok", b: "revoked", c: "ok"}


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_sequence_that_fell_behind_is_not_overtaken_before_anyone_looks(
    database: Database, store: Store, level: str
) -> None:
    options = ("--source", database.url("edge"), "--store", store.folder)
    with database.connect("shop") as shop, database.connect() as owner:
        a, b, c = (issue(shop)[0] for _ in range(3))
        for name in ("n", "m"):
            owner.execute("UPDATE pat.token SET name = %s WHERE id = %s", (name, a))
        assert once(*options).returncode == 0
        owner.execute("SELECT setval('pat.seq', 3)")
        owner.execute("SELECT set_config('default_transaction_isolation', %s, false)", (level,))
        owner.execute("SELECT pat.revoke(%s)", (b,))
        owner.execute("UPDATE pat.token SET name = 'x' WHERE id = %s", (c,))
        assert one(owner, "SELECT array_agg(seq ORDER BY seq) FROM pat.token") == [5, 6, 7]
        assert not source(owner).unnumbered
        assert once(*options).returncode == 0
        assert store.tokens() == {a: "ok", b: "revoked", c: "ok"}


def test_each_time_that_the_sequence_fell_behind_is_another_epoch(database: Database) -> None:
    """Even after a restore or a crash that reset pat.catch_ups."""
    with database.connect("shop") as shop, database.connect() as owner:
        for _ in range(3):
            issue(shop)
        epochs = [source(owner).epoch]
        for _ in range(3):
            owner.execute(PUT_SEQUENCES_BACK)
            owner.execute("SELECT setval('pat.catch_ups', 0, false)")
            issue(shop)
            epochs.append(source(owner).epoch)
        owner.execute("SELECT pat.new_epoch()")
        epochs.append(source(owner).epoch)
        assert len(set(epochs)) == 5 and {len(epoch) for epoch in epochs} == {len(epochs[0])}


def test_an_update_of_the_schema_keeps_the_epoch_and_knows_the_highest_number(database: Database) -> None:
    with database.connect("shop") as shop, database.connect() as owner:
        # As the version before had it.
        owner.execute("DROP SEQUENCE pat.highest, pat.catch_ups; CREATE FUNCTION pat.catch_up() RETURNS void"
                      " LANGUAGE sql AS ''; ALTER FUNCTION pat.catch_up() OWNER TO pat_owner")
        for n in (1, 2, 3):
            owner.execute("ALTER TABLE pat.token DISABLE TRIGGER ALL")
            owner.execute("INSERT INTO pat.token (digest, id, subject, seq) VALUES (sha256(%s), %s, 'x', %s)", (bytes([n]), n, n))
        owner.execute("SELECT setval('pat.seq', 3)")
        database.install()
        assert one(owner, "SELECT pat.number_changes()") == 3
        epoch = source(owner).epoch
        database.install()
        issue(shop)
        assert source(owner).epoch == epoch == f"{epoch.rpartition('-')[0]}-{one(owner, 'SELECT epoch FROM pat.history')}"

        owner.execute("DROP SEQUENCE pat.highest")
        owner.execute("SELECT setval('pat.seq', 2)")
        database.install()
        shop.execute("SET default_transaction_isolation = serializable")
        issue(shop)
        assert source(owner)[1:2] == (8,) and source(owner).epoch != epoch

        # The install.sql of the version before makes its function again, and can call it.
        owner.execute("CREATE FUNCTION pat.catch_up() RETURNS void LANGUAGE sql AS ''")
        owner.execute("SELECT pat.catch_up()")


# --- what an edge can hold up ---


def report(edge: Connection, name: str, batch: int, *ids: str) -> int:
    uses = Json([{"id": id, "at": 1700000000} for id in ids])
    return int(one(edge, "SELECT pat.record_use(%s, %s, %s)", name, batch, uses))


@pytest.mark.parametrize("login", ["edge", "postgres"])
def test_an_open_report_holds_up_nobody(database: Database, login: str) -> None:
    with database.connect("shop", options=NOT_FOR_EVER) as shop, \
            database.connect("edge", autocommit=False) as slow, \
            database.connect(login, options=NOT_FOR_EVER) as quick:
        ids = [issue(shop)[0] for _ in range(3)]
        assert report(slow, "slow", 1, *ids) == 3
        assert report(slow, "other", 1) == 0
        for _ in range(2):
            slow.execute("SET CONSTRAINTS ALL IMMEDIATE")
        assert report(quick, "quick", 1, *ids) == 3
        shop.execute("SELECT pat.revoke(%s)", (ids[0],))
        with database.connect(options=NOT_FOR_EVER) as owner:
            owner.execute("UPDATE pat.token SET revoked_at = now() - interval '1 day' WHERE id = %s", (ids[0],))
        assert one(shop, "SELECT pat.purge(now() - interval '1 hour')") == 1
        assert pairs(shop, "SELECT id, uses FROM pat.tokens") == {ids[1]: 1, ids[2]: 1}
        slow.commit()
        assert pairs(shop, "SELECT id, uses FROM pat.tokens") == {ids[1]: 2, ids[2]: 2}
        assert one(quick, "SELECT pat.last_batch('quick')") == 1


def test_a_batch_that_two_report_at_once_counts_once(database: Database) -> None:
    with database.connect("shop") as shop, database.connect("edge", autocommit=False) as a, \
            database.connect("edge", autocommit=False) as b:
        token_id, _ = issue(shop)
        for connection in (a, b):
            report(connection, "e", 1, token_id)
            assert report(connection, "e", 1, token_id) == 0
        a.commit()
        b.commit()
        assert one(shop, "SELECT uses FROM pat.tokens") == 1


def test_a_login_has_no_more_edges_than_it_may(database: Database) -> None:
    with database.connect("edge") as edge, database.connect() as owner:
        report(owner, "of another login", 1)
        for first in (1, 701):
            edge.execute("SELECT count(pat.record_use('edge' || n, 1, '[]')) FROM generate_series(%s::int, %s::int) AS n",
                         (first, first + 699))
        names = {name for name, in owner.execute("SELECT name FROM pat.edge WHERE login = 'edge'").fetchall()}
        assert len(names) == 1000 and {f"edge{n}" for n in range(701, 1401)} <= names
        assert one(owner, "SELECT count(*) FROM pat.edge") == 1001
        assert one(owner, "SELECT count(*) FROM pat.use_report") == 0
        # One that is there takes nobody's place.
        report(edge, "edge1400", 2)
        assert one(owner, "SELECT count(*) FROM pat.edge") == 1001
        assert one(edge, "SELECT pat.last_batch('edge1400')") == 2
