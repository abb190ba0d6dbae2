"""Changes made with triggers off, or otherwise bypassing them, are numbered all the same."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest
from basics import DEADLINE, free_port, wait_until
from postgresql import Connection, Database, PostgreSQL, issue, new_database, one
from psycopg import errors
from sidecar import PatSync, once, pat_sync, scrape, value
from store import Store
from test_postgres import changes, insert, number_found, snapshot, source, triggers_off, workers

FAST = ("--poll-interval", "0.1", "--heartbeat-interval", "0.1")


def lines(connection: Connection, after: int) -> list[dict[str, object]]:
    return [json.loads(line) for _, _, line in changes(connection, after)]


# --- what is found ---

CHANGES = {
    "revoked": "revoked_at = now()",
    "with another number": "revoked_at = now(), seq = 17",
    "with the number of before": "revoked_at = now(), seq = seq",
    "without a number": "revoked_at = now(), seq = NULL",
    "as if seen": "revoked_at = now(), numbered_digest = digest, numbered_hash = numbered_hash",
    "renamed": "name = 'another'",
    "another subject": "subject = 'bob'",
    "fewer scopes": "scopes = '{a}'",
    "other addresses": "cidrs = '{192.0.2.0/24}'",
    "expired": "expires_at = now() - interval '1 minute'",
    "begins later, by a microsecond": "not_before = not_before + interval '1 microsecond'",
    "issued earlier": "issued_at = issued_at - interval '1 s'",
    "other claims": "claims = '{\"plan\": \"free\"}'",
    "another id": "id = 'other'",
    "the number alone": "seq = 1",
    "the mark alone": "numbered_hash = NULL",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_update_is_found(owner: Connection, edge: Connection, change: str) -> None:
    for digest in (bytes(32), bytes([1] * 32)):
        insert(owner, digest, scopes=["a", "b"], not_before="2020-01-01", claims='{"plan": "pro"}')
    owner.execute("UPDATE pat.token SET name = 'x' WHERE digest = %s", (bytes(32),))
    before = source(edge)
    assert (before.position, before.unnumbered, before.triggers) == (3, False, None)
    with triggers_off(owner):
        owner.execute(f"UPDATE pat.token SET {change} WHERE digest = %s", (bytes(32),))
    assert source(edge).unnumbered
    position = source(edge).position
    assert number_found(edge) == [bytes(32)]
    assert not source(edge).unnumbered and number_found(edge) == []
    (line,) = lines(edge, position)
    assert line["digest"] == bytes(32).hex() and ("revoked_at" in line) == ("revoked_at" in change)


def test_a_session_that_is_a_replica_hides_nothing(owner: Connection, edge: Connection) -> None:
    """ENABLE TRIGGER ALL made them plain, so session_replication_role = replica skips them."""
    insert(owner)
    with triggers_off(owner):
        pass
    owner.execute("SET session_replication_role = replica")
    owner.execute("UPDATE pat.token SET revoked_at = now()")
    owner.execute("RESET session_replication_role")
    assert number_found(edge) == [bytes(32)]
    assert "revoked_at" in lines(edge, 1)[0]


def test_a_change_that_is_taken_back_and_made_again_is_told_each_time(owner: Connection, edge: Connection) -> None:
    insert(owner)
    with triggers_off(owner):
        for change, is_revoked in (("now()", True), ("NULL", False), ("now()", True)):
            owner.execute(f"UPDATE pat.token SET revoked_at = {change}")
            position = source(edge).position
            assert number_found(edge) == [bytes(32)]
            assert ("revoked_at" in lines(edge, position)[0]) == is_revoked
        # Twice at once: nothing is left to tell.
        owner.execute("UPDATE pat.token SET name = 'x'; UPDATE pat.token SET name = ''")
        assert number_found(edge) == [] and not source(edge).unnumbered


def test_a_digest_that_is_changed_is_forgotten_by_the_edges(owner: Connection, edge: Connection) -> None:
    old, new = bytes([1] * 32), bytes([2] * 32)
    insert(owner, old)
    with triggers_off(owner):
        owner.execute("UPDATE pat.token SET digest = %s", (new,))
    assert number_found(edge) == [new]
    assert [(line["op"], line["digest"]) for line in lines(edge, 1)] == [("delete", old.hex()), ("put", new.hex())]


def test_digests_that_change_places_are_no_deletions(owner: Connection, edge: Connection) -> None:
    a, b, c = (bytes([n] * 32) for n in (1, 2, 3))
    insert(owner, a, id="a")
    insert(owner, b, id="b")
    with triggers_off(owner):
        for old, new in ((a, c), (b, a), (c, b)):
            owner.execute("UPDATE pat.token SET digest = %s WHERE digest = %s", (new, old))
    assert number_found(edge) == [a, b]
    assert {line["digest"]: (line["op"], line["id"]) for line in lines(edge, 2)} == {
        a.hex(): ("put", "b"), b.hex(): ("put", "a")}


def test_rows_that_were_loaded_are_found(owner: Connection, edge: Connection) -> None:
    insert(owner)
    with triggers_off(owner):
        columns = "digest, id, subject, seq, numbered_hash, numbered_digest"
        # Put back as it was, and changed.
        owner.execute(f"CREATE TEMP TABLE saved AS SELECT {columns} FROM pat.token; DELETE FROM pat.token")
        owner.execute("UPDATE saved SET subject = 'bob'")
        with owner.cursor() as cursor:
            with cursor.copy("COPY saved TO STDOUT (FORMAT binary)") as out:
                rows = b"".join(bytes(part) for part in out)
            with cursor.copy(f"COPY pat.token ({columns}) FROM STDIN (FORMAT binary)") as into:
                into.write(rows)
        insert(owner, bytes([1] * 32), seq=3)
        insert(owner, bytes([2] * 32), seq=2**40)
    assert number_found(edge) == [bytes([n] * 32) for n in (0, 1, 2)]
    assert [line["subject"] for line in lines(edge, 2**40)] == ["bob", "alice", "alice"]


def test_rows_of_another_database_are_found_with_their_numbers(server: PostgreSQL, owner: Connection) -> None:
    with new_database(server, "pat_other", template=None) as other:
        other.install()
        with other.connect() as there:
            insert(there)
            columns = "digest, id, subject, issued_at, seq, numbered_hash, numbered_digest"
            row = there.execute(f"SELECT {columns} FROM pat.token").fetchone()
            assert row is not None
    with triggers_off(owner):
        owner.execute(f"INSERT INTO pat.token ({columns}) VALUES (%s, %s, %s, %s, %s, %s, %s)", row)
    assert source(owner).unnumbered


def test_what_is_found_does_not_depend_on_settings(owner: Connection, edge: Connection) -> None:
    """Writing a row without changing it keeps its number."""
    insert(owner, name="ä", scopes=["a"], cidrs=["192.0.2.0/24", "2001:db8::/32"], not_before="2020-01-01 00:00:00.000001",
           expires_at="2999-12-31 23:59:59.999999", claims='{"b": "ä\\"", "a": "1"}')
    with triggers_off(owner):
        for setting in ("DateStyle = 'SQL, DMY'", "TimeZone = 'Asia/Kathmandu'", "IntervalStyle = sql_standard",
                        "extra_float_digits = -15", "bytea_output = escape", "search_path = pg_temp", "xmlbinary = hex",
                        "client_encoding = LATIN1", "standard_conforming_strings = off", "array_nulls = off",
                        "lc_monetary = 'C'", "quote_all_identifiers = on", "transform_null_equals = on"):
            owner.execute(f"SET {setting}")
            owner.execute("UPDATE pat.token SET replaced_by = NULL")
            assert one(owner, "SELECT is_numbered FROM pat.token") is True, setting


def test_the_look_reads_nothing_if_there_is_nothing(owner: Connection) -> None:
    owner.execute("INSERT INTO pat.token (digest, id, subject) SELECT sha256(int8send(n)), n, 'x'"
                  " FROM generate_series(1, 2000) AS n")
    owner.execute("VACUUM ANALYZE pat.token")
    (plan,) = owner.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)"
                            " SELECT FROM pat.token WHERE NOT is_numbered").fetchall()
    blocks = plan[0][0]["Plan"]["Shared Hit Blocks"] + plan[0][0]["Plan"]["Shared Read Blocks"]
    assert blocks <= 3


# --- numbering what was found ---


def test_an_edge_numbers_in_portions_and_holds_up_nobody(database: Database, owner: Connection, edge: Connection) -> None:
    with triggers_off(owner):
        owner.execute("INSERT INTO pat.token (digest, id, subject) SELECT sha256(int8send(n)), n, 'x'"
                      " FROM generate_series(1, 1200) AS n")
        insert(owner)
    with database.connect("edge", autocommit=False) as slow:
        assert len(number_found(slow)) == 500
        slow.execute("SET CONSTRAINTS ALL IMMEDIATE")
        # Its transaction is open, and has what it wanted: all others go on.
        owner.execute("SET lock_timeout = '5s'; UPDATE pat.token SET revoked_at = now() WHERE id = '7'")
        assert len(number_found(edge)) == 500
        slow.commit()
    counts = [len(number_found(edge)) for _ in range(3)]
    assert counts[-1] == 0 and counts[0] > 0
    assert len(snapshot(edge)) == 1201 and not source(edge).unnumbered


def test_what_somebody_is_changing_is_left_to_them(database: Database, owner: Connection, edge: Connection) -> None:
    with triggers_off(owner):
        for n in (1, 2):
            insert(owner, bytes([n] * 32))
    with database.connect(autocommit=False) as writer:
        writer.execute("UPDATE pat.token SET name = 'x' WHERE digest = %s", (bytes([1] * 32),))
        assert len(number_found(edge)) == 2
        assert number_found(edge) == [bytes([1] * 32)]
    # They have committed.
    assert [line["digest"] for line in lines(edge, 0)] == [bytes([n] * 32).hex() for n in (2, 1)]
    assert number_found(edge) == []


def test_a_row_against_the_rules_keeps_no_other_from_its_number(owner: Connection, edge: Connection) -> None:
    with triggers_off(owner):
        owner.execute("ALTER TABLE pat.token DROP CONSTRAINT token_check")
        insert(owner, bytes([1] * 32), subject="a\nb")
        owner.execute("ALTER TABLE pat.token ADD CONSTRAINT token_check CHECK (pat.check_token(digest, id, subject, name,"
                      " scopes, cidrs, issued_at, not_before, expires_at, revoked_at, claims)) NOT VALID")
        insert(owner, bytes([2] * 32))
    assert len(number_found(edge)) == 2
    assert number_found(edge) == [bytes([1] * 32)]
    assert [line["digest"] for line in lines(edge, 0)] == [bytes([2] * 32).hex()]
    with pytest.raises(errors.CheckViolation, match=f'the token "{"01" * 32}" cannot be numbered: a subject must have'):
        owner.execute("SELECT pat.number_changes()")


def test_any_number_of_rows_against_the_rules_keeps_no_other_from_its_number(
    database: Database, owner: Connection, edge: Connection, store: Store
) -> None:
    """They come first in order, and exceed the limit of a look."""
    notices: list[str] = []
    edge.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    insert(owner, bytes([255] * 32))
    with triggers_off(owner):
        owner.execute("ALTER TABLE pat.token DROP CONSTRAINT token_check")
        owner.execute("INSERT INTO pat.token (digest, id, subject) SELECT decode('00' || right(encode(sha256(int8send(n)),"
                      " 'hex'), 62), 'hex'), n, E'a\\nb' FROM generate_series(1, 700) AS n")
        owner.execute("ALTER TABLE pat.token ADD CONSTRAINT token_check CHECK (pat.check_token(digest, id, subject, name,"
                      " scopes, cidrs, issued_at, not_before, expires_at, revoked_at, claims)) NOT VALID")
        owner.execute("UPDATE pat.token SET revoked_at = now() WHERE digest = %s", (bytes([255] * 32),))
    database.install()
    assert len(number_found(edge)) == 500
    # What it tells is bounded, too.
    assert 1 <= len(notices) <= 2 and "cannot be numbered: a subject must have" in notices[0]
    wait_until(lambda: number_found(edge) and one(owner, "SELECT is_numbered FROM pat.token WHERE digest = %s",
                                                  bytes([255] * 32)), "the revocation's number")
    assert "revoked_at" in lines(edge, 1)[0]
    done = once("--source", database.url("edge"), "--store", store.folder)
    assert done.returncode == 1 and "without a number" in done.stderr
    assert list(store.tokens().values()) == ["revoked"]


def test_more_than_one_look_takes_is_numbered_at_once(database: Database, owner: Connection, store: Store) -> None:
    assert once("--source", database.url("edge"), "--store", store.folder).returncode == 0
    with triggers_off(owner):
        owner.execute("INSERT INTO pat.token (digest, id, subject) SELECT sha256(int8send(n)), n, 'x'"
                      " FROM generate_series(1, 600) AS n")
    database.install()
    done = once("--source", database.url("edge"), "--store", store.folder)
    assert done.returncode == 0, done.stderr
    assert len(store.tokens()) == 600


def test_a_look_that_comes_too_late_needs_no_clock(database: Database, owner: Connection, edge: Connection) -> None:
    with triggers_off(owner):
        insert(owner)
    with database.connect("edge", autocommit=False) as late:
        assert number_found(late) == number_found(edge) == [bytes(32)]
        with owner.transaction():
            owner.execute("LOCK TABLE pat.clock IN EXCLUSIVE MODE")
            late.execute("SET statement_timeout = '10s'")
            late.commit()


def test_edges_that_look_at_once_do_not_lock_each_other_out(database: Database, owner: Connection) -> None:
    with triggers_off(owner):
        owner.execute("INSERT INTO pat.token (digest, id, subject) SELECT sha256(int8send(n)), n, 'x'"
                      " FROM generate_series(1, 1500) AS n")

    def look() -> None:
        with database.connect("edge") as edge:
            while number_found(edge):
                pass

    with workers([look] * 4):
        pass
    assert one(owner, "SELECT array[count(DISTINCT seq), min(seq), max(seq)] FROM pat.token") == [1500, 1, 1500]


def test_on_a_session_that_may_not_write_it_only_tells(database: Database, owner: Connection) -> None:
    with triggers_off(owner):
        insert(owner)
    with database.connect("edge", options="-c default_transaction_read_only=on") as edge:
        assert number_found(edge) == number_found(edge) == [bytes(32)]


# --- the triggers themselves ---

TAMPERED = {
    "disabled": "ALTER TABLE pat.token DISABLE TRIGGER token_before",
    "plain": "ALTER TABLE pat.token ENABLE TRIGGER at_commit",
    "only for replicas": "ALTER TABLE pat.tombstone ENABLE REPLICA TRIGGER at_commit",
    "dropped": "DROP TRIGGER token_after ON pat.token",
    "truncatable": "ALTER TABLE pat.token DISABLE TRIGGER token_truncate",
    "another function": "DROP TRIGGER token_before ON pat.token; CREATE FUNCTION public.idle() RETURNS trigger LANGUAGE"
    " plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER token_before BEFORE INSERT OR UPDATE ON pat.token FOR EACH ROW"
    " EXECUTE FUNCTION public.idle(); ALTER TABLE pat.token ENABLE ALWAYS TRIGGER token_before",
    "another table": "DROP TRIGGER tombstone_truncate ON pat.tombstone; CREATE TRIGGER tombstone_truncate BEFORE TRUNCATE ON"
    " pat.clock EXECUTE FUNCTION pat.refuse_truncate()",
    "only sometimes": "DROP TRIGGER token_before ON pat.token; CREATE TRIGGER token_before BEFORE INSERT OR UPDATE ON"
    " pat.token FOR EACH ROW WHEN (NEW.name <> 'x') EXECUTE FUNCTION pat.before_token(); ALTER TABLE pat.token ENABLE"
    " ALWAYS TRIGGER token_before",
    "the probe": "ALTER TABLE pat.probe DISABLE TRIGGER ALL",
    "reports": "ALTER TABLE pat.use_report DISABLE TRIGGER ALL",
    "requests": "ALTER TABLE pat.request DISABLE TRIGGER ALL",
}


@pytest.mark.parametrize("tampering", TAMPERED.values(), ids=TAMPERED)
def test_a_trigger_that_is_not_as_it_must_be_is_told_and_repaired(
    database: Database, owner: Connection, edge: Connection, tampering: str
) -> None:
    assert source(edge).triggers is None
    owner.execute(tampering)
    assert source(edge).triggers
    edge.execute("SET quote_all_identifiers = on")
    assert source(edge).triggers
    database.install()
    assert source(edge).triggers is None


# --- an edge ---


def test_a_revocation_with_triggers_off_reaches_the_edge(database: Database, owner: Connection, store: Store) -> None:
    token_id, token = issue(owner)
    port = free_port()
    held = 'pat_sync_heartbeat_held{reason="triggers"}'
    with PatSync("--source", database.url("edge"), "--store", store.folder, *FAST, "--metrics-listen",
                 f"127.0.0.1:{port}") as sync:
        wait_until(lambda: store.verdict(token) == "ok", "the token")
        assert value(scrape(port), held) == 0
        with triggers_off(owner):
            owner.execute("UPDATE pat.token SET revoked_at = now()")
        wait_until(lambda: store.verdict(token) == "revoked", "the revocation")

        # The triggers are on, and not always.
        sync.wait_for_line("error: triggers of the source differ from install.sql.*at_commit on pat.token.*install.sql")
        assert value(scrape(port), held) == 1
        heartbeat = store.stats()["heartbeat"]
        other_id, _ = issue(owner)
        wait_until(lambda: store.tokens() == {token_id: "revoked", other_id: "ok"}, "changes that keep flowing")
        started = time.monotonic()
        wait_until(lambda: time.monotonic() > started + 2, "heartbeats that might come")
        assert store.stats()["heartbeat"] <= heartbeat + 1
        done = pat_sync("status", "--source", database.url("edge"), "--store", store.folder)
        assert done.returncode == 1 and "wrong: triggers of the source" in done.stdout
        assert once("--source", database.url("edge"), "--store", Store(store.folder.parent / "other").folder).returncode == 1

        database.install()
        wait_until(lambda: store.stats()["heartbeat"] > heartbeat + 1, "heartbeats")
        assert value(scrape(port), held) == 0
        assert pat_sync("status", "--source", database.url("edge"), "--store", store.folder).returncode == 0


def test_a_heartbeat_is_no_newer_than_the_last_look(database: Database, owner: Connection, store: Store) -> None:
    """Changes also arrive through NOTIFY, which does not report missing numbers."""
    token_id, _ = issue(owner)
    options = ("--source", database.url("edge"), "--store", store.folder)
    with PatSync(*options, "--poll-interval", "600", "--heartbeat-interval", "0.1"):
        wait_until(lambda: store.tokens() == {token_id: "ok"}, "the token")
        with triggers_off(owner):
            owner.execute("UPDATE pat.token SET revoked_at = now()")
        database.install()
        revoked_at = time.time()
        wait_until(lambda: time.time() > revoked_at + 1.5, "the next second")
        for count in (2, 3):
            issue(owner)
            wait_until(lambda: len(store.tokens()) == count, "a change by NOTIFY")
        assert store.tokens()[token_id] == "ok"
        assert store.stats()["heartbeat"] <= revoked_at


def test_the_supervisor_is_not_told_that_all_is_there(database: Database, owner: Connection, store: Store) -> None:
    address = store.folder.parent / "notify"
    told: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(address))
        listening.settimeout(DEADLINE)

        def receive(wanted: str) -> None:
            while wanted not in told:
                told.append(listening.recv(4096).decode())

        options = ("--source", database.url("edge"), "--store", store.folder)
        with PatSync(*options, *FAST, env={"NOTIFY_SOCKET": str(address)}):
            receive("STATUS=the store has everything")
            with triggers_off(owner):
                pass
            receive("STATUS=the store has everything that the source shows; see pat-sync status for its age")
            told.clear()
            database.install()
            receive("STATUS=the store has everything")


def test_a_comparison_finds_what_left_no_trace(database: Database, owner: Connection, store: Store) -> None:
    source_options = ("--source", database.url("edge"), "--store", store.folder)
    ids = [issue(owner)[0] for _ in range(5)]
    with PatSync(*source_options, *FAST):
        wait_until(lambda: len(store.tokens()) == 5, "the tokens")
        done = pat_sync("compare", *source_options)
        assert (done.returncode, done.stdout) == (0, "tokens compared: 5\nthe store equals the source\n")

        with triggers_off(owner):
            owner.execute("DELETE FROM pat.token WHERE id = %s", (ids[1],))
            # Put back as it once was, together with what the numbering had seen.
            owner.execute("CREATE TEMP TABLE saved AS SELECT * FROM pat.token WHERE id = %s", (ids[2],))
        database.install()
        owner.execute("SELECT pat.revoke(%s)", (ids[2],))
        issue(owner)
        with triggers_off(owner):
            owner.execute("UPDATE pat.token SET revoked_at = NULL, seq = saved.seq, numbered_hash = saved.numbered_hash"
                          " FROM saved WHERE token.id = saved.id")
        database.install()
        wait_until(lambda: len(store.tokens()) == 6, "the other token")
        assert not source(owner).unnumbered
        done = pat_sync("compare", *source_options)
        assert done.returncode == 1
        assert f"only in store: {ids[1]}\n" in done.stdout and f"different: {ids[2]}\n" in done.stdout
        assert "wrong: they differ: to repair all edges, run SELECT pat.new_epoch()" in done.stdout
        report = json.loads(pat_sync("compare", "--json", *source_options).stdout)
        assert (report["only_in_store"], report["only_in_source"], report["different"]) == ([ids[1]], [], [ids[2]])

        owner.execute("SELECT pat.new_epoch()")
        wait_until(lambda: pat_sync("compare", *source_options).returncode == 0, "a store that equals the source")
        # A revocation on this host is no difference.
        store.patctl("revoke", ids[3])
        assert pat_sync("compare", *source_options).returncode == 0


@pytest.mark.parametrize("is_followed_by_a_change", [True, False])
def test_a_truncation_with_triggers_off_is_followed_or_found(
    database: Database, owner: Connection, store: Store, is_followed_by_a_change: bool
) -> None:
    source_options = ("--source", database.url("edge"), "--store", store.folder)
    ids = [issue(owner)[0] for _ in range(4)]
    owner.execute("DELETE FROM pat.token WHERE id = %s", (ids.pop(),))
    assert once(*source_options).returncode == 0
    with triggers_off(owner):
        owner.execute("TRUNCATE pat.token, pat.tombstone" if is_followed_by_a_change else "TRUNCATE pat.token")
    database.install()
    if is_followed_by_a_change:
        # The change that the store has last is gone.
        new_id, _ = issue(owner)
        assert once(*source_options).returncode == 0
        assert store.tokens() == {new_id: "ok"}
    else:
        # It is there: only a comparison tells.
        done = pat_sync("compare", *source_options)
        assert done.returncode == 1
        assert all(f"only in store: {id}\n" in done.stdout for id in ids)


def test_only_a_database_is_compared(store: Store) -> None:
    done = pat_sync("compare", "--source", "file:///nowhere", "--store", store.folder)
    assert done.returncode == 2 and "only a source postgresql:// can be compared" in done.stderr


# --- what others make on the table ---

SWALLOWERS = {
    "rule": "CREATE RULE keep AS ON UPDATE TO pat.token DO INSTEAD NOTHING",
    "trigger": "CREATE FUNCTION pat.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
               " CREATE TRIGGER keep BEFORE UPDATE ON pat.token FOR EACH ROW EXECUTE FUNCTION pat.keep()",
}


@pytest.mark.parametrize("swallower", SWALLOWERS.values(), ids=SWALLOWERS)
@pytest.mark.parametrize("call", ["pat.revoke('t1')", "pat.revoke_subject('user:1')"])
def test_a_revocation_that_is_swallowed_is_an_error(owner: Connection, swallower: str, call: str) -> None:
    insert(owner, bytes(32), id="t1", subject="user:1")
    owner.execute(swallower)
    with pytest.raises(errors.TriggeredActionException, match="not revoked.*kept") as refused:
        owner.execute(f"SELECT {call}")
    assert "triggers and rules" in str(refused.value.diag.message_hint)


KEEPER = (
    "CREATE FUNCTION pat.keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.revoked_at := OLD.revoked_at;"
    " NEW.expires_at := OLD.expires_at; RETURN NEW; END';"
    " CREATE TRIGGER keep BEFORE UPDATE ON pat.token FOR EACH ROW EXECUTE FUNCTION pat.keep()"
)


def test_a_revocation_that_a_trigger_takes_back_is_an_error(owner: Connection) -> None:
    insert(owner, bytes(32), id="t1")
    owner.execute(KEEPER)
    with pytest.raises(errors.TriggeredActionException, match='"t1" is not revoked.*kept') as refused:
        owner.execute("SELECT pat.revoke('t1')")
    assert "triggers and rules" in str(refused.value.diag.message_hint)


@pytest.mark.parametrize("swallower", [*SWALLOWERS.values(), KEEPER], ids=[*SWALLOWERS, "trigger that keeps"])
@pytest.mark.parametrize("overlap", ["0", "24 hours"])
def test_a_rotation_that_is_swallowed_is_an_error(owner: Connection, swallower: str, overlap: str) -> None:
    insert(owner, bytes(32), id="t1")
    owner.execute(swallower)
    with pytest.raises(errors.TriggeredActionException, match='"t1" is not rotated.*kept') as refused:
        owner.execute("SELECT pat.rotate('t1', %s)", (overlap,))
    assert "triggers and rules" in str(refused.value.diag.message_hint)
    assert one(owner, "SELECT count(*) FROM pat.token") == 1


ARCHIVER = (
    "CREATE FUNCTION pat.archive() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
    " 'BEGIN DELETE FROM pat.token WHERE digest = NEW.digest; RETURN NULL; END';"
    " CREATE TRIGGER archive AFTER UPDATE ON pat.token FOR EACH ROW WHEN ({}) EXECUTE FUNCTION pat.archive()"
)


def test_a_row_that_a_trigger_removes_when_it_is_revoked_is_revoked(owner: Connection) -> None:
    insert(owner, bytes(32), id="t1")
    owner.execute(ARCHIVER.format("NEW.revoked_at IS NOT NULL"))
    assert one(owner, "SELECT pat.revoke('t1')") is True
    assert one(owner, "SELECT count(*) FROM pat.token") == 0


def test_a_row_that_a_trigger_removes_when_it_is_replaced_is_rotated(owner: Connection) -> None:
    insert(owner, bytes(32), id="t1")
    owner.execute(ARCHIVER.format("NEW.replaced_by IS NOT NULL"))
    assert one(owner, "SELECT id FROM pat.rotate('t1', '0')") == one(owner, "SELECT id FROM pat.token")


# --- a sequence that fell behind, and nothing else ---


def test_number_changes_mends_a_sequence_that_fell_behind(owner: Connection) -> None:
    for n in range(3):
        insert(owner, bytes([n] * 32))
    before = source(owner)
    owner.execute("SELECT setval('pat.seq', 1, false)")
    assert source(owner).unnumbered
    assert one(owner, "SELECT pat.number_changes()") == 0
    after = source(owner)
    assert not after.unnumbered and after.position == before.position and after.epoch != before.epoch
    assert one(owner, "SELECT pat.number_changes()") == 0 and source(owner) == after


def test_the_status_tells_of_a_sequence_that_stays_behind(database: Database, owner: Connection, store: Store) -> None:
    for n in range(3):
        insert(owner, bytes([n] * 32))
    options = ("--source", database.url("edge"), "--store", store.folder)
    assert once(*options).returncode == 0
    owner.execute("SELECT setval('pat.seq', 1, false)")
    owner.execute("ALTER ROLE edge SET default_transaction_read_only = on")
    try:
        done = pat_sync("status", *options)
        assert done.returncode == 1 and "pat.seq is behind" in done.stdout
    finally:
        owner.execute("ALTER ROLE edge RESET ALL")
    # It asks, too.
    done = pat_sync("status", *options)
    assert "pat.seq is behind" not in done.stdout
    assert not source(owner).unnumbered


# --- an older schema ---


def test_an_older_schema_is_brought_up_to_date(server: PostgreSQL, store: Store) -> None:
    """It has tokens that would be refused now, and one that was changed with triggers off."""
    old = (Path(__file__).parent / "schema_before_hashes.sql").read_text()
    with new_database(server, "pat_old", template=None) as database:
        database.psql(old)
        done = once("--source", database.url("edge"), "--store", store.folder)
        assert done.returncode == 1 and "older version: run install.sql" in done.stderr
        with database.connect() as owner, database.connect("edge") as edge:
            rows: list[dict[str, object]] = [
                {"subject": "victim "}, {"claims": '{"plan": " pro"}'}, {"scopes": ["a,b"]}, {"name": " n "},
                {"subject": "good"}, {"subject": " late"}]
            for n, columns in enumerate(rows):
                insert(owner, bytes([n] * 32), id=f"t{n}", **columns)
            owner.execute("DELETE FROM pat.token WHERE id = 't4'")
            owner.execute("ALTER TABLE pat.token DISABLE TRIGGER USER; UPDATE pat.token SET seq = NULL WHERE id = 't5'")
            warnings = server.install("pat_old")
            assert [seq for seq, _, _ in changes(edge)] == [1, 2, 3, 4, 7]
            assert source(edge).triggers is None
            assert [bytes([5] * 32)] == number_found(edge) and not source(edge).unnumbered
            for id in ("t0", "t1", "t5"):
                assert id in warnings
            assert "t2" not in warnings and "t3" not in warnings and "blank" in warnings

            # They can be revoked, deleted and numbered, and what else they have can be changed.
            for id in ("t0", "t1", "t2"):
                with pytest.raises(errors.CheckViolation, match=f'the token "{id}" cannot be rotated') as refused:
                    owner.execute("SELECT pat.rotate(%s)", (id,))
                assert "pat.issue" in str(refused.value.diag.message_hint)
            for id in ("t0", "t1", "t2", "t3"):
                assert one(owner, "SELECT pat.revoke(%s)", id) is True
            owner.execute("UPDATE pat.token SET expires_at = now() WHERE id = 't0'")
            assert one(owner, "SELECT pat.revoke_subject(' late')") == 1
            with triggers_off(owner):
                owner.execute("UPDATE pat.token SET expires_at = now()")
            assert len(number_found(edge)) == 5
            database.install()
            owner.execute("DELETE FROM pat.token WHERE id IN ('t0', 't1')")
            assert one(owner, "SELECT pat.purge(now())") == 3
            assert not source(edge).unnumbered
            with pytest.raises(errors.CheckViolation):
                issue(owner, "victim ")


def test_what_was_changed_with_triggers_off_before_an_update_reaches_the_edges(server: PostgreSQL, store: Store) -> None:
    """The row has a number, and nothing shows that it changed since the numbering."""
    old = (Path(__file__).parent / "schema_before_hashes.sql").read_text()
    with new_database(server, "pat_old_change", template=None) as database:
        database.psql(old)
        with database.connect() as owner:
            insert(owner, bytes([1] * 32), id="t1")
            insert(owner, bytes([2] * 32), id="t2")
            database.install()
            assert once("--source", database.url("edge"), "--store", store.folder).returncode == 0
            owner.execute(
                "ALTER TABLE pat.token DROP COLUMN is_numbered, DROP COLUMN numbered_hash, DROP COLUMN numbered_digest")
            owner.execute("ALTER TABLE pat.token DISABLE TRIGGER ALL; UPDATE pat.token SET revoked_at = now() WHERE id = 't1'")
            database.install()
            assert once("--source", database.url("edge"), "--store", store.folder).returncode == 0
            assert store.tokens() == {"t1": "revoked", "t2": "ok"}
