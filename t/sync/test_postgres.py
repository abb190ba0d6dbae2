"""The schema pat in a real PostgreSQL, and its tokens in the patctl of this build."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import random
import re
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from basics import PATCTL, wait_until
from postgresql import NOT_FOR_EVER, Connection, Database, PostgreSQL, issue, new_database, one
from psycopg import errors
from psycopg.types.json import Json, Jsonb

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PEPPER = bytes(range(40))

READ_COMMITTED = psycopg.IsolationLevel.READ_COMMITTED
REPEATABLE_READ = psycopg.IsolationLevel.REPEATABLE_READ
SERIALIZABLE = psycopg.IsolationLevel.SERIALIZABLE


State = dict[bytes, str]


# What the tests do again and again


class Source(NamedTuple):
    epoch: str
    position: int
    horizon: int
    key_id: str | None
    is_standby: bool
    unnumbered: bool
    triggers: str | None


def source(connection: Connection) -> Source:
    (row,) = connection.execute('SELECT epoch, "position", horizon, key_id, is_standby, unnumbered,'
                                " triggers FROM pat.source()").fetchall()
    return Source(*row)


def number_found(connection: Connection) -> list[bytes]:
    found: list[bytes] = one(connection, "SELECT pat.number_found()")
    return found


def changes(connection: Connection, after: int = 0, limit: int | None = None, **options: bool) -> list[tuple[Any, ...]]:
    named = "".join(f", {name} => {value}" for name, value in options.items())
    return connection.execute(f"SELECT seq, digest, change FROM pat.changes(%s, %s{named})", (after, limit)).fetchall()


def pairs(connection: Connection, query: str, *arguments: Any) -> dict[Any, Any]:
    """Rows of two values."""
    return {key: value for key, value in connection.execute(query, arguments)}


def snapshot(connection: Connection) -> State:
    return pairs(connection, "SELECT digest, change FROM pat.snapshot()")


def follow(connection: Connection, state: State, after: int, limit: int = 7) -> int:
    """Read new changes page by page, as an edge does, and return the new cursor."""
    while page := changes(connection, after, limit):
        assert len(page) <= limit
        for seq, digest, line in page:
            assert seq > after
            after = seq
            change = json.loads(line)
            assert change["seq"] == seq and change["digest"] == digest.hex()
            if change["op"] == "delete":
                state.pop(digest, None)
            else:
                state[digest] = line
    return after


def digest_of(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def insert(connection: Connection, digest: bytes = bytes(32), **columns: Any) -> None:
    row = {"digest": digest, "id": digest.hex(), "subject": "alice", **columns}
    values = ", ".join(["%s"] * len(row))
    connection.execute(f"INSERT INTO pat.token ({', '.join(row)}) VALUES ({values})", list(row.values()))


@contextmanager
def workers(jobs: Sequence[Callable[[], None]]) -> Iterator[list[threading.Thread]]:
    """Threads that are joined at the end; their exceptions are raised here."""
    problems: list[BaseException] = []

    def run(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as problem:  # noqa: BLE001 - it is raised below
            problems.append(problem)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in threads:
            thread.join()
    if problems:
        raise problems[0]


class Store:
    """A store of the real patctl."""

    def __init__(self, folder: Path, pepper: bytes | None = None) -> None:
        self.options = ["--store", str(folder / "store")]
        if pepper is not None:
            path = folder / "pepper"
            path.write_bytes(pepper)
            path.chmod(0o600)
            self.options += ["--pepper-file", str(path)]
        self.run("init", "--owner", str(os.geteuid()))

    def run(self, *arguments: str, input: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run([PATCTL, *self.options, *arguments], input=input, capture_output=True, text=True,
                              timeout=60)

    def apply(self, lines: list[str]) -> list[dict[str, Any]]:
        """Apply changes, and return the rejections."""
        commit = json.dumps({"op": "commit", "cursor": "1"})
        done = self.run("apply", input="".join(f"{line}\n" for line in [*lines, commit]))
        assert done.returncode == 0, done.stderr
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert any(answer["answer"] == "committed" for answer in answers)
        return [answer for answer in answers if answer["answer"] == "rejected"]

    def accepts(self, record: dict[str, Any]) -> bool:
        return self.run("import", "--strict", "-", input=json.dumps(record)).returncode == 0

    def check(self, token: str, *arguments: str) -> str:
        return self.run("check", *arguments, input=token).stdout.split()[0]

    def export(self) -> dict[str, dict[str, Any]]:
        records = (json.loads(line) for line in self.run("export").stdout.splitlines())
        return {record["digest"]: record for record in records}


# Installing


def test_installing_twice_changes_nothing(database: Database, shop: Connection, edge: Connection) -> None:
    token_id, _ = issue(shop)
    issue(shop, "bob")
    shop.execute("SELECT pat.revoke(%s)", (token_id,))
    before = source(edge), changes(edge)
    for _ in range(2):
        database.install()
    assert (source(edge), changes(edge)) == before
    issue(shop)
    assert [seq for seq, _, _ in changes(edge, before[0].position)] == [before[0].position + 1]


def test_installing_again_does_not_wait_for_writers(database: Database, shop: Connection) -> None:
    with shop.transaction():
        issue(shop)
        database.install()


def test_a_role_that_may_create_roles_can_install() -> None:
    # In a cluster of its own, where the roles are not there yet.
    with PostgreSQL(fsync=False) as fresh:
        fresh.start()
        fresh.psql("CREATE ROLE admin LOGIN CREATEROLE; CREATE DATABASE app OWNER admin; CREATE DATABASE other")
        database = Database(fresh, "app")
        for _ in range(2):
            database.install("admin")
        database.psql("CREATE ROLE shop LOGIN IN ROLE pat_platform", user="admin")
        with database.connect("shop") as shop:
            issue(shop)
        assert database.psql("SELECT count(*) FROM pg_class WHERE relnamespace = 'pat'::regnamespace"
                             " AND relowner <> 'pat_owner'::regrole") == "0\n"
        with pytest.raises(RuntimeError, match="permission denied for database"):
            Database(fresh, "other").install("admin")


def test_a_database_of_another_encoding_is_refused(server: PostgreSQL) -> None:
    server.psql("CREATE DATABASE pat_latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(RuntimeError, match="LATIN1, but the edges need UTF8"):
            server.install("pat_latin1")
    finally:
        server.psql("DROP DATABASE pat_latin1")


def test_a_schema_of_somebody_else_is_left_alone(server: PostgreSQL) -> None:
    with new_database(server, "pat_foreign", template=None) as database:
        database.psql("CREATE SCHEMA pat; CREATE TABLE pat.token (mine text)")
        with pytest.raises(RuntimeError, match="does not belong to pat_owner"):
            database.install()
        assert database.psql("SELECT mine FROM pat.token") == ""


# Tokens


def test_a_token_of_the_database_is_one_for_patctl(shop: Connection, edge: Connection, tmp_path: Path) -> None:
    store = Store(tmp_path)
    expires = datetime.now(timezone.utc) + timedelta(days=1)
    token_id, token = issue(shop, "user:42", name='CI "ä\\"', scopes=["api:read", "write"], expires_at=expires,
                            cidrs=["192.0.2.0/24", "2001:db8::1", "::ffff:198.51.100.0/120"],
                            claims=Jsonb({"plan": "pro €", "empty": ""}))
    assert re.fullmatch(r"pat_[0-9A-Za-z]{16}", token_id)
    assert store.apply([line for _, _, line in changes(edge)]) == []

    assert store.check(token, "--prefix", "ropat_", "--address", "192.0.2.7", "--scope", "api:read write") == "ok"
    assert store.check(token, "--address", "198.51.100.9") == "ok"
    assert store.check(token, "--address", "203.0.113.1") == "address_denied"
    assert store.check(token, "--address", "2001:db8::1", "--scope", "admin") == "scope_denied"
    (record,) = store.export().values()
    assert record["digest"] == digest_of(token).hex()
    assert (record["id"], record["subject"], record["name"]) == (token_id, "user:42", 'CI "ä\\"')
    assert record["claims"] == {"plan": "pro €", "empty": ""}
    assert record["expires_at"] == int(expires.timestamp())
    assert abs(record["issued_at"] - time.time()) < 10

    shop.execute("SELECT pat.revoke(%s)", (token_id,))
    assert store.apply([line for _, _, line in changes(edge)]) == []
    assert store.check(token) == "revoked"


def test_tokens_have_the_form_of_the_design(shop: Connection) -> None:
    tokens = [issue(shop, prefix="x-1.y_")[1] for _ in range(100)]
    for token in tokens:
        assert re.fullmatch(r"x-1\.y_[0-9A-Za-z]{38}", token)
        crc = zlib.crc32(token[:-6].encode())
        assert token[-6:] == "".join(BASE62[crc // 62**i % 62] for i in range(5, -1, -1))
    assert len(set(tokens)) == 100


def test_random_characters_are_equally_likely(owner: Connection) -> None:
    text = one(owner, "SELECT string_agg(pat.random_base62(32), '') FROM generate_series(1, 2000)")
    counts = [text.count(character) for character in BASE62]
    expected = len(text) / 62
    # Chi squared with 61 degrees of freedom: more than 130 in one of 10^6 runs. Modulo 62 of all bytes gives some 800.
    assert sum((count - expected) ** 2 / expected for count in counts) < 130


def test_with_a_pepper_digests_are_hmacs(owner: Connection, shop: Connection, edge: Connection, tmp_path: Path) -> None:
    store = Store(tmp_path, PEPPER)
    key = one(owner, "SELECT pat.use_pepper(%s)", PEPPER)
    assert key == hashlib.sha256(b"nginx-auth-pat pepper" + PEPPER).digest()[:8].hex()
    assert source(edge).key_id == key == json.loads(store.run("--json", "stats").stdout)["key_id"]

    token_id, token = issue(shop, pepper=PEPPER)
    (new,) = shop.execute("SELECT token FROM pat.rotate(%s, pepper => %s)", (token_id, PEPPER)).fetchall()
    assert set(snapshot(edge)) == {hmac.digest(PEPPER, each.encode(), "sha256") for each in (token, new[0])}
    assert store.apply(list(snapshot(edge).values())) == []
    assert store.check(token) == store.check(new[0]) == "ok"


@pytest.mark.parametrize("length", [32, 63, 64])
def test_peppers_of_every_length_give_the_hmac_of_rfc_2104(owner: Connection, length: int) -> None:
    key = bytes(random.Random(length).randbytes(length))
    assert one(owner, "SELECT pat.hmac_sha256(%s, 'message')", key) == hmac.digest(key, b"message", "sha256")


def test_another_pepper_is_refused(owner: Connection, shop: Connection) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="do not use a pepper"):
        issue(shop, pepper=PEPPER)
    for bad in (bytes(31), bytes(65), None):
        with pytest.raises(errors.InvalidParameterValue, match="32 to 64 bytes"):
            owner.execute("SELECT pat.use_pepper(%s)", (bad,))

    owner.execute("SELECT pat.use_pepper(%s)", (PEPPER,))
    with pytest.raises(errors.InvalidParameterValue, match="require a pepper"):
        issue(shop)
    with pytest.raises(errors.InvalidParameterValue, match="use another pepper"):
        issue(shop, pepper=PEPPER[::-1])
    issue(shop, digest=bytes(32))

    owner.execute("SELECT pat.use_pepper(%s)", (PEPPER,))
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="another pepper"):
        owner.execute("SELECT pat.use_pepper(%s)", (PEPPER[::-1],))


def test_a_pepper_is_not_introduced_while_a_token_is_being_made(database: Database, owner: Connection) -> None:
    with database.connect("shop", autocommit=False) as shop:
        issue(shop)
        owner.execute("SET lock_timeout = '50ms'")
        with pytest.raises(errors.LockNotAvailable):
            owner.execute("SELECT pat.use_pepper(%s)", (PEPPER,))


def test_a_token_is_not_made_while_a_pepper_is_being_introduced(
    database: Database, owner: Connection, shop: Connection
) -> None:
    def late() -> None:
        with pytest.raises(errors.InvalidParameterValue, match="require a pepper"):
            issue(shop)

    with database.connect(autocommit=False) as operator:
        operator.execute("SELECT pat.use_pepper(%s)", (PEPPER,))
        with workers([late]):
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'pat.token'::regclass"
            wait_until(lambda: bool(one(owner, waiting)), "the token waits")
            operator.commit()


def test_the_caller_may_make_the_token(shop: Connection, edge: Connection) -> None:
    digest = digest_of("of-another-system")
    (row,) = shop.execute("SELECT * FROM pat.issue('alice', digest => %s, id => '42')", (digest,))
    assert row == ("42", None)
    (row,) = shop.execute("SELECT * FROM pat.rotate('42', digest => %s, new_id => '43')", (bytes(32),)).fetchall()
    assert row == ("43", None)
    assert set(snapshot(edge)) == {digest, bytes(32)}


def test_ninety_days_unless_said_otherwise(shop: Connection) -> None:
    issue(shop, "default")
    issue(shop, "never", expires_at=None)
    lives = pairs(shop, "SELECT subject, expires_at - issued_at FROM pat.tokens")
    assert lives == {"default": timedelta(days=90), "never": None}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"subject": ""}, "a subject must have 1 to 255 bytes"),
        ({"name": "a\nb"}, "a name must have at most"),
        ({"scopes": ["read write"]}, "a scope must have"),
        ({"scopes": ["api:read,csv:write"]}, "looks like a list of scopes"),
        ({"scopes": ["{api:read", "csv:write}"]}, "looks like a list of scopes"),
        ({"scopes": ["a", "{api:read,csv:write}"]}, "looks like a list of scopes"),
        ({"subject": "victim "}, "begins or ends with a blank"),
        ({"subject": " victim"}, "begins or ends with a blank"),
        ({"claims": Jsonb({"a": "", "plan": "pro "})}, 'claim "plan" begins or ends with a blank'),
        ({"cidrs": ["192.0.2.1/24"]}, "invalid cidr value"),
        ({"claims": Jsonb({"Plan": "pro"})}, "name of a claim"),
        ({"id": "a b"}, "an id must have"),
        ({"prefix": "a b"}, "a prefix must have"),
        ({"digest": b"short"}, "a digest must have 32 bytes"),
        ({"expires_at": datetime(2020, 1, 1, tzinfo=timezone.utc)}, "would already be expired"),
        ({"expires_at": "infinity"}, "not later than the year 9999"),
        ({"not_before": datetime(9000, 1, 1, tzinfo=timezone.utc)}, "before it becomes valid"),
    ],
)
def test_bad_values_are_refused_with_a_hint(shop: Connection, options: dict[str, Any], words: str) -> None:
    with pytest.raises(psycopg.Error, match=words) as caught:
        issue(shop, **options)
    assert caught.value.diag.message_hint or caught.value.diag.message_detail
    assert one(shop, "SELECT count(*) FROM pat.tokens") == 0


def test_names_are_trimmed_and_other_blanks_refused(owner: Connection) -> None:
    insert(owner, name=" \t my  token \n")
    assert one(owner, "SELECT name FROM pat.token") == "my  token"
    owner.execute("UPDATE pat.token SET name = '  '")
    assert one(owner, "SELECT name FROM pat.token") == ""
    for change in ("subject = 'alice '", "claims = '{\"a\": \" \"}'", "scopes = '{\"a,b\"}'"):
        with pytest.raises(errors.CheckViolation) as caught:
            owner.execute(f"UPDATE pat.token SET {change}")
        assert caught.value.diag.message_hint
    with pytest.raises(errors.CheckViolation) as caught:
        issue(owner, scopes=["api:read,csv:write"])
    assert "ARRAY['api:read', 'csv:write']" in str(caught.value.diag.message_hint)


OF_BEFORE: dict[str, Any] = {"subject": "victim ", "claims": '{"plan": " pro"}', "scopes": ["a,b"]}


def test_rows_of_before_come_by_replication(owner: Connection) -> None:
    owner.execute("SET session_replication_role = replica")
    insert(owner, **OF_BEFORE)
    insert(owner, bytes([1] * 32), subject="good")
    owner.execute("UPDATE pat.token SET subject = 'of a publisher of before ' WHERE subject = 'good'")
    assert one(owner, "SELECT count(*) FROM pat.token WHERE is_numbered") == 2


def test_a_row_of_before_is_revoked_by_an_upsert(owner: Connection, edge: Connection) -> None:
    owner.execute("ALTER TABLE pat.token DISABLE TRIGGER token_before")
    insert(owner, **OF_BEFORE)
    owner.execute("ALTER TABLE pat.token ENABLE ALWAYS TRIGGER token_before")

    upsert = ("INSERT INTO pat.token (digest, id, subject, scopes, claims, revoked_at)"
              " SELECT digest, id, {}, scopes, claims, now() FROM pat.token"
              " ON CONFLICT (digest) DO UPDATE SET subject = excluded.subject, revoked_at = excluded.revoked_at")
    with pytest.raises(errors.CheckViolation, match="begins or ends with a blank"):
        owner.execute(upsert.format("'another '"))
    owner.execute(upsert.format("subject"))
    (change,) = changes(edge)
    assert "revoked_at" in json.loads(change[2])
    with pytest.raises(errors.CheckViolation, match="begins or ends with a blank"):
        insert(owner, bytes([2] * 32), subject="victim ")


# Numbers


def test_a_writer_that_commits_late_gets_a_late_number(database: Database, shop: Connection, edge: Connection) -> None:
    with database.connect("shop", autocommit=False) as slow:
        issue(slow, "first")
        issue(shop, "second")
        state: State = {}
        cursor = follow(edge, state, 0)
        assert [json.loads(line)["subject"] for line in state.values()] == ["second"]
        slow.commit()
        assert follow(edge, state, cursor) > cursor
        assert len(state) == 2


@pytest.mark.parametrize("level", [READ_COMMITTED, REPEATABLE_READ, SERIALIZABLE])
def test_transactions_that_overlap_can_both_commit(
    database: Database, edge: Connection, level: psycopg.IsolationLevel
) -> None:
    with database.connect("shop", autocommit=False) as a, database.connect("shop", autocommit=False) as b:
        a.isolation_level = b.isolation_level = level
        for connection in (a, b):
            connection.execute("SELECT 1")
        for connection in (a, b):
            issue(connection)
        a.commit()
        b.commit()
    assert len(changes(edge)) == 2


def write_at_random(database: Database, seed: int, until: float, level: psycopg.IsolationLevel) -> None:
    """Short and long transactions that issue, change, revoke, delete, and now and then are rolled back."""
    dice = random.Random(seed)
    mine: list[str] = []
    with database.connect(autocommit=False) as connection:
        connection.isolation_level = level
        while time.monotonic() < until:
            before = list(mine)
            try:
                for _ in range(dice.choice((1, 1, 1, 4))):
                    match dice.choice(("issue", "issue", "issue", "name", "revoke", "delete")) if mine else "issue":
                        case "issue":
                            mine.append(issue(connection, f"writer:{seed}")[0])
                        case "name":
                            connection.execute("UPDATE pat.token SET name = %s WHERE id = %s",
                                               (str(dice.random()), dice.choice(mine)))
                        case "revoke":
                            connection.execute("SELECT pat.revoke(%s)", (dice.choice(mine),))
                        case "delete":
                            gone = mine.pop(dice.randrange(len(mine)))
                            connection.execute("DELETE FROM pat.token WHERE id = %s", (gone,))
                    if dice.random() < 0.1:
                        time.sleep(dice.random() * 0.1)
                if dice.random() < 0.2:
                    connection.rollback()
                    mine = before
                else:
                    connection.commit()
            except errors.SerializationFailure:
                assert level == SERIALIZABLE, "only SERIALIZABLE may fail"
                connection.rollback()
                mine = before


def test_sixteen_writers_and_a_reader_that_misses_nothing(database: Database, edge: Connection) -> None:
    until = time.monotonic() + 6
    levels = [READ_COMMITTED] * 8 + [REPEATABLE_READ] * 4 + [SERIALIZABLE] * 4
    jobs = [partial(write_at_random, database, seed, until, level) for seed, level in enumerate(levels)]

    state: State = {}
    cursor = 0
    with database.connect(autocommit=False) as unrelated, workers(jobs) as threads:
        unrelated.isolation_level = REPEATABLE_READ
        unrelated.execute("CREATE TABLE unrelated AS SELECT count(*) FROM pat.token")
        while any(thread.is_alive() for thread in threads):
            cursor = follow(edge, state, cursor)
    cursor = follow(edge, state, cursor)

    assert cursor == source(edge).position > 500
    assert state == snapshot(edge)
    assert len(state) > 100


def test_a_revocation_waits_for_no_transaction_that_is_open(
    database: Database, shop: Connection, edge: Connection
) -> None:
    token_id, _ = issue(shop)
    other, _ = issue(shop, "bob")
    third, _ = issue(shop, "carol")
    issue(shop, "old", expires_at=datetime.now(timezone.utc) + timedelta(seconds=0.2))
    time.sleep(0.2)
    cursor = source(edge).position

    with (
        database.connect(autocommit=False) as unrelated,
        database.connect("shop", autocommit=False) as writer,
        database.connect("shop", autocommit=False) as purger,
        database.connect("edge", autocommit=False) as reporter,
        database.connect("edge", autocommit=False) as reader,
    ):
        unrelated.isolation_level = REPEATABLE_READ
        unrelated.execute("CREATE TABLE unrelated AS SELECT count(*) FROM pat.token")
        issue(writer)
        writer.execute("SELECT pat.revoke(%s)", (other,))
        assert one(purger, "SELECT pat.purge(now(), '0')") == 1
        assert one(reporter, "SELECT pat.record_use('edge1', 1, %s)", Json([{"id": token_id, "at": 5}])) == 1
        reader.execute("SELECT * FROM pat.snapshot()")

        shop.execute("SET statement_timeout = '2s'")
        assert one(shop, "SELECT pat.revoke(%s)", token_id)
        assert one(shop, "SELECT pat.revoke_subject('carol')") == 1
        revoked = [json.loads(line) for _, _, line in changes(edge, cursor)]
        assert [change["id"] for change in revoked if "revoked_at" in change] == [token_id, third]


def test_a_change_that_was_taken_back_is_none(database: Database, owner: Connection, edge: Connection) -> None:
    with owner.transaction():
        issue(owner, "kept")
        with pytest.raises(ZeroDivisionError), owner.transaction():
            issue(owner, "dropped")
            owner.execute("SET CONSTRAINTS ALL IMMEDIATE")
            raise ZeroDivisionError
        issue(owner, "kept as well")
    subjects = [json.loads(line)["subject"] for _, _, line in changes(edge)]
    assert subjects == ["kept", "kept as well"]


@pytest.mark.parametrize("names", ["ALL", "pat.at_commit"])
def test_nobody_gets_a_number_before_the_commit(database: Database, edge: Connection, names: str) -> None:
    """Numbering is postponed, so that no open transaction holds the clock."""
    with database.connect(autocommit=False) as connection, database.connect("shop") as shop:
        connection.execute(f"SET CONSTRAINTS {names} IMMEDIATE")
        token_id, _ = issue(connection)
        connection.execute(f"SET CONSTRAINTS {names} IMMEDIATE")
        connection.execute("UPDATE pat.token SET name = 'x'")
        connection.execute("SELECT pat.revoke(%s)", (token_id,))
        for _ in range(2):
            connection.execute(f"SET CONSTRAINTS {names} IMMEDIATE")
        assert one(connection, "SELECT seq FROM pat.token") is None
        shop.execute("SET lock_timeout = '5s'")
        issue(shop)
        connection.commit()
    (_, (seq, _, line)) = changes(edge)
    assert seq == source(edge).position == 2
    assert json.loads(line)["name"] == "x" and json.loads(line)["revoked_at"] > 0


def test_only_what_an_edge_needs_is_a_change(owner: Connection, edge: Connection) -> None:
    token_id, _ = issue(owner)
    before = changes(edge)
    owner.execute("UPDATE pat.token SET replaced_by = 'x', name = name, claims = '{}'")
    owner.execute("SELECT pat.record_use('edge1', 1, %s)", (Json([{"id": token_id, "at": 5}]),))
    assert changes(edge) == before
    for column, value in (("subject", "bob"), ("name", "n"), ("scopes", ["s"]), ("cidrs", ["192.0.2.0/24"]),
                          ("issued_at", "2020-01-01"), ("not_before", "2020-01-01"), ("expires_at", None),
                          ("revoked_at", "2020-01-01"), ("claims", Jsonb({"a": "b"}))):
        position = source(edge).position
        owner.execute(f"UPDATE pat.token SET {column} = %s", (value,))
        assert len(changes(edge, position)) == 1, column


def test_a_digest_and_an_id_stay_what_they_are(owner: Connection) -> None:
    issue(owner)
    for column, value in (("digest", bytes(32)), ("id", "x")):
        with pytest.raises(errors.IntegrityConstraintViolation, match="cannot be changed"):
            owner.execute(f"UPDATE pat.token SET {column} = %s", (value,))
    for table in ("token", "tombstone"):
        with pytest.raises(errors.FeatureNotSupported, match="cannot be truncated"):
            owner.execute(f"TRUNCATE pat.{table}")


def test_a_sequence_that_fell_behind_catches_up(owner: Connection, edge: Connection) -> None:
    for _ in range(3):
        issue(owner)
    owner.execute("SELECT setval('pat.seq', 1, false)")
    issue(owner)
    assert [seq for seq, _, _ in changes(edge)] == [1, 2, 3, 4]


def test_listeners_are_woken_once_after_the_commit(database: Database, shop: Connection, edge: Connection) -> None:
    edge.execute("LISTEN pat_changes")

    def woken() -> int:
        edge.execute("SELECT 1")
        return sum(notice.channel == "pat_changes" and notice.payload == "" for notice in received)

    received: list[psycopg.Notify] = []
    edge.add_notify_handler(received.append)
    with shop.transaction():
        token_id, _ = issue(shop)
        issue(shop)
        assert woken() == 0
    assert woken() == 1
    edge.execute("SELECT pat.record_use('edge1', 1, %s)", (Json([{"id": token_id, "at": 5}]),))
    shop.execute("SELECT 1 FROM pat.tokens")
    assert woken() == 1
    shop.execute("SELECT pat.revoke(%s)", (token_id,))
    with database.connect() as owner:
        owner.execute("DELETE FROM pat.token")
    assert woken() == 3


def at_the_end(owner: Connection) -> list[str]:
    """Collects the synchronous_commit at the end of each transaction, reported by a trigger that fires last."""
    owner.execute("CREATE TABLE public.last (); CREATE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql AS"
                  " $$ BEGIN RAISE NOTICE '%', current_setting('synchronous_commit'); RETURN NULL; END $$;"
                  " CREATE CONSTRAINT TRIGGER tell AFTER INSERT ON public.last DEFERRABLE INITIALLY DEFERRED"
                  " FOR EACH ROW EXECUTE FUNCTION public.tell()")
    told: list[str] = []
    owner.add_notice_handler(lambda notice: told.append(str(notice.message_primary)))
    return told


@pytest.mark.parametrize("notify", ["on", "off"])
def test_a_change_is_durable_before_an_edge_sees_it(owner: Connection, notify: str) -> None:
    told = at_the_end(owner)
    owner.execute(f"SET pat.notify = {notify}")
    for setting in ("off", "local", "remote_apply"):
        with owner.transaction():
            issue(owner)
            owner.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")
            owner.execute(f"SET LOCAL synchronous_commit = {setting}")
            owner.execute("INSERT INTO public.last DEFAULT VALUES")
        with owner.transaction():
            owner.execute(f"SET LOCAL synchronous_commit = {setting}")
            owner.execute("INSERT INTO public.last DEFAULT VALUES")
            owner.execute("DELETE FROM pat.token")
            owner.execute("INSERT INTO public.last DEFAULT VALUES")
    assert told[0::3] == told[2::3] == ["on", "local", "remote_apply"]


def test_changes_come_in_pages_in_order(owner: Connection, edge: Connection) -> None:
    ids = [issue(owner)[0] for _ in range(6)]
    owner.execute("DELETE FROM pat.token WHERE id = ANY (%s)", (ids[:3],))
    for _ in range(4):
        issue(owner)
    whole = changes(edge)
    assert [json.loads(line)["op"] for _, _, line in whole] == ["put"] * 3 + ["delete"] * 3 + ["put"] * 4
    assert [seq for seq, _, _ in whole] == list(range(4, 14))
    for after in (0, 6, 9, 12):
        for limit in (1, 3, 5):
            assert changes(edge, after, limit) == [row for row in whole if row[0] > after][:limit]
    assert changes(edge, source(edge).position) == []


def test_revocations_can_be_had_alone(owner: Connection, edge: Connection) -> None:
    first, second, third = (issue(owner)[0] for _ in range(3))
    owner.execute("SELECT pat.revoke(%s)", (second,))
    owner.execute("UPDATE pat.token SET name = 'x' WHERE id = %s", (first,))
    owner.execute("DELETE FROM pat.token WHERE id = %s", (third,))
    found = [json.loads(line) for _, _, line in changes(edge, only_revocations=True)]
    assert [(change["op"], change.get("id")) for change in found] == [("put", second), ("delete", None)]


def test_times_are_cut_so_that_a_token_lives_no_longer(owner: Connection, edge: Connection) -> None:
    insert(owner, issued_at="2020-01-01 00:00:00.9+00", not_before="2020-01-01 00:00:00.1+00",
           expires_at="2020-01-02 00:00:00.9+00", revoked_at="1970-01-01 00:00:01.9+00")
    ((_, _, line),) = changes(edge)
    change = json.loads(line)
    times = {name: change[name] for name in ("issued_at", "not_before", "expires_at", "revoked_at")}
    assert times == {"issued_at": 1577836800, "not_before": 1577836801, "expires_at": 1577923200, "revoked_at": 1}


def test_fields_without_a_value_are_left_out(owner: Connection, edge: Connection) -> None:
    insert(owner)
    (line,) = snapshot(edge).values()
    assert set(json.loads(line)) == {"op", "seq", "digest", "id", "subject", "issued_at"}
    assert "\n" not in line


def test_a_snapshot_in_pages_is_the_table_in_the_order_of_digests(owner: Connection, edge: Connection) -> None:
    for number in range(25):
        insert(owner, hashlib.sha256(bytes([number])).digest())
    after, found = b"", []
    while page := edge.execute("SELECT digest, change FROM pat.snapshot(%s, 4)", (after,)).fetchall():
        assert page[0][0] > after
        found += page
        after = page[-1][0]
    assert found == sorted(snapshot(edge).items())
    assert len(found) == 25
    assert len(edge.execute("SELECT pat.snapshot(NULL)").fetchall()) == 25
    assert {line for _, line in found} == {line for _, _, line in changes(edge)}


def test_a_snapshot_and_its_position_fit_together(database: Database, shop: Connection) -> None:
    with database.connect("edge", autocommit=False) as reader:
        reader.isolation_level = REPEATABLE_READ
        reader.execute("SELECT 1")
        issue(shop)
        assert source(reader).position == 0
        assert snapshot(reader) == {}
        reader.commit()
        assert source(reader).position == 1
        assert len(snapshot(reader)) == 1


def test_patctl_ends_up_with_what_the_snapshot_says(owner: Connection, edge: Connection, tmp_path: Path) -> None:
    store = Store(tmp_path)
    ids = [issue(owner, f"user:{number}", scopes=["a", "b"][: number % 3], claims=Jsonb({"n": str(number)}))[0]
           for number in range(20)]
    assert store.apply([line for _, _, line in changes(edge)]) == []
    owner.execute("DELETE FROM pat.token WHERE id = ANY (%s)", (ids[:5],))
    owner.execute("SELECT pat.revoke(id) FROM pat.tokens WHERE id = ANY (%s)", (ids[5:9],))
    assert store.apply([line for _, _, line in changes(edge)]) == []
    wanted = {digest.hex(): json.loads(line) for digest, line in snapshot(edge).items()}
    assert {digest: {"op": "put", **record} for digest, record in store.export().items()} == wanted
    assert len(wanted) == 15


def test_changes_and_snapshots_read_no_more_than_they_return(owner: Connection) -> None:
    owner.execute("INSERT INTO pat.token (digest, id, subject) SELECT sha256(n::text::bytea), n::text, 'alice'"
                  " FROM generate_series(1, 3000) AS n")
    owner.execute("SELECT pat.revoke(n::text) FROM generate_series(1, 3000, 100) AS n")
    owner.execute("DELETE FROM pat.token WHERE id::integer % 10 = 0")
    end = source(owner).position
    digest = one(owner, "SELECT digest FROM pat.token ORDER BY digest DESC LIMIT 1")

    def reads() -> tuple[int, int]:
        (row,) = owner.execute("SELECT sum(seq_scan), sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_xact_user_tables"
                               " WHERE relname IN ('token', 'tombstone')").fetchall()
        return int(row[0]), int(row[1])

    with owner.transaction():
        for query in (f"pat.changes({end - 4}, 100)", "pat.changes(0, 4)", "pat.changes(0, 4, true)",
                      f"pat.changes({end - 4}, 100, true)", "pat.snapshot('', 4)", "pat.source()",
                      f"pat.continues(1, '{digest.hex()[:16]}')"):
            scans, rows = reads()
            owner.execute(f"SELECT * FROM {query}")
            scans_after, rows_after = reads()
            assert scans_after == scans, query
            assert rows_after - rows <= 10, query


# Changes without a number


@contextmanager
def triggers_off(owner: Connection) -> Iterator[None]:
    """As pg_restore --disable-triggers has them: what was ALWAYS is plain afterwards."""
    for table in ("token", "tombstone"):
        owner.execute(f"ALTER TABLE pat.{table} DISABLE TRIGGER ALL")
    yield
    for table in ("token", "tombstone"):
        owner.execute(f"ALTER TABLE pat.{table} ENABLE TRIGGER ALL")


def test_changes_without_a_number_are_reported_and_can_be_numbered(owner: Connection, edge: Connection) -> None:
    kept, late = bytes([1] * 32), bytes([2] * 32)
    insert(owner, kept)
    assert not source(edge).unnumbered
    with triggers_off(owner):
        insert(owner, late)
    assert source(edge).unnumbered
    assert set(snapshot(edge)) == {digest for _, digest, _ in changes(edge)} == {kept}
    assert one(owner, "SELECT count(pat.put_line(token)) FROM pat.token") == 1

    received: list[psycopg.Notify] = []
    edge.add_notify_handler(received.append)
    edge.execute("LISTEN pat_changes")
    assert one(owner, "SELECT pat.number_changes()") == 1
    assert not source(edge).unnumbered
    assert len(received) == 1
    assert [(seq, digest) for seq, digest, _ in changes(edge, 1)] == [(2, late)]
    assert set(snapshot(edge)) == {kept, late}

    with triggers_off(owner):
        owner.execute("DELETE FROM pat.token WHERE digest = %s", (late,))
        owner.execute("INSERT INTO pat.tombstone (digest) VALUES (%s)", (late,))
    assert source(edge).unnumbered
    assert one(owner, "SELECT count(pat.delete_line(tombstone)) FROM pat.tombstone") == 0
    assert one(owner, "SELECT pat.number_changes()") == 1
    assert [json.loads(line)["op"] for _, _, line in changes(edge, 2)] == ["delete"]
    assert one(owner, "SELECT pat.number_changes()") == 0


def test_numbering_waits_for_who_changes_the_same_row(database: Database, owner: Connection) -> None:
    with triggers_off(owner):
        insert(owner)

    def number() -> None:
        with database.connect() as operator:
            operator.execute("SELECT pat.number_changes()")

    with database.connect(autocommit=False) as writer:
        writer.execute("UPDATE pat.token SET name = 'x'")
        with workers([number]):
            wait_until(lambda: waiting(owner), "the numbering waits")
            writer.commit()
    assert source(owner)[1:6] == (1, 0, None, False, False)


def test_a_replication_role_does_not_turn_the_triggers_off(owner: Connection, edge: Connection) -> None:
    owner.execute("SET session_replication_role = replica")
    insert(owner, seq=77)
    assert [seq for seq, _, _ in changes(edge)] == [1]
    # As a publisher numbers its changes: at once, or later.
    with owner.transaction():
        owner.execute("UPDATE pat.token SET seq = NULL, name = 'y'")
        owner.execute("UPDATE pat.token SET seq = 77")
    assert [seq for seq, _, _ in changes(edge)] == [2]
    owner.execute("UPDATE pat.token SET seq = 78")
    assert [seq for seq, _, _ in changes(edge)] == [3]
    owner.execute("DELETE FROM pat.token")
    assert [(seq, json.loads(line)["op"]) for seq, _, line in changes(edge)] == [(4, "delete")]
    assert not source(edge).unnumbered


def test_installing_again_turns_the_triggers_on(database: Database, owner: Connection, edge: Connection) -> None:
    for table in ("token", "tombstone"):
        owner.execute(f"ALTER TABLE pat.{table} DISABLE TRIGGER USER")
    database.install()
    assert one(owner, "SELECT array_agg(DISTINCT tgenabled::text) FROM pg_trigger WHERE NOT tgisinternal") == ["A"]
    issue(owner)
    assert len(changes(edge)) == 1


@contextmanager
def publisher_and_subscriber() -> Iterator[tuple[Connection, Connection, Callable[[], None]]]:
    """Two databases, and what makes the second one follow the tokens of the first by logical replication."""
    with PostgreSQL(fsync=False, settings={"wal_level": "logical"}) as server:
        server.start()
        for name in ("here", "there"):
            server.psql(f"CREATE DATABASE {name}")
            server.install(name)
        with server.connect(dbname="here", autocommit=True) as here, \
                server.connect(dbname="there", autocommit=True) as there:

            def subscribe() -> None:
                as_the_owner = ", run_as_owner = true" if there.info.server_version >= 160000 else ""
                here.execute("CREATE PUBLICATION tokens FOR TABLE pat.token")
                here.execute("SELECT pg_create_logical_replication_slot('tokens', 'pgoutput')")
                there.execute(f"CREATE SUBSCRIPTION tokens CONNECTION '{server.socket_url('postgres', 'here')}'"
                              f" PUBLICATION tokens WITH (create_slot = false{as_the_owner})")

            try:
                yield here, there, subscribe
            finally:
                there.execute("DROP SUBSCRIPTION IF EXISTS tokens")


def test_a_subscriber_of_logical_replication_numbers_for_itself() -> None:
    with publisher_and_subscriber() as (here, there, subscribe):
        issue(there, "local")
        ids = [issue(here)[0] for _ in range(3)]
        subscribe()
        wait_until(lambda: len(snapshot(there)) == 4, "the first tokens are there")
        here.execute("SELECT pat.revoke(%s)", (ids[0],))
        here.execute("DELETE FROM pat.token WHERE id = %s", (ids[1],))
        wait_until(lambda: changes(there)[-1][2].startswith('{"op":"delete"'), "the deletion is there")
        assert [json.loads(line).get("id") for _, _, line in changes(there)][-2:] == [ids[0], None]
        assert set(snapshot(there)) > set(snapshot(here))
        assert not source(there).unnumbered


# Ending tokens


def waiting(connection: Connection) -> bool:
    return bool(one(connection, "SELECT count(*) FROM pg_stat_activity"
                                " WHERE datname = current_database() AND wait_event_type = 'Lock'"))


@pytest.mark.parametrize("make", ["issue", "rotate", "insert", "move", "take back"])
@pytest.mark.parametrize("level", [READ_COMMITTED, REPEATABLE_READ])
def test_a_token_that_is_being_made_does_not_escape_its_subjects_revocation(
    database: Database, owner: Connection, make: str, level: psycopg.IsolationLevel
) -> None:
    issue(owner, id="old")
    issue(owner, "bob", id="other")
    issue(owner, id="revoked")
    owner.execute("SELECT pat.revoke('revoked')")
    revoked: list[int] = []

    def revoke() -> None:
        with database.connect("shop", options=NOT_FOR_EVER) as other:
            revoked.append(one(other, "SELECT pat.revoke_subject('alice')"))

    with database.connect(autocommit=False, options=NOT_FOR_EVER) as writer:
        writer.isolation_level = level
        match make:
            case "issue":
                issue(writer)
            case "rotate":
                writer.execute("SELECT pat.rotate('old')")
            case "insert":
                insert(writer)
            case "move":
                writer.execute("UPDATE pat.token SET subject = 'alice' WHERE id = 'other'")
            case "take back":
                writer.execute("UPDATE pat.token SET revoked_at = NULL WHERE id = 'revoked'")
        with workers([revoke]):
            wait_until(lambda: waiting(owner) or revoked, "the revocation waits")
            writer.commit()
    assert revoked == [2]
    assert one(owner, "SELECT count(*) FROM pat.tokens WHERE subject = 'alice' AND status <> 'revoked'") == 0


@pytest.mark.parametrize("level", [READ_COMMITTED, REPEATABLE_READ])
def test_a_revoked_token_is_not_rotated_after_all(
    database: Database, owner: Connection, level: psycopg.IsolationLevel
) -> None:
    issue(owner, id="old")

    def rotate() -> None:
        with database.connect("shop", autocommit=False, options=NOT_FOR_EVER) as late:
            late.isolation_level = level
            with pytest.raises((errors.ObjectNotInPrerequisiteState, errors.SerializationFailure)):
                late.execute("SELECT pat.rotate('old')")

    with database.connect("shop", autocommit=False) as revoker:
        assert one(revoker, "SELECT pat.revoke_subject('alice')") == 1
        with workers([rotate]):
            wait_until(lambda: waiting(owner), "the rotation waits")
            revoker.commit()
    assert one(owner, "SELECT array_agg(status) FROM pat.tokens") == ["revoked"]


def test_rotations_and_revocations_of_a_subject_do_not_lock_each_other_out(database: Database) -> None:
    def rotate(number: int) -> None:
        with database.connect("shop") as connection:
            for _ in range(40):
                token_id, _ = issue(connection)
                try:
                    connection.execute("SELECT pat.rotate(%s)", (token_id,))
                except errors.ObjectNotInPrerequisiteState:
                    pass

    def revoke() -> None:
        with database.connect("shop") as connection:
            for _ in range(40):
                connection.execute("SELECT pat.revoke_subject('alice')")

    with workers([*(partial(rotate, number) for number in range(4)), revoke, revoke]):
        pass


@pytest.mark.parametrize("level", [REPEATABLE_READ, SERIALIZABLE])
def test_a_snapshot_that_could_miss_a_token_is_refused(
    database: Database, level: psycopg.IsolationLevel
) -> None:
    with database.connect("shop", autocommit=False) as connection:
        connection.isolation_level = level
        with pytest.raises(errors.FeatureNotSupported, match="could miss tokens"):
            connection.execute("SELECT pat.revoke_subject('alice')")


def test_revoke_says_whether_it_was_this_call(shop: Connection) -> None:
    token_id, _ = issue(shop)
    assert one(shop, "SELECT pat.revoke(%s)", token_id) is True
    when = one(shop, "SELECT revoked_at FROM pat.tokens")
    assert one(shop, "SELECT pat.revoke(%s)", token_id) is False
    assert one(shop, "SELECT revoked_at FROM pat.tokens") == when
    with pytest.raises(errors.NoDataFound, match='no token with the id "nothing"'):
        shop.execute("SELECT pat.revoke('nothing')")


def test_everything_of_a_subject_is_revoked_or_what_was_issued_before(owner: Connection) -> None:
    for day in range(1, 5):
        insert(owner, bytes([day] * 32), issued_at=f"2020-01-0{day} 12:00:00+00")
    insert(owner, bytes(32), subject="bob")
    assert one(owner, "SELECT pat.revoke_subject('alice', '2020-01-03 12:00:00+00')") == 2
    assert one(owner, "SELECT count(*) FROM pat.tokens WHERE status = 'revoked'") == 2
    assert one(owner, "SELECT pat.revoke_subject('alice')") == 2
    assert one(owner, "SELECT pat.revoke_subject('alice')") == 0
    assert one(owner, "SELECT status FROM pat.tokens WHERE subject = 'bob'") == "ok"


def test_a_rotated_token_lives_for_the_overlap(shop: Connection, edge: Connection) -> None:
    old_id, old = issue(shop, "bob", name="CI", scopes=["s"], cidrs=["192.0.2.0/24"], claims=Jsonb({"a": "b"}),
                        expires_at=datetime.now(timezone.utc) + timedelta(days=10))
    time.sleep(0.05)
    ((new_id, new),) = shop.execute("SELECT * FROM pat.rotate(%s, '1 hour')", (old_id,)).fetchall()
    before, after = (json.loads(snapshot(edge)[digest_of(token)]) for token in (old, new))
    assert before["id"] == old_id and after["id"] == new_id
    assert abs(before["expires_at"] - time.time() - 3600) < 10
    same = ("subject", "name", "scopes", "cidrs", "claims")
    assert {name: before[name] for name in same} == {name: after[name] for name in same}
    lives = pairs(shop, "SELECT id, expires_at - issued_at FROM pat.tokens")
    assert abs(lives[new_id] - timedelta(days=10)) < timedelta(seconds=1)
    assert shop.execute("SELECT id FROM pat.tokens WHERE replaced_by = %s", (new_id,)).fetchall() == [(old_id,)]


def test_an_overlap_never_makes_a_token_live_longer(shop: Connection) -> None:
    token_id, _ = issue(shop, expires_at=datetime.now(timezone.utc) + timedelta(minutes=5))
    before = one(shop, "SELECT expires_at FROM pat.tokens")
    shop.execute("SELECT pat.rotate(%s)", (token_id,))
    assert one(shop, "SELECT expires_at FROM pat.tokens WHERE id = %s", token_id) == before

    forever, _ = issue(shop, expires_at=None)
    ((new_id, _),) = shop.execute("SELECT * FROM pat.rotate(%s, '0')", (forever,)).fetchall()
    states = pairs(shop, "SELECT id, status FROM pat.tokens")
    assert (states[forever], states[new_id]) == ("expired", "ok")
    assert one(shop, "SELECT expires_at FROM pat.tokens WHERE id = %s", new_id) is None


def test_what_can_not_be_rotated(owner: Connection) -> None:
    revoked, rotated, good = (issue(owner)[0] for _ in range(3))
    owner.execute("SELECT pat.revoke(%s)", (revoked,))
    owner.execute("SELECT pat.rotate(%s)", (rotated,))
    insert(owner, expires_at="2020-01-01", id="expired")
    for token_id, words in ((revoked, "is revoked"), (rotated, "was replaced by"), ("expired", "has expired")):
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match=words):
            owner.execute("SELECT pat.rotate(%s)", (token_id,))
    with pytest.raises(errors.NoDataFound, match="no token"):
        owner.execute("SELECT pat.rotate('nothing')")
    with pytest.raises(errors.InvalidParameterValue, match="negative"):
        owner.execute("SELECT pat.rotate(%s, '-1 second')", (good,))


def test_purging_leaves_tombstones_until_they_are_old(owner: Connection, edge: Connection) -> None:
    ends: list[dict[str, Any]] = [{"expires_at": "2020-01-01"}, {"revoked_at": "2020-01-01"},
                                  {"expires_at": "2020-03-01"}, {}]
    for number, columns in enumerate(ends):
        insert(owner, bytes([number] * 32), **columns)
    state: State = {}
    cursor = follow(edge, state, 0)
    assert one(owner, "SELECT pat.purge('2020-02-01')") == 2
    assert one(owner, "SELECT pat.purge('2020-02-01')") == 0
    cursor = follow(edge, state, cursor)
    assert state == snapshot(edge) and set(state) == {bytes([2] * 32), bytes([3] * 32)}

    dropped = source(edge).position
    assert source(edge).horizon == 0
    owner.execute("UPDATE pat.tombstone SET deleted_at = now() - interval '31 days'")
    assert one(owner, "SELECT pat.purge('2020-04-01', at_most => 1)") == 1
    assert source(edge).horizon == dropped < source(edge).position
    assert len(changes(edge, dropped)) == 1
    with pytest.raises(psycopg.Error, match="no longer available") as caught:
        changes(edge, dropped - 1)
    assert caught.value.sqlstate == "72000"

    owner.execute("SELECT pat.purge('2020-04-01', '0')")
    assert source(edge).horizon == source(edge).position
    assert changes(edge, source(edge).position) == []


def test_a_token_that_is_valid_can_not_be_purged(owner: Connection) -> None:
    issue(owner)
    with pytest.raises(errors.InvalidParameterValue, match="in the past"):
        owner.execute("SELECT pat.purge(now() + interval '1 year')")
    assert one(owner, "SELECT pat.purge(now())") == 0


def test_a_digest_that_comes_back_is_no_tombstone(database: Database, owner: Connection, edge: Connection) -> None:
    insert(owner)
    owner.execute("DELETE FROM pat.token")
    assert [json.loads(line)["op"] for _, _, line in changes(edge)] == ["delete"]
    insert(owner)
    assert [json.loads(line)["op"] for _, _, line in changes(edge)] == ["put"]
    with owner.transaction():
        owner.execute("DELETE FROM pat.token")
        insert(owner)
    assert [(seq, json.loads(line)["op"]) for seq, _, line in changes(edge)] == [(source(edge).position, "put")]

    # A tombstone that is in the way, as a table restored by itself may leave one.
    owner.execute("INSERT INTO pat.tombstone (digest) VALUES (%s)", (bytes(32),))
    before = source(edge).position
    owner.execute("DELETE FROM pat.token")
    assert [json.loads(line)["op"] for _, _, line in changes(edge, before)] == ["delete"]


# Use


def report(connection: Connection, batch: int, *uses: dict[str, Any], edge: str = "edge1") -> int:
    return int(one(connection, "SELECT pat.record_use(%s, %s, %s)", edge, batch, Json(list(uses))))


def test_use_is_recorded_once(shop: Connection, edge: Connection) -> None:
    token_id, _ = issue(shop)

    def used() -> tuple[Any, ...]:
        (row,) = shop.execute("SELECT extract(epoch FROM last_used_at)::bigint, host(last_used_from), uses"
                              " FROM pat.tokens")
        return row

    assert used() == (None, None, 0)
    assert report(edge, 7, {"id": token_id, "at": 1700000000, "from": "203.0.113.7", "count": 3},
                  {"id": "unknown", "at": 1700000000}) == 1
    assert used() == (1700000000, "203.0.113.7", 3)
    for batch in (7, 6):
        assert report(edge, batch, {"id": token_id, "at": 1800000000, "from": "203.0.113.8", "count": 3}) == 0
    assert used() == (1700000000, "203.0.113.7", 3)

    # An older time adds its count alone; another edge counts for itself.
    assert report(edge, 8, {"id": token_id, "at": 1600000000, "from": "203.0.113.9", "count": 2}) == 1
    assert used() == (1700000000, "203.0.113.7", 5)
    assert report(edge, 1, {"id": token_id, "at": 1700000001, "from": "2001:db8::1"},
                  {"id": token_id, "at": 1700000000, "from": "192.0.2.1"}, edge="edge2") == 1
    assert used() == (1700000001, "2001:db8::1", 7)


def test_odd_reports_of_use_do_no_harm(shop: Connection, edge: Connection) -> None:
    token_id, _ = issue(shop)
    good = {"id": token_id, "at": time.time() + 3600, "from": "unix:", "count": 1}
    assert report(edge, 1, good, {"id": token_id}, {}, {"id": token_id, "at": -1}, {"id": token_id, "at": 1e300}) == 1
    (row,) = shop.execute("SELECT last_used_at > now(), last_used_from, uses FROM pat.tokens")
    assert row == (False, None, 1)
    for bad in ({}, "x", None):
        with pytest.raises(errors.InvalidParameterValue):
            edge.execute("SELECT pat.record_use('edge1', 2, %s)", (None if bad is None else Json(bad),))


def test_odd_elements_leave_the_others_alone(shop: Connection, edge: Connection) -> None:
    token_id, _ = issue(shop)
    good = f'{{"id": "{token_id}", "at": 1700000000, "count": 2}}'
    odd = ["null", "1", '"x"', "[]", "[1, 2]", "{}", '{"id": null, "at": 1}', '{"id": 1, "at": 1}',
           '{"id": {}, "at": 1}', r'{"id": "\u0000", "at": 1}', r'{"id": "\ud800", "at": 1}', r'{"x\u0000": 1}']
    odd += [f'{{"id": "{token_id}", {rest}}}' for rest in (
        '"at": null', '"at": "1700000000"', '"at": 1e400000', '"at": -1', '"at": 1e-400000', '"at": true', '"at": []',
        '"at": 1, "count": 1e400000', '"at": 1, "count": -1', '"at": 1, "count": "x"', '"at": 1, "count": {}',
        r'"at": 1, "from": "\u0000"', '"at": ' + "9" * 500)]
    for batch, element in enumerate(odd):
        uses = f"[{element}, {good}, {element}]"
        assert one(edge, "SELECT pat.record_use('edge1', %s, %s)", batch, uses) == 1, element
    assert one(shop, "SELECT uses FROM pat.tokens") == 2 * len(odd)


def test_no_report_counts_too_much(owner: Connection, edge: Connection) -> None:
    token_id, _ = issue(owner)

    def uses_after(batch: int, *counts: float) -> int:
        report(edge, batch, *({"id": token_id, "at": 1700000000, "count": count} for count in counts))
        return int(one(owner, "SELECT uses FROM pat.tokens"))

    assert uses_after(1, 10**6) == 10**6
    assert uses_after(2, 10**6 + 1, 2**63 - 1, 1e30) == 4 * 10**6
    assert uses_after(3, 0, 1.0, 2e0) == 4 * 10**6 + 4
    owner.execute("UPDATE pat.token_use SET uses = %s", (2**63 - 10,))
    assert uses_after(4, 9) == uses_after(5, 10**6) == 2**63 - 1


def test_a_login_does_not_silence_the_edges_of_another(database: Database, shop: Connection, edge: Connection) -> None:
    token_id, _ = issue(shop)
    use = {"id": token_id, "at": 1700000000}
    with database.connect() as other:
        assert report(other, 2**63 - 1, use) == 1
        assert report(edge, 1, use) == 1
        assert report(edge, 1, use) == 0
        assert report(other, 2**63 - 1, use) == 0
        rows = other.execute("SELECT login, name, batch FROM pat.edge").fetchall()
    assert set(rows) == {("postgres", "edge1", 2**63 - 1), ("edge", "edge1", 1)}


def test_an_edge_learns_what_it_reported_last(database: Database, edge: Connection) -> None:
    def last(connection: Connection, name: str = "edge1") -> int:
        return int(one(connection, "SELECT pat.last_batch(%s)", name))

    assert last(edge) == 0
    for batch, wanted in ((7, 7), (6, 7), (8, 8)):
        report(edge, batch)
        assert last(edge) == wanted
    assert last(edge, "edge2") == 0
    with database.connect() as other:
        assert last(other) == 0
        report(other, 2**63 - 1)
        assert (last(other), last(edge)) == (2**63 - 1, 8)


def test_a_report_of_use_is_durable_before_the_edge_forgets_it(database: Database, edge: Connection) -> None:
    for setting, wanted in (("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")):
        edge.execute(f"SET synchronous_commit = {setting}")
        with edge.transaction():
            report(edge, 1)
            assert one(edge, "SHOW synchronous_commit") == wanted


def test_edges_that_report_at_once_do_not_lock_each_other_out(database: Database, shop: Connection) -> None:
    ids = [issue(shop)[0] for _ in range(40)]

    def work(number: int) -> None:
        dice = random.Random(number)
        with database.connect("edge") as connection:
            for batch in range(1, 31):
                uses = [{"id": token_id, "at": 1700000000 + batch} for token_id in ids]
                dice.shuffle(uses)
                assert report(connection, batch, *uses, edge=f"edge{number}") == len(ids)

    with workers([partial(work, number) for number in range(4)]):
        pass
    assert one(shop, "SELECT array_agg(DISTINCT uses) FROM pat.tokens") == [120]


# Roles

EDGE_FUNCTIONS = {"source", "number_found", "changes", "snapshot", "continues", "record_use", "last_batch"}
PLATFORM_FUNCTIONS = {"issue", "rotate", "revoke", "revoke_subject", "purge", "policy_of", "expiring"}
PROFILE_FUNCTIONS = {"tokens_of", "issue_for", "rotate_for", "revoke_for", "revoke_digest_for", "revoke_all_for",
                     "audit_of", "policy_of", "describe"}
ADMIN_FUNCTIONS = {"find_tokens", "issue_as", "rotate_as", "revoke_as", "revoke_digest_as", "revoke_all_as",
                   "policy_of"}


def test_roles_may_do_what_they_need_and_nothing_else(owner: Connection) -> None:
    allowed: list[tuple[str, set[str], set[tuple[str, str]]]] = [
        ("edge", EDGE_FUNCTIONS, set()),
        ("shop", PLATFORM_FUNCTIONS, {("tokens", "SELECT")}),
        ("profile", PROFILE_FUNCTIONS, set()),
        ("admin", ADMIN_FUNCTIONS, {("audit_log", "SELECT")}),
        ("auditor", {"audit_lines"}, {("audit_log", "SELECT")}),
        ("stranger", set(), set()),
    ]
    for role, functions, tables in allowed:
        rows = owner.execute("SELECT proname FROM pg_proc WHERE pronamespace = 'pat'::regnamespace"
                             " AND has_function_privilege(%s, oid, 'EXECUTE')", (role,)).fetchall()
        assert sorted(name for name, in rows) == sorted(functions)
        rows = owner.execute(
            "SELECT relname, privilege FROM pg_class,"
            " unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS privilege"
            " WHERE relnamespace = 'pat'::regnamespace AND relkind IN ('r', 'v')"
            " AND has_table_privilege(%s, oid, privilege)"
            " UNION ALL SELECT relname, 'USAGE' FROM pg_class"
            " WHERE relnamespace = 'pat'::regnamespace AND relkind = 'S'"
            " AND (has_sequence_privilege(%s, oid, 'USAGE') OR has_sequence_privilege(%s, oid, 'SELECT'))",
            (role, role, role)).fetchall()
        assert set(rows) == tables
        assert one(owner, "SELECT has_schema_privilege(%s, 'pat', 'CREATE')", role) is False
        assert one(owner, "SELECT has_schema_privilege(%s, 'pat', 'USAGE')", role) is (role != "stranger")


def test_an_edge_is_told_no(edge: Connection) -> None:
    for query in ("SELECT * FROM pat.token", "SELECT * FROM pat.tokens", "SELECT pat.issue('alice')",
                  "SELECT pat.revoke('x')", "SELECT pat.new_epoch()", "SELECT pat.number_changes()",
                  "SELECT pat.use_pepper('')", "SELECT nextval('pat.seq')"):
        with pytest.raises(errors.InsufficientPrivilege):
            edge.execute(query)
    with pytest.raises(errors.InsufficientPrivilege), edge.transaction():
        edge.execute("LOCK TABLE pat.clock IN EXCLUSIVE MODE")


def test_functions_do_not_look_where_their_caller_wants(owner: Connection, edge: Connection) -> None:
    insert(owner)
    edge.execute("CREATE TEMP TABLE token (LIKE pg_class); CREATE TEMP TABLE history (horizon bigint)")
    edge.execute("CREATE FUNCTION pg_temp.sha256(bytea) RETURNS bytea LANGUAGE sql AS $$ SELECT $1 $$")
    edge.execute("SET search_path = pg_temp, pat, pg_catalog")
    assert len(changes(edge)) == len(snapshot(edge)) == source(edge).position == 1
    paths = pairs(owner, "SELECT proname, proconfig FROM pg_proc"
                         " WHERE pronamespace = 'pat'::regnamespace AND prosecdef")
    for name, settings in paths.items():
        assert "search_path=pg_catalog, pat, pg_temp" in settings, name


# What an edge would refuse


def claims_of(length: int) -> dict[str, str]:
    """Claims that take this many bytes of a record."""
    return {"a": "x" * (length - 4)}


@pytest.fixture(scope="module")
def rules(server: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Connection, Store]]:
    """A database and a store for many short tests."""
    with new_database(server, "pat_rules") as database, database.connect() as owner:
        yield owner, Store(tmp_path_factory.mktemp("rules"))


ZERO_ID = len(bytes(32).hex())
ROOM = 4096 - 64 - ZERO_ID - len("alice")


@pytest.mark.parametrize(
    ("field", "value", "good"),
    [
        ("id", "a" * 64, True), ("id", "a" * 65, False), ("id", "", False), ("id", "aZ09._:@-", True),
        ("id", "a b", False), ("id", "ä", False), ("id", "a\n", False), ("id", "a/b", False),
        ("subject", "", False), ("subject", "a" * 255, True), ("subject", "a" * 256, False),
        ("subject", "ä" * 127 + "a", True), ("subject", "ä" * 128, False), ("subject", "a\x1fb", False),
        ("subject", "a\x7fb", False), ("subject", "a\x80b\u2028", True), ("subject", "\n", False),
        ("subject", "a\x01", False),
        ("subject", 'quo"te\\', True),
        ("name", "ä" * 127 + "a", True), ("name", "ä" * 128, False), ("name", "a\tb", False), ("name", "", True),
        ("scopes", ["!#$%&'()*+-./09:;<=>?@AZ[]^_`az{|}~"], True), ("scopes", ['a"b'], False),
        ("scopes", ["a\\b"], False),
        ("scopes", ["a b"], False), ("scopes", [""], False), ("scopes", ["a", ""], False), ("scopes", ["ä"], False),
        ("scopes", ["a", "b"], True), ("scopes", ["a\x7f"], False), ("scopes", [None], False),
        ("scopes", ["a", None], False),
        ("cidrs", ["0.0.0.0/0", "::/0", "192.0.2.1", "2001:db8::/127"], True), ("cidrs", [None], False),
        ("claims", {"a_0": "", "z" * 64: "ä"}, True), ("claims", {"z" * 65: "x"}, False), ("claims", {"": "x"}, False),
        ("claims", {"A": "x"}, False), ("claims", {"a-b": "x"}, False), ("claims", {"a": 1}, False),
        ("claims", {"a": None}, False), ("claims", {"a": "x\ny"}, False), ("claims", {"a": "\x7f"}, False),
        ("claims", {"a": {}}, False), ("claims", [], False), ("claims", "x", False),
        ("claims", claims_of(ROOM), True), ("claims", claims_of(ROOM + 1), False),
        ("scopes", ["x" * ROOM], True), ("scopes", ["x" * (ROOM + 1)], False),
        ("cidrs", ["192.0.2.0/24"] * (ROOM // 6), True), ("cidrs", ["192.0.2.0/24"] * (ROOM // 6 + 1), False),
        ("cidrs", ["::ffff:192.0.2.0/120"] * (ROOM // 6), True),
        ("cidrs", ["2001:db8::/32"] * (ROOM // 18), True), ("cidrs", ["2001:db8::/32"] * (ROOM // 18 + 1), False),
        ("expires_at", 1, True), ("expires_at", 0, False), ("expires_at", -1, False),
        ("expires_at", 253402300799, True),
        ("expires_at", 253402300800, False), ("issued_at", 0, False), ("not_before", 253402300800, False),
        ("revoked_at", 0, False), ("revoked_at", 1, True),
    ],
    ids=lambda value: str(value)[:24] if isinstance(value, str) else None,
)
def test_the_database_holds_what_a_store_can_hold(
    rules: tuple[Connection, Store], field: str, value: Any, good: bool
) -> None:
    owner, store = rules
    assert store.accepts({"digest": bytes(32).hex(), "id": bytes(32).hex(), "subject": "alice", field: value}) is good

    column: Any = Jsonb(value) if field == "claims" else value
    if field.endswith("_at") or field == "not_before":
        column = one(owner, "SELECT to_timestamp(%s)::text", value)
    if good:
        insert(owner, **{field: column})
        lines = [line for _, _, line in changes(owner)]
        owner.execute("DELETE FROM pat.token")
        assert store.apply(lines) == []
    else:
        with pytest.raises(errors.CheckViolation) as caught:
            insert(owner, **{field: column})
        assert caught.value.diag.constraint_name == "token_check"


@pytest.mark.parametrize("column", ["issued_at", "not_before", "expires_at", "revoked_at"])
def test_infinite_times_are_refused(owner: Connection, column: str) -> None:
    for value in ("infinity", "-infinity"):
        with pytest.raises(errors.CheckViolation, match="For no limit|later than 1970"):
            insert(owner, bytes(32), **{column: value})


def test_digests_of_another_length_are_refused(owner: Connection) -> None:
    for length in (0, 31, 33):
        with pytest.raises(errors.CheckViolation, match="32 bytes"):
            insert(owner, bytes(length), id="x")


def test_digests_and_ids_are_unique(owner: Connection) -> None:
    insert(owner)
    for digest, token_id in ((bytes(32), "other"), (bytes([1] * 32), bytes(32).hex())):
        with pytest.raises(errors.UniqueViolation):
            insert(owner, digest, id=token_id)


# Epochs


def test_an_epoch_is_short_and_changes_on_request(owner: Connection, edge: Connection) -> None:
    issue(owner)
    before = source(edge)
    assert re.fullmatch(r"[0-9a-z-]{1,60}", before.epoch)
    received: list[psycopg.Notify] = []
    edge.add_notify_handler(received.append)
    edge.execute("LISTEN pat_changes")
    new = one(owner, "SELECT pat.new_epoch()")
    assert source(edge) == before._replace(epoch=new) != before
    assert len(received) == 1


def test_a_copy_of_a_database_has_another_epoch(server: PostgreSQL, database: Database) -> None:
    with database.connect() as connection:
        here = source(connection).epoch
    with new_database(server, f"{database.name}_copy", database.name) as copy, copy.connect() as connection:
        assert source(connection).epoch != here


def test_a_restored_dump_has_another_epoch_and_goes_on(server: PostgreSQL, database: Database) -> None:
    with database.connect() as owner:
        ids = [issue(owner)[0] for _ in range(5)]
        owner.execute("DELETE FROM pat.token WHERE id = %s", (ids[0],))
        before, state = source(owner), snapshot(owner)
    dump = server.dump(database.name, "--schema=pat")
    database.psql("DROP SCHEMA pat CASCADE")
    database.psql(dump)
    database.install()
    with database.connect("edge") as edge, database.connect("shop") as shop:
        after = source(edge)
        assert after.epoch != before.epoch
        assert after._replace(epoch=before.epoch) == before
        assert snapshot(edge) == state
        issue(shop)
        assert len(changes(edge, before.position)) == 1
        assert source(edge).position > before.position


def test_a_change_that_was_seen_is_recognised(owner: Connection, edge: Connection) -> None:
    def continues(seq: int, prefix: str) -> bool:
        return bool(one(edge, "SELECT pat.continues(%s, %s)", seq, prefix))

    first, second = bytes([1] * 32), bytes([2] * 32)
    insert(owner, first)
    insert(owner, second)
    for length in (8, 9, 16, 64):
        assert continues(1, first.hex()[:length])
        assert continues(2, second.hex()[:length].upper())
        assert not continues(2, first.hex()[:length])
    assert continues(0, "")
    assert not continues(1, "ff" * 8)

    owner.execute("DELETE FROM pat.token WHERE digest = %s", (second,))
    assert continues(2, second.hex()) and continues(3, second.hex()) and not continues(4, second.hex())
    owner.execute("SELECT pat.purge(now(), '0')")
    assert continues(3, second.hex()) and not continues(4, second.hex())
    for bad in ("", "abc", "g" * 8, "0" * 65):
        with pytest.raises(errors.InvalidParameterValue, match="beginning of a digest"):
            continues(1, bad)


def test_a_cursor_that_was_overtaken_after_a_restore_is_noticed(server: PostgreSQL, database: Database) -> None:
    victim, busy = bytes([1] * 32), bytes([2] * 32)
    with database.connect() as owner:
        insert(owner, victim)
        insert(owner, busy)

    for end in ("token", "tombstone"):
        with new_database(server, f"{database.name}_older", database.name) as older, older.connect() as owner:
            assert one(owner, "SELECT pat.continues(2, %s)", busy.hex()[:16])
            owner.execute("SELECT pat.revoke(%s)", (victim.hex(),))
            for number in range(3, 6):
                insert(owner, bytes([number] * 32))
            if end == "tombstone":
                owner.execute("DELETE FROM pat.token WHERE digest = %s", (bytes([5] * 32),))
            owner.execute("UPDATE pat.token SET name = 'x' WHERE digest = %s", (busy,))
            # Before it was put back, it had issued 3 to 5, and changed the busy one, which was 6 (or 7).
            cursor = 6 if end == "token" else 7
            assert source(owner).position == cursor + 1
            assert not one(owner, "SELECT pat.continues(%s, %s)", cursor, busy.hex()[:16])
            assert one(owner, "SELECT pat.continues(%s, %s)", cursor + 1, busy.hex()[:16])


def test_a_cluster_put_back_in_place_is_noticed(edge: Connection) -> None:
    with PostgreSQL(fsync=False) as server:
        server.start()
        server.install("postgres")
        database = Database(server, "postgres")
        with database.connect() as owner:
            kept = digest_of(issue(owner)[1])
            early = source(owner)
            assert early.epoch.split("-")[0] != source(edge).epoch.split("-")[0], "the epoch begins with the cluster"
        server.stop()
        server.save("older")

        server.start()
        with database.connect() as owner:
            lost = digest_of(issue(owner)[1])
            owner.execute("UPDATE pat.token SET name = 'x' WHERE digest = %s", (kept,))
            late = source(owner)
        server.stop()
        server.put_back("older")

        server.start()
        with database.connect() as owner:
            assert late.epoch == early.epoch == source(owner).epoch
            assert one(owner, "SELECT pat.continues(%s, %s)", early.position, kept.hex()[:16])
            assert not one(owner, "SELECT pat.continues(%s, %s)", late.position, kept.hex()[:16])
            assert not one(owner, "SELECT pat.continues(%s, %s)", late.position - 1, lost.hex()[:16])


def test_a_standby_has_the_epoch_of_its_primary_until_it_is_one() -> None:
    with PostgreSQL(fsync=False) as primary, PostgreSQL(fsync=False) as standby, PostgreSQL(fsync=False) as second:
        primary.start()
        primary.install("postgres")
        for replica in (standby, second):
            replica.become_standby_of(primary)
        standby.start()
        with primary.connect(autocommit=True) as owner, standby.connect(autocommit=True) as reader:
            issue(owner)
            wait_until(lambda: source(reader).position == 1, "the standby has the change")
            here, there = source(owner), source(reader)
            assert there == here._replace(is_standby=True)
            assert changes(reader) == changes(owner)
            assert snapshot(reader) == snapshot(owner)

        primary.stop()
        standby.promote()
        # The other one follows it, and learns of the new history with its first change.
        second.configure("primary_conninfo", standby.socket_url("postgres"))
        second.start()
        with standby.connect(autocommit=True) as owner, second.connect(autocommit=True) as reader:
            promoted = source(owner)
            assert promoted.epoch != here.epoch and not promoted.is_standby
            issue(owner)
            position = source(owner).position
            wait_until(lambda: source(reader).position == position, "the standby has the change")
            assert source(reader) == source(owner)._replace(is_standby=True)
            assert source(owner).epoch == promoted.epoch
