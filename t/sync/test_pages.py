"""The functions for pages: what a user's own page may do, and what an administrator's may."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from postgresql import Connection, Database, issue, one
from psycopg import errors
from psycopg.types.json import Jsonb
from test_postgres import PEPPER, digest_of, insert, pairs, report


def rows(connection: Connection, query: str, *arguments: Any) -> list[dict[str, Any]]:
    cursor = connection.execute(query, arguments)
    assert cursor.description is not None
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def walk(connection: Connection, call: str, *arguments: Any) -> list[str]:
    """The ids of all pages; the call ends with "limit => …", and takes one more argument."""
    ids: list[str] = []
    after = None
    while page := rows(connection, f"SELECT id, page FROM pat.{call}, after => %s)", *arguments, after):
        ids += [row["id"] for row in page]
        after = page[-1]["page"]
    return ids


def statuses(connection: Connection) -> dict[str, str]:
    return pairs(connection, "SELECT id, status FROM pat.tokens")


# A user


def test_a_user_makes_rotates_and_revokes_tokens(owner: Connection, profile: Connection) -> None:
    ends = datetime.now(timezone.utc) + timedelta(days=10)
    (made,) = rows(profile, "SELECT * FROM pat.issue_for('alice', 'CI', '{read}', %s, '{10.0.0.0/8}')", ends)
    assert set(made) == {"id", "token"} and made["token"].startswith("ropat_")
    (listed,) = rows(profile, "SELECT * FROM pat.tokens_of('alice')")
    assert (listed["id"], listed["name"], listed["scopes"], listed["expires_at"]) == (made["id"], "CI", ["read"], ends)
    assert "digest" not in listed and "claims" not in listed
    (next_one,) = rows(profile, "SELECT * FROM pat.rotate_for('alice', %s, overlap => '1 hour', lifetime => '2 days')",
                       made["id"])
    lives = pairs(owner, "SELECT id, expires_at - issued_at FROM pat.tokens")
    assert lives[next_one["id"]] == timedelta(days=2) and lives[made["id"]] < timedelta(hours=2)
    assert one(profile, "SELECT pat.revoke_for('alice', %s)", made["id"]) is True
    assert one(profile, "SELECT pat.revoke_for('alice', %s)", made["id"]) is False
    (pasted,) = rows(profile, "SELECT * FROM pat.revoke_digest_for('alice', %s)", digest_of(next_one["token"]))
    assert pasted == {"id": next_one["id"], "is_new": True}
    (again,) = rows(profile, "SELECT * FROM pat.revoke_digest_for('alice', %s)", digest_of(next_one["token"]))
    assert again == {"id": next_one["id"], "is_new": False}
    rows(profile, "SELECT pat.issue_for('alice')")
    assert one(profile, "SELECT pat.revoke_all_for('alice')") == 1
    assert set(statuses(owner).values()) == {"revoked"}


def test_a_page_passes_the_pepper(owner: Connection, profile: Connection) -> None:
    owner.execute("SELECT pat.use_pepper(%s)", (PEPPER,))
    with pytest.raises(errors.InvalidParameterValue, match="require a pepper"):
        profile.execute("SELECT pat.issue_for('alice')")
    token_id = one(profile, "SELECT id FROM pat.issue_for('alice', pepper => %s)", PEPPER)
    profile.execute("SELECT pat.rotate_for('alice', %s, pepper => %s)", (token_id, PEPPER))
    assert len(statuses(owner)) == 2


@pytest.mark.parametrize(
    "call", ["rotate_for(%(subject)s, %(id)s)", "revoke_for(%(subject)s, %(id)s)",
             "revoke_digest_for(%(subject)s, %(digest)s)"])
@pytest.mark.parametrize("subject", ["alice", "", None, "bob ", "BOB"])
def test_the_tokens_of_others_are_like_those_that_do_not_exist(
    owner: Connection, profile: Connection, call: str, subject: str | None
) -> None:
    issue(owner, "alice", id="mine")
    _, token = issue(owner, "bob", id="x")
    before = owner.execute("SELECT * FROM pat.token ORDER BY id").fetchall()

    def error(digest: bytes) -> tuple[Any, ...]:
        with pytest.raises(errors.NoDataFound) as caught:
            profile.execute(f"SELECT pat.{call}", {"subject": subject, "id": "x", "digest": digest})
        diag = caught.value.diag
        return diag.message_primary, diag.message_detail, diag.message_hint, diag.sqlstate

    of_another = error(digest_of(token))
    assert owner.execute("SELECT * FROM pat.token ORDER BY id").fetchall() == before
    owner.execute("DELETE FROM pat.token WHERE id = 'x'")
    assert error(digest_of(token)) == of_another == error(b"short")


def test_revoking_all_of_nobody_revokes_nothing(owner: Connection, profile: Connection) -> None:
    issue(owner, "bob")
    assert one(profile, "SELECT pat.revoke_all_for('alice')") == 0
    for nobody in (None, ""):
        with pytest.raises(errors.InvalidParameterValue):
            profile.execute("SELECT pat.revoke_all_for(%s)", (nobody,))
        assert rows(profile, "SELECT * FROM pat.tokens_of(%s)", nobody) == []
        with pytest.raises(errors.InvalidParameterValue):
            profile.execute("SELECT pat.issue_for(%s)", (nobody,))
    assert set(statuses(owner).values()) == {"ok"}


def test_a_users_page_has_no_way_to_the_tokens_of_all(profile: Connection) -> None:
    for query in ("SELECT * FROM pat.tokens", "SELECT * FROM pat.token", "SELECT * FROM pat.audit_log",
                  "SELECT * FROM pat.audit", "SELECT * FROM pat.policy", "SELECT * FROM pat.find_tokens()",
                  "SELECT pat.issue('a')", "SELECT pat.rotate('a')", "SELECT pat.revoke('a')",
                  "SELECT pat.revoke_subject('a')", "SELECT pat.revoke_as('a', 'b')", "SELECT pat.purge(now())",
                  "SELECT pat.list_tokens(NULL, NULL, NULL, 'name', 1, NULL)", "SELECT pat.expiring('1 day')",
                  "SELECT pat.audit_lines()", "SELECT pat.snapshot()", "SELECT pat.id_of('', NULL)",
                  "SELECT pat.act_as('a', NULL)", "SELECT pat.write_audit('a', 'b', 'c', '{}')"):
        with pytest.raises(errors.InsufficientPrivilege):
            profile.execute(query)


def test_a_user_cannot_choose_claims_digests_and_ids(profile: Connection) -> None:
    for argument in ("claims => '{\"plan\": \"pro\"}'", "digest => '\\x00'", "id => 'mine'", "actor => 'root'"):
        with pytest.raises(errors.UndefinedFunction):
            profile.execute(f"SELECT pat.issue_for('alice', {argument})")


# Lists


@pytest.fixture
def tokens(owner: Connection, edge: Connection) -> dict[str, dict[str, Any]]:
    """Of alice and bob, with all that they can be sorted by, equal and missing values included."""
    for number in range(40):
        subject = "alice" if number % 4 else "bob/x"
        expires = None if number % 5 == 0 else f"{2020 + number % 3 * 20}-01-01"
        insert(owner, hashlib.sha256(bytes([number])).digest(), id=f"t{number:02}", subject=subject,
               name=["", "B", "b", "ä/", "c%_"][number % 5], issued_at=f"2019-01-01 00:00:00.00000{number % 7}+00",
               expires_at=expires, not_before="2059-01-01" if number % 6 == 5 and expires is None else None,
               revoked_at="2019-02-01" if number % 9 == 0 else None)
        if number % 3:
            report(edge, number, {"id": f"t{number:02}", "at": 1600000000 + number % 8})
    return {row["id"]: row for row in rows(owner, "SELECT * FROM pat.tokens")}


ORDER = ["ok", "not_yet_valid", "expired", "revoked"]
LAST = datetime.max.replace(tzinfo=timezone.utc)
FIRST = datetime.min.replace(tzinfo=timezone.utc)
KEYS: dict[str, Any] = {
    "created": lambda row: row["issued_at"], "expires": lambda row: row["expires_at"] or LAST,
    "name": lambda row: row["name"].lower().encode(), "status": lambda row: ORDER.index(row["status"]),
    "subject": lambda row: row["subject"], "used": lambda row: row["last_used_at"] or FIRST}


@pytest.mark.parametrize("sort", [*KEYS, *(f"-{name}" for name in KEYS)])
def test_lists_come_sorted_in_pages(
    tokens: dict[str, dict[str, Any]], profile: Connection, admin: Connection, sort: str
) -> None:
    def wanted(subject: str | None) -> list[str]:
        found = [row for row in tokens.values() if subject in (None, row["subject"])]
        found.sort(key=lambda row: (KEYS[sort.strip("-")](row), row["id"]), reverse=sort.startswith("-"))
        return [row["id"] for row in found]

    for limit in (3, 1000):
        for subject in ("alice", "bob/x"):
            assert walk(profile, 'tokens_of(%s, sort => %s, "limit" => %s', subject, sort, limit) == wanted(subject)
            found = walk(admin, 'find_tokens(of_subject => %s, sort => %s, "limit" => %s', subject, sort, limit)
            assert found == wanted(subject)
        assert walk(admin, 'find_tokens(sort => %s, "limit" => %s', sort, limit) == wanted(None)


def test_lists_can_be_searched_and_filtered(
    tokens: dict[str, dict[str, Any]], profile: Connection, admin: Connection
) -> None:
    def found(connection: Connection, call: str, *arguments: Any) -> set[str]:
        return {row["id"] for row in rows(connection, f"SELECT id FROM pat.{call}", *arguments)}

    mine = {token_id: row for token_id, row in tokens.items() if row["subject"] == "alice"}
    assert found(profile, "tokens_of('alice', 'b')") == {i for i, row in mine.items() if row["name"] in ("B", "b")}
    assert found(profile, "tokens_of('alice', 'Ä/')") == {i for i, row in mine.items() if row["name"] == "ä/"}
    assert found(profile, "tokens_of('alice', '%%')") == {i for i, row in mine.items() if "%" in row["name"]}
    assert found(profile, "tokens_of('alice', 'T1')") == {i for i in mine if i.startswith("t1")}
    assert found(profile, "tokens_of('alice', 'alice')") == set()
    assert found(profile, "tokens_of('alice', '')") == found(profile, "tokens_of('alice')") == set(mine)
    assert found(admin, "find_tokens('BOB/')") == set(tokens) - set(mine)
    assert found(admin, "find_tokens('b', of_subject => 'bob/x')") == {
        i for i, row in tokens.items() if row["subject"] == "bob/x" and row["name"] in ("B", "b")}
    assert {row["status"] for row in tokens.values()} == set(ORDER)
    for status in ORDER:
        wanted = {i for i, row in tokens.items() if row["status"] == status}
        assert found(admin, "find_tokens(with_status => %s)", status) == wanted
        assert found(profile, "tokens_of('alice', with_status => %s)", status) == wanted & set(mine)


def test_a_list_that_changes_between_pages_repeats_and_skips_nothing_else(
    owner: Connection, tokens: dict[str, dict[str, Any]], profile: Connection
) -> None:
    """The page after a token that is gone begins where it was."""
    whole = walk(profile, "tokens_of('alice', sort => 'name', \"limit\" => 1000")
    page = rows(profile, "SELECT id, page FROM pat.tokens_of('alice', sort => 'name', \"limit\" => 5)")
    owner.execute("DELETE FROM pat.token WHERE id = ANY (%s)", ([whole[4], whole[7]],))
    rest = rows(profile, "SELECT id FROM pat.tokens_of('alice', sort => 'name', after => %s)", page[-1]["page"])
    assert [row["id"] for row in rest] == [*whole[5:7], *whole[8:]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [("sort => 'digest'", "cannot be sorted"), ("sort => 'name; DROP TABLE x'", "cannot be sorted"),
     ("sort => NULL", "cannot be sorted"), ("with_status => 'good'", "no status"), ('"limit" => 0', "from 1 to 1000"),
     ('"limit" => 1001', "from 1 to 1000"), ('"limit" => NULL', "from 1 to 1000"), ("after => 'x'", "column page")])
def test_odd_arguments_of_lists_are_refused(
    profile: Connection, admin: Connection, arguments: str, words: str
) -> None:
    for connection, call in ((profile, "tokens_of('alice', "), (admin, "find_tokens(")):
        with pytest.raises(errors.InvalidParameterValue, match=words) as caught:
            connection.execute(f"SELECT pat.{call}{arguments})")
        assert caught.value.diag.message_hint


def test_what_stands_in_arguments_is_no_sql(owner: Connection, profile: Connection) -> None:
    issue(owner, "bob")
    for text in ("' OR true --", "%' OR '1'='1", "\\", "$1", "alice'; DELETE FROM pat.token; --"):
        for call in ("tokens_of(%s)", "tokens_of('alice', %s)", "tokens_of('alice', after => %s || '/')"):
            assert rows(profile, f"SELECT * FROM pat.{call.replace('%s', '%s::text')}", text) == []
    assert len(statuses(owner)) == 1


# The token itself


def test_a_token_is_described_to_whoever_has_it(owner: Connection, profile: Connection, edge: Connection) -> None:
    token_id, token = issue(owner, name="CI", scopes=["read"], claims=Jsonb({"plan": "pro"}))
    report(edge, 1, {"id": token_id, "at": 5})
    (found,) = rows(profile, "SELECT * FROM pat.describe(%s)", digest_of(token))
    assert (found["id"], found["subject"], found["name"], found["scopes"]) == (token_id, "alice", "CI", ["read"])
    assert found["status"] == "ok" and found["last_used_at"].timestamp() == 5 and "digest" not in found
    owner.execute("SELECT pat.revoke(%s)", (token_id,))
    assert rows(profile, "SELECT status FROM pat.describe(%s)", digest_of(token)) == [{"status": "revoked"}]
    for unknown in (bytes(32), b"", None):
        assert rows(profile, "SELECT * FROM pat.describe(%s)", unknown) == []


# Administrators


def test_an_administrator_acts_for_all(owner: Connection, admin: Connection) -> None:
    (made,) = rows(admin, "SELECT * FROM pat.issue_as('root', 'alice', claims => '{\"plan\": \"pro\"}')")
    (next_one,) = rows(admin, "SELECT * FROM pat.rotate_as('root', %s, '0')", made["id"])
    assert one(admin, "SELECT pat.revoke_as('root', %s)", made["id"]) is True
    assert rows(admin, "SELECT * FROM pat.revoke_digest_as('root', %s)", digest_of(next_one["token"])) == [
        {"id": next_one["id"], "is_new": True}]
    issue(owner, "bob")
    assert one(admin, "SELECT pat.revoke_all_as('root', 'bob')") == 1
    assert set(statuses(owner).values()) == {"revoked"}
    assert pairs(admin, "SELECT id, claims FROM pat.find_tokens('alice')") == {
        made["id"]: {"plan": "pro"}, next_one["id"]: {"plan": "pro"}}
    for call in ("rotate_as('root', 'x')", "revoke_as('root', 'x')", "revoke_digest_as('root', '\\x00')"):
        with pytest.raises(errors.NoDataFound):
            admin.execute(f"SELECT pat.{call}")


def test_an_administrator_says_who_acts(owner: Connection, admin: Connection) -> None:
    _, token = issue(owner, id="x")
    for actor in (None, "", "a\nb", "a" * 256):
        for call in ("issue_as(%s, 'a')", "rotate_as(%s, 'x')", "revoke_as(%s, 'x')", "revoke_all_as(%s, 'alice')"):
            with pytest.raises(errors.InvalidParameterValue, match="an actor must have"):
                admin.execute(f"SELECT pat.{call}", (actor,))
        with pytest.raises(errors.InvalidParameterValue, match="an actor must have"):
            admin.execute("SELECT pat.revoke_digest_as(%s, %s)", (actor, digest_of(token)))
    assert statuses(owner) == {"x": "ok"}


def test_an_administrator_has_functions_alone(database: Database, admin: Connection) -> None:
    for query in ("SELECT * FROM pat.tokens", "SELECT * FROM pat.token", "SELECT * FROM pat.audit",
                  "SELECT pat.issue('a')", "SELECT pat.revoke('a')", "SELECT pat.issue_for('a')",
                  "SELECT pat.purge(now())", "SELECT pat.purge_audit(now())", "SELECT pat.new_epoch()",
                  "SELECT pat.describe('')",
                  "DELETE FROM pat.audit_log", "INSERT INTO pat.audit_log (event) VALUES ('x')"):
        with pytest.raises(errors.InsufficientPrivilege):
            admin.execute(query)
    with database.connect("auditor") as auditor:
        for query in ("SELECT * FROM pat.tokens", "SELECT pat.revoke_as('a', 'b')", "SELECT * FROM pat.audit",
                      "SELECT * FROM pat.find_tokens()", "SELECT pat.purge_audit(now())"):
            with pytest.raises(errors.InsufficientPrivilege):
                auditor.execute(query)


def test_a_page_of_all_tokens_by_subject_reads_little_more_than_it_shows(owner: Connection) -> None:
    owner.execute("ALTER TABLE pat.token DISABLE TRIGGER USER")
    owner.execute("INSERT INTO pat.token (digest, id, subject) SELECT sha256(int8send(n)), n, 'user:' || n / 5"
                  " FROM generate_series(1, 20000) AS n")
    owner.execute("VACUUM ANALYZE pat.token")
    with owner.transaction():
        after = None
        for _ in range(2):
            page = rows(owner, 'SELECT page FROM pat.find_tokens("limit" => 20, after => %s)', after)
            after = page[-1]["page"]
        read = one(owner, "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'token'")
        assert len(page) == 20 and read < 500
