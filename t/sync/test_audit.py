"""The audit: every change of a token leaves an entry, which nobody changes; readers miss none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import psycopg
import pytest
from basics import wait_until
from postgresql import NOT_FOR_EVER, Connection, Database, PostgreSQL, issue, one
from psycopg import errors
from psycopg.types.json import Jsonb
from test_pages import rows
from test_postgres import (
    REPEATABLE_READ,
    changes,
    digest_of,
    insert,
    publisher_and_subscriber,
    source,
    waiting,
    workers,
)


class Entry(NamedTuple):
    event: str
    id: str | None
    subject: str | None
    actor: str | None
    client: str | None
    login: str
    detail: dict[str, Any]


def entries(connection: Connection) -> list[Entry]:
    return [Entry(*row) for row in connection.execute(
        "SELECT event, id, subject, actor, host(client), login, detail FROM pat.audit_log ORDER BY entry")]


def last(connection: Connection) -> Entry:
    return entries(connection)[-1]


def exported(connection: Connection, after: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
    return [{**json.loads(line), "number": number} for number, line in connection.execute(
        'SELECT number, line FROM pat.audit_lines(%s, "limit" => %s)', (after, limit))]


# What leaves an entry


def test_each_event_leaves_an_entry(owner: Connection, shop: Connection) -> None:
    issue(shop, id="x", name="CI", scopes=["read"], cidrs=["10.0.0.0/8"], claims=Jsonb({"a": "b"}),
          expires_at="2100-01-01 00:00:00+00")
    content = {"name": "CI", "scopes": ["read"], "cidrs": ["10.0.0.0/8"], "claims": {"a": "b"},
               "expires_at": "2100-01-01T00:00:00+00:00"}
    assert entries(owner) == [Entry("issued", "x", "alice", None, None, "shop", content)]
    shop.execute("SELECT pat.rotate('x', new_id => 'y')")
    new, old = entries(owner)[1:]
    assert (new.event, new.id, old.event, old.id) == ("issued", "y", "rotated", "x")
    assert old.detail["replaced_by"] == [None, "y"] and old.detail["expires_at"][0] == content["expires_at"]
    assert set(old.detail) == {"replaced_by", "expires_at"}

    shop.execute("SELECT pat.revoke('x')")
    assert last(owner) == Entry("revoked", "x", "alice", None, None, "shop", {})
    assert one(shop, "SELECT pat.revoke('x')") is False
    assert len(entries(owner)) == 4, "a call that changes nothing leaves no entry"
    shop.execute("SELECT pat.revoke_subject('alice')")
    assert last(owner) == Entry("revoked", "y", "alice", None, None, "shop", {})

    owner.execute("UPDATE pat.token SET revoked_at = NULL WHERE id = 'x'")
    assert last(owner)[:3] == ("restored", "x", "alice") and last(owner).login == "postgres"
    owner.execute("UPDATE pat.token SET name = ' z ', scopes = '{read,write}' WHERE id = 'x'")
    assert last(owner)[0] == "changed"
    assert last(owner).detail == {"name": ["CI", "z"], "scopes": [["read"], ["read", "write"]]}
    owner.execute("UPDATE pat.token SET revoked_at = '2020-01-01 00:00:00+00' WHERE id = 'x'")
    assert last(owner)[0] == "revoked" and last(owner).detail == {"revoked_at": [None, "2020-01-01T00:00:00+00:00"]}
    count = len(entries(owner))
    owner.execute("UPDATE pat.token SET name = name, seq = NULL")
    assert len(entries(owner)) == count

    assert one(shop, "SELECT pat.purge(now() - interval '1 year')") == 1
    assert last(owner) == Entry("deleted", "x", "alice", None, None, "shop", {})
    owner.execute("DELETE FROM pat.token")
    assert last(owner)[:3] == ("deleted", "y", "alice")
    insert(owner, id="z", revoked_at="2020-01-01 00:00:00+00")
    assert last(owner)[0] == "issued" and last(owner).detail == {"revoked_at": "2020-01-01T00:00:00+00:00"}


@pytest.mark.parametrize(
    ("column", "value"),
    [("subject", "bob"), ("name", "n"), ("scopes", ["s"]), ("cidrs", ["192.0.2.0/24"]), ("issued_at", "2020-01-01"),
     ("not_before", "2020-01-01"), ("expires_at", "2100-01-01"), ("revoked_at", "2020-01-01"),
     ("claims", Jsonb({"a": "b"})), ("replaced_by", "y")])
def test_each_column_counts(owner: Connection, column: str, value: Any) -> None:
    insert(owner)
    owner.execute(f"UPDATE pat.token SET {column} = %s", (value,))
    assert len(entries(owner)) == 2 and column in last(owner).detail


def test_what_is_rolled_back_leaves_no_entry(owner: Connection) -> None:
    with pytest.raises(ZeroDivisionError), owner.transaction():
        issue(owner)
        raise ZeroDivisionError
    assert entries(owner) == []


def test_policies_and_classes_leave_entries(owner: Connection) -> None:
    owner.execute("SELECT pat.set_policy('free', most_tokens => 3), pat.set_class('alice', 'free')")
    owner.execute("SELECT pat.set_class('alice')")
    owner.execute("SELECT pat.drop_policy('free')")
    assert [(entry.event, entry.subject, entry.detail) for entry in entries(owner)] == [
        ("policy", None, {"class": "free", "expiry_demanded": False, "most_tokens": 3}),
        ("class", "alice", {"class": "free"}), ("class", "alice", {"class": "default"}),
        ("policy", None, {"class": "free", "dropped": True})]


def test_no_role_of_a_session_and_no_setting_leaves_one_out(owner: Connection) -> None:
    for setting in ("session_replication_role = replica", "pat.notify = off", "row_security = off",
                    "default_transaction_isolation = serializable", "synchronous_commit = off"):
        owner.execute(f"SET {setting}")
        insert(owner)
        owner.execute("UPDATE pat.token SET revoked_at = now()")
        owner.execute("DELETE FROM pat.token")
        assert [entry.event for entry in entries(owner)[-3:]] == ["issued", "revoked", "deleted"], setting
        owner.execute("RESET ALL")


def test_the_numbering_leaves_none_and_numbers_as_before(owner: Connection, edge: Connection) -> None:
    with owner.transaction():
        for number in range(3):
            issue(owner, id=str(number))
        owner.execute("SELECT pat.revoke('1')")
    assert [(seq, json.loads(line)["id"]) for seq, _, line in changes(edge)] == [(1, "0"), (2, "1"), (3, "2")]
    assert len(entries(owner)) == 4
    owner.execute("SELECT pat.new_epoch()")
    owner.execute("SELECT pat.number_changes()")
    assert len(entries(owner)) == 4


# Who


def test_each_function_says_who_and_from_where(
    owner: Connection, shop: Connection, profile: Connection, admin: Connection
) -> None:
    by_platform = ("cron", "203.0.113.7", "shop")
    shop.execute("SELECT pat.issue('a', id => '1', actor => 'cron', client => '203.0.113.7')")
    shop.execute("SELECT pat.rotate('1', new_id => '2', actor => 'cron', client => '203.0.113.7')")
    shop.execute("SELECT pat.revoke('1', actor => 'cron', client => '203.0.113.7')")
    shop.execute("SELECT pat.revoke_subject('a', actor => 'cron', client => '203.0.113.7')")
    assert [entry[3:6] for entry in entries(owner)] == [by_platform] * 5

    for connection, call, actor in ((profile, "_for('a', ", "a"), (admin, "_as('root', ", "root")):
        count = len(entries(owner))
        issue_call = f"pat.issue{call}" if connection is profile else f"pat.issue{call}'a', "
        _, token = connection.execute(f"SELECT * FROM {issue_call}client => '2001:db8::1')").fetchall()[0]
        token_id = last(owner).id
        connection.execute(f"SELECT pat.rotate{call}%s, client => '2001:db8::1')", (token_id,))
        connection.execute(f"SELECT pat.revoke{call}%s, client => '2001:db8::1')", (token_id,))
        _, token = connection.execute(f"SELECT * FROM {issue_call}client => '2001:db8::1')").fetchall()[0]
        connection.execute(f"SELECT pat.revoke_digest{call}%s, client => '2001:db8::1')", (digest_of(token),))
        subject = "" if connection is profile else "'a', "
        connection.execute(f"SELECT pat.revoke_all{call}{subject}client => '2001:db8::1')")
        found = [(entry.event, *entry[3:6]) for entry in entries(owner)[count:]]
        wanted = (actor, "2001:db8::1", connection.info.user)
        assert found == [(event, *wanted) for event in (
            "issued", "issued", "rotated", "revoked", "issued", "revoked", "revoked")]


def test_who_acts_is_said_for_one_call(owner: Connection, shop: Connection) -> None:
    with shop.transaction():
        issue(shop, actor="one", client="192.0.2.1")
        issue(shop)
        shop.execute("SET LOCAL pat.actor = 'two'; SET LOCAL pat.client = '192.0.2.2'")
        issue(shop, actor="three")
        issue(shop)
    issue(shop)
    assert [entry[3:5] for entry in entries(owner)] == [
        ("one", "192.0.2.1"), (None, None), ("three", "192.0.2.2"), ("two", "192.0.2.2"), (None, None)]


def test_an_operator_can_say_who_acts(owner: Connection) -> None:
    insert(owner)
    owner.execute("BEGIN; SET LOCAL pat.actor = 'ticket 4711'; DELETE FROM pat.token; COMMIT")
    assert last(owner)[3:6] == ("ticket 4711", None, "postgres")
    assert owner.execute("SELECT login_from FROM pat.audit_log").fetchall() == [(None,), (None,)]


def test_what_a_role_can_forge(database: Database, owner: Connection, profile: Connection, admin: Connection) -> None:
    """The login is always true; the page of users is always the subject; an administrator is somebody."""
    for connection in (profile, admin):
        connection.execute("SET pat.actor = 'somebody else'; SET pat.client = '192.0.2.66'")
    profile.execute("SELECT pat.issue_for('alice', client => '192.0.2.1')")
    admin.execute("SELECT pat.issue_as('root', 'alice', client => '192.0.2.1')")
    admin.execute("SELECT pat.revoke_all_as('root', 'alice', '192.0.2.1')")
    assert [entry[3:6] for entry in entries(owner)] == [
        ("alice", "192.0.2.1", "profile"), *[("root", "192.0.2.1", "admin")] * 3]
    with database.connect("shop") as shop:
        shop.execute("SET pat.actor = 'somebody else'")
        issue(shop)
        assert last(owner)[3:6] == ("somebody else", None, "shop")
    with psycopg.connect(database.url("shop"), autocommit=True) as far:
        issue(far)
        (login_from,) = owner.execute("SELECT host(login_from) FROM pat.audit_log ORDER BY entry DESC LIMIT 1")
        assert login_from == ("127.0.0.1",)
    with owner.transaction():
        owner.execute("SET LOCAL ROLE pat_owner")
        insert(owner)
        assert last(owner).login == "postgres"


def test_odd_settings_keep_no_token_from_being_revoked(owner: Connection, shop: Connection) -> None:
    odd = (("", ""), ("ä" * 1000, "unix:"), ("a\nb", "x' OR 1"), ("\\", "1.2.3.4/33"))
    for number, (actor, client) in enumerate(odd):
        issue(owner, id=str(number))
        shop.execute("SELECT set_config('pat.actor', %s, false), set_config('pat.client', %s, false)", (actor, client))
        assert one(shop, "SELECT pat.revoke(%s)", str(number)) is True
        assert last(owner)[3:5] == (actor[:255] or None, None)


# What is in it


def test_neither_tokens_nor_digests_are_in_it(owner: Connection, profile: Connection, auditor: Connection) -> None:
    _, token = profile.execute("SELECT * FROM pat.issue_for('alice')").fetchall()[0]
    owner.execute("UPDATE pat.token SET name = 'x', expires_at = now()")
    owner.execute("ALTER TABLE pat.token DISABLE TRIGGER token_before")
    owner.execute("UPDATE pat.token SET name = 'y', digest = sha256(digest), seq = 17")
    assert last(owner).detail == {"name": ["x", "y"]}
    owner.execute("DELETE FROM pat.token")
    text = json.dumps([entry._asdict() for entry in entries(owner)]) + json.dumps(exported(auditor))
    for secret in (token, token[6:], digest_of(token).hex(), "digest", "numbered"):
        assert secret not in text


def test_a_user_sees_their_own(owner: Connection, profile: Connection) -> None:
    issue(owner, "bob")
    for number in range(5):
        issue(owner, "alice", id=str(number))
    page = rows(profile, 'SELECT * FROM pat.audit_of(\'alice\', "limit" => 3)')
    assert [row["id"] for row in page] == ["4", "3", "2"]
    assert set(page[0]) == {"entry", "at", "event", "id", "actor", "client", "detail"}
    page = rows(profile, "SELECT * FROM pat.audit_of('alice', before => %s)", page[-1]["entry"])
    assert [row["id"] for row in page] == ["1", "0"]
    assert rows(profile, "SELECT * FROM pat.audit_of(NULL)") == []
    for limit in (0, 1001, None):
        with pytest.raises(errors.InvalidParameterValue, match="from 1 to 1000"):
            profile.execute('SELECT pat.audit_of(\'alice\', "limit" => %s)', (limit,))


# It stays


def test_nobody_changes_it(owner: Connection, auditor: Connection) -> None:
    issue(owner)
    exported(auditor)
    issue(owner)
    before = owner.execute("SELECT * FROM pat.audit ORDER BY entry").fetchall()
    for role in ("postgres", "pat_owner"):
        owner.execute(f"SET ROLE {role}")
        for replication in ("origin", "replica"):
            if role == "postgres":
                owner.execute(f"SET session_replication_role = {replication}")
            for statement in ("UPDATE pat.audit SET actor = 'x'", "UPDATE pat.audit SET number = 7 WHERE number = 1",
                              "UPDATE pat.audit SET number = NULL",
                              "UPDATE pat.audit SET number = 7, actor = 'x' WHERE number IS NULL",
                              "DELETE FROM pat.audit", "DELETE FROM pat.audit_log", "TRUNCATE pat.audit",
                              "UPDATE pat.audit_log SET event = 'x'"):
                with pytest.raises(errors.FeatureNotSupported, match="cannot be changed"):
                    owner.execute(statement)
    owner.execute("RESET ROLE; RESET session_replication_role")
    assert owner.execute("SELECT * FROM pat.audit ORDER BY entry").fetchall() == before
    # Whatever a function of the schema's sets: a deletion leaves an entry.
    owner.execute("SET pat.is_purging_audit = 'yes'; DELETE FROM pat.audit")
    assert [entry.event for entry in entries(owner)] == ["audit_purged"]


def test_old_entries_are_deleted_by_an_operator_who_leaves_one(owner: Connection, auditor: Connection) -> None:
    for _ in range(5):
        issue(owner)
    until = one(owner, "SELECT clock_timestamp()")
    assert len(exported(auditor)) == 5
    issue(owner)
    assert one(owner, "SELECT pat.purge_audit(%s, 3)", until) == 3
    assert last(owner).event == "audit_purged" and last(owner).login == "postgres"
    assert (last(owner).detail["entries"], last(owner).detail["last_number"]) == (3, 3)
    assert one(owner, "SELECT pat.purge_audit(%s)", until) == 2
    assert one(owner, "SELECT pat.purge_audit(%s)", until) == 0
    assert [entry.event for entry in entries(owner)] == ["issued", "audit_purged", "audit_purged"]
    with pytest.raises(errors.FeatureNotSupported), owner.transaction():
        owner.execute("SELECT pat.purge_audit(%s)", (until,))
        owner.execute("DELETE FROM pat.audit")
    for bad in ("now() + interval '1 day'", "NULL", "now(), 0"):
        with pytest.raises(errors.InvalidParameterValue, match="in the past"):
            owner.execute(f"SELECT pat.purge_audit({bad})")
    # Numbers go on.
    assert [line["number"] for line in exported(auditor)] == [6, 7, 8]


# Export


def test_lines_come_in_pages_in_order(owner: Connection, auditor: Connection) -> None:
    for number in range(5):
        issue(owner, f'user "{number}"\\', id=str(number), actor="ä", client="2001:db8::1")
    assert [line["id"] for line in exported(auditor, 0, 2)] == ["0", "1"]
    assert [line["id"] for line in exported(auditor, 2, 2)] == ["2", "3"]
    assert [line["number"] for line in exported(auditor, 3)] == [4, 5]
    assert exported(auditor, 5) == []
    (line,) = exported(auditor, 4)
    assert set(line) == {"number", "at", "event", "id", "subject", "actor", "client", "login", "detail"}
    assert (line["subject"], line["actor"], line["client"]) == ('user "4"\\', "ä", "2001:db8::1")
    assert line["login"] == "postgres"
    assert line["at"].endswith("+00:00")
    assert "\n" not in "".join(text for _, text in auditor.execute("SELECT * FROM pat.audit_lines()"))
    for bad in ("-1", "NULL", "0, 0", "0, NULL"):
        with pytest.raises(errors.InvalidParameterValue):
            auditor.execute(f"SELECT pat.audit_lines({bad})")


def test_an_open_transaction_is_neither_missed_nor_waited_for(
    database: Database, owner: Connection, auditor: Connection
) -> None:
    with database.connect("shop", autocommit=False) as slow:
        issue(slow, id="first")
        issue(owner, id="second")
        assert [line["id"] for line in exported(auditor)] == ["second"]
        slow.commit()
    assert [line["id"] for line in exported(auditor, 1)] == ["first"]


def test_readers_wait_for_each_other_and_no_writer_for_them(
    database: Database, owner: Connection, shop: Connection, auditor: Connection
) -> None:
    for number in range(3):
        issue(owner, id=str(number))
    seen: list[list[dict[str, Any]]] = []

    def read() -> None:
        with database.connect("auditor", options=NOT_FOR_EVER) as late:
            seen.append(exported(late, 0, 2))

    with database.connect("auditor", autocommit=False) as slow:
        assert len(exported(slow, 0, 1)) == 1
        with workers([read]):
            wait_until(lambda: waiting(owner), "the second reader waits")
            shop.execute("SET statement_timeout = '5s'")
            issue(shop, id="new")
            shop.execute("SELECT pat.revoke('0')")
            owner.execute("VACUUM pat.audit")
            slow.commit()
    assert [line["id"] for line in seen[0]] == ["0", "1"]


def test_a_snapshot_that_could_miss_an_entry_is_refused(database: Database) -> None:
    with database.connect("auditor", autocommit=False) as connection:
        connection.isolation_level = REPEATABLE_READ
        with pytest.raises(errors.FeatureNotSupported, match="could miss entries"):
            exported(connection)


def test_a_session_that_may_not_write_reads_what_is_numbered(
    database: Database, owner: Connection, auditor: Connection
) -> None:
    issue(owner)
    exported(auditor)
    issue(owner)
    with database.connect("auditor", options="-c default_transaction_read_only=on") as reader:
        assert len(exported(reader)) == 1
    assert len(exported(auditor)) == 2


def test_sixteen_writers_and_readers_that_miss_nothing(database: Database, owner: Connection) -> None:
    collected: list[list[int]] = []

    def write(number: int) -> None:
        with database.connect("shop", autocommit=False, options=NOT_FOR_EVER) as connection:
            for turn in range(15):
                for _ in range(1 + turn % 3):
                    issue(connection, f"user:{number}")
                connection.execute("SELECT pat.revoke_subject(%s)", (f"user:{number}",))
                if turn % 5 == 4:
                    connection.rollback()
                else:
                    connection.commit()

    def read(limit: int) -> None:
        found: list[int] = []
        with database.connect("auditor", options=NOT_FOR_EVER) as connection:
            cursor = 0
            quiet = False
            while True:
                page = exported(connection, cursor, limit)
                for line in page:
                    assert line["number"] > cursor
                    cursor = line["number"]
                    found.append(cursor)
                if not page and quiet:
                    break
                quiet = done.get("writers", False)
        collected.append(found)

    done: dict[str, bool] = {}
    with workers([partial(read, limit) for limit in (3, 50)]):
        try:
            with workers([partial(write, number) for number in range(16)]):
                pass
        finally:
            done["writers"] = True
    wanted = [number for number, in owner.execute("SELECT number FROM pat.audit ORDER BY number")]
    assert len(wanted) > 500 and collected == [wanted, wanted]


# Around it


def test_a_prepared_transaction_has_its_entries() -> None:
    with PostgreSQL(fsync=False, settings={"max_prepared_transactions": "2"}) as server:
        server.start()
        server.install("postgres")
        with server.connect(autocommit=True) as connection:
            connection.execute("BEGIN; SET LOCAL pat.notify = off; SELECT pat.issue('a', id => 'x', actor => 'xa')")
            connection.execute("PREPARE TRANSACTION 'a'")
            assert exported(connection) == []
            issue(connection, id="y")
            assert [line["id"] for line in exported(connection)] == ["y"]
            connection.execute("COMMIT PREPARED 'a'")
            assert [(line["id"], line["actor"]) for line in exported(connection, 1)] == [("x", "xa")]


def test_a_restored_dump_has_the_audit_and_goes_on(server: PostgreSQL, database: Database) -> None:
    with database.connect() as owner:
        owner.execute("SELECT pat.set_policy('free', most_tokens => 1), pat.set_class('alice', 'free')")
        issue(owner, id="x", actor="cron", client="192.0.2.1")
        assert len(exported(owner)) == 3
        issue(owner, "bob", id="y")
        before = owner.execute("SELECT * FROM pat.audit ORDER BY entry").fetchall()
    dump = server.dump(database.name, "--schema=pat")
    database.psql("DROP SCHEMA pat CASCADE")
    database.psql(dump)
    database.install()
    with database.connect() as owner, database.connect("shop") as shop:
        assert owner.execute("SELECT * FROM pat.audit ORDER BY entry").fetchall() == before
        assert one(owner, "SELECT count(*) FROM pat.wrong_triggers()") == 0
        with pytest.raises(errors.CheckViolation, match="at most 1 tokens"):
            issue(shop)
        issue(shop, "bob", id="z")
        assert [(line["number"], line["id"]) for line in exported(owner, 3)] == [(4, "y"), (5, "z")]
        with pytest.raises(errors.FeatureNotSupported):
            owner.execute("TRUNCATE pat.audit")


def test_a_subscriber_of_logical_replication_has_its_own() -> None:
    with publisher_and_subscriber() as (here, there, subscribe):
        issue(here, id="x", actor="cron")
        subscribe()
        wait_until(lambda: len(entries(there)) == 1, "the first token is there")
        here.execute("SELECT pat.revoke('x', actor => 'cron')")
        here.execute("DELETE FROM pat.token")
        wait_until(lambda: len(entries(there)) == 3, "the deletion is there")
        assert [entry[:4] for entry in entries(there)] == [
            ("issued", "x", "alice", None), ("revoked", "x", "alice", None), ("deleted", "x", "alice", None)]


@pytest.fixture
def before_audits(database: Database) -> Iterator[Database]:
    """A database as the version before had it, with a token."""
    with database.connect() as owner:
        issue(owner, id="old", expires_at=None)
        owner.execute(
            "DROP TABLE pat.audit CASCADE; DROP TABLE pat.subject_class, pat.policy, pat.audit_clock CASCADE;"
            " DROP SEQUENCE pat.audit_seq; DROP TRIGGER audit_token ON pat.token;"
            " DROP FUNCTION pat.issue, pat.rotate, pat.revoke, pat.revoke_subject;"
            " SET ROLE pat_owner;"
            " CREATE FUNCTION pat.issue(subject text, name text DEFAULT '', scopes text[] DEFAULT '{}',"
            " expires_at timestamptz DEFAULT now() + interval '2160 hours', cidrs text[] DEFAULT '{}',"
            " not_before timestamptz DEFAULT NULL, claims jsonb DEFAULT '{}', prefix text DEFAULT 'ropat_',"
            " pepper bytea DEFAULT NULL, digest bytea DEFAULT NULL, INOUT id text DEFAULT NULL, OUT token text)"
            " LANGUAGE sql AS $$ SELECT 'before', 'before' $$;"
            " CREATE FUNCTION pat.rotate(INOUT id text, overlap interval DEFAULT '24 hours', pepper bytea DEFAULT NULL,"
            " digest bytea DEFAULT NULL, prefix text DEFAULT 'ropat_', new_id text DEFAULT NULL, OUT token text)"
            " LANGUAGE sql AS $$ SELECT 'before', 'before' $$;"
            " CREATE FUNCTION pat.revoke(id text) RETURNS boolean LANGUAGE sql AS 'SELECT false';"
            " CREATE FUNCTION pat.revoke_subject(subject text, issued_before timestamptz DEFAULT NULL) RETURNS bigint"
            " LANGUAGE sql AS 'SELECT 0::bigint'; RESET ROLE")
    yield database


def test_the_version_before_is_brought_up_to_date(before_audits: Database) -> None:
    """The functions have longer signatures, and callers of before call them as they did."""
    with before_audits.connect() as owner, before_audits.connect("shop") as shop, before_audits.connect("edge") as edge:
        before = changes(edge), owner.execute("SELECT * FROM pat.token").fetchall()
        shop.execute("PREPARE revoke AS SELECT pat.revoke($1)")
        for _ in range(2):
            before_audits.install()
            assert (changes(edge), owner.execute("SELECT * FROM pat.token").fetchall()) == before
            assert entries(owner) == [] and source(edge).triggers is None
        token_id, token = issue(shop)
        assert token.startswith("ropat_")
        shop.execute("SELECT pat.rotate('old', '1 hour')")
        assert shop.execute("EXECUTE revoke ('old')").fetchall() == [(True,)]
        assert one(shop, "SELECT pat.revoke_subject('alice', '2020-01-01')") == 0
        assert one(shop, "SELECT pat.revoke_subject('alice')") == 2
        assert [entry.event for entry in entries(owner)] == [
            "issued", "issued", "rotated", "revoked", "revoked", "revoked"]


def test_a_trigger_of_the_audit_that_is_off_is_told_to_operators_alone(
    database: Database, owner: Connection, edge: Connection
) -> None:
    """Edges do not depend on it, and must not look stale."""
    owner.execute("ALTER TABLE pat.token DISABLE TRIGGER audit_token")
    assert source(edge).triggers is None
    assert one(owner, "SELECT relation || '.' || name FROM pat.wrong_triggers()") == "token.audit_token"
    database.install()
    assert one(owner, "SELECT count(*) FROM pat.wrong_triggers()") == 0
    issue(owner)
    assert last(owner).event == "issued"


def test_the_view_is_read_by_those_who_may(auditor: Connection, admin: Connection, owner: Connection) -> None:
    issue(owner)
    assert len(entries(auditor)) == len(entries(admin)) == 1
