"""Policies: what the tokens of a class of subjects may be, whoever issues them; and which tokens end soon."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import psycopg
import pytest
from basics import wait_until
from postgresql import NOT_FOR_EVER, Connection, Database, issue, one
from psycopg import errors
from test_postgres import READ_COMMITTED, REPEATABLE_READ, SERIALIZABLE, insert, report, waiting, workers

WAYS = ("shop", "profile", "admin")


def in_days(days: float) -> datetime:
    return datetime.now(timezone.utc) + timedelta(days=days)


def set_policy(owner: Connection, name: str = "default", **limits: Any) -> None:
    named = "".join(f", {limit} => %({limit})s" for limit in limits)
    owner.execute(f"SELECT pat.set_policy(%(name)s{named})", {"name": name, **limits})


def issue_by(connection: Connection, /, subject: str = "alice", **options: Any) -> str:
    """The id of a token, issued by the function that the login has."""
    user = connection.info.user
    function = {"shop": "pat.issue(", "profile": "pat.issue_for(", "admin": "pat.issue_as('root', "}[user]
    named = "".join(f", {name} => %({name})s" for name in options)
    return str(connection.execute(f"SELECT id FROM {function}%(subject)s{named})", {"subject": subject, **options})
               .fetchall()[0][0])


@contextmanager
def refused(rule: str, words: str = "") -> Iterator[None]:
    with pytest.raises(errors.CheckViolation, match=words) as caught:
        yield
    assert caught.value.diag.constraint_name == rule
    assert caught.value.diag.message_hint


def policy_of(connection: Connection, subject: str = "alice") -> dict[str, Any]:
    cursor = connection.execute("SELECT * FROM pat.policy_of(%s)", (subject,))
    assert cursor.description is not None
    (row,) = cursor.fetchall()
    return dict(zip((column.name for column in cursor.description), row, strict=True))


def test_nothing_is_limited_until_an_operator_says_so(shop: Connection, profile: Connection) -> None:
    assert policy_of(profile) == {
        "class": "default", "longest_lifetime": None, "latest_expiry": None, "never_allowed": True, "most_tokens": None,
        "tokens": 0, "scopes": None, "cidrs": None}
    issue(shop, expires_at=None, scopes=["any"])
    issue(shop, expires_at=in_days(3000))
    assert policy_of(profile)["tokens"] == 2


@pytest.mark.parametrize("way", WAYS)
def test_each_rule_counts_for_each_way_to_issue(database: Database, owner: Connection, way: str) -> None:
    set_policy(owner, "free", longest_lifetime="30 days", most_tokens=2, scopes=["read", "write"],
               cidrs=["10.0.0.0/8", "2001:db8::/32"])
    owner.execute("SELECT pat.set_class('alice', 'free')")
    good: dict[str, Any] = {"expires_at": in_days(30), "scopes": ["read"], "cidrs": ["10.1.0.0/16"]}

    def but(**changes: Any) -> dict[str, Any]:
        return {**good, **changes}

    with database.connect(way) as connection:
        with refused("policy_lifetime", "longer than 30 days"):
            issue_by(connection, **but(expires_at=in_days(30.1)))
        with refused("policy_lifetime", "longer than 30 days"):
            issue_by(connection, scopes=["read"], cidrs=["10.1.0.0/16"])
        with refused("policy_lifetime", "demands that a token expires"):
            issue_by(connection, **but(expires_at=None))
        with refused("policy_scopes", '"free" does not allow the scope "admin"'):
            issue_by(connection, **but(scopes=["read", "admin"]))
        with refused("policy_cidrs", "for every address"):
            issue_by(connection, **but(cidrs=[]))
        with refused("policy_cidrs", "11.0.0.0/8"):
            issue_by(connection, **but(cidrs=["10.1.0.0/16", "11.0.0.0/8"]))
        assert one(owner, "SELECT count(*) FROM pat.token") == 0
        for _ in range(2):
            issue_by(connection, **good)
        with refused("policy_most_tokens", '"alice" may have at most 2 tokens, by the policy "free"'):
            issue_by(connection, **good)
        assert one(owner, "SELECT count(*) FROM pat.token") == 2
        # Others are in another class.
        issue_by(connection, "bob", expires_at=None)
        assert policy_of(connection)["tokens"] == policy_of(connection)["most_tokens"] == 2
        assert policy_of(connection)["never_allowed"] is False
        assert abs(policy_of(connection)["latest_expiry"] - in_days(30)) < timedelta(minutes=5)


def test_an_expiry_can_be_demanded_without_a_longest_lifetime(owner: Connection, shop: Connection) -> None:
    set_policy(owner, expiry_demanded=True)
    with refused("policy_lifetime", "demands"):
        issue(shop, expires_at=None)
    issue(shop, expires_at=in_days(3000))
    assert policy_of(shop)["never_allowed"] is False


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York"])
def test_a_day_of_25_hours_is_no_reason_to_refuse(owner: Connection, shop: Connection, zone: str) -> None:
    """What a caller calls 90 days, in any season; and a token that was issued so can be rotated."""
    set_policy(owner, longest_lifetime="365 days")
    shop.execute(f"SET timezone = '{zone}'")
    for days in range(1, 366, 7):
        set_policy(owner, longest_lifetime=f"{days} days")
        token_id = one(shop, "SELECT id FROM pat.issue('a', expires_at => now() + %s::interval)", f"{days} days")
        shop.execute("SELECT pat.rotate(%s)", (token_id,))
    set_policy(owner, longest_lifetime="24 minutes")
    one(shop, "SELECT id FROM pat.issue('a', expires_at => now() + interval '24 minutes 30 seconds')")
    with refused("policy_lifetime"):
        shop.execute("SELECT pat.issue('a', expires_at => now() + interval '26 minutes')")


@pytest.mark.parametrize(
    ("allowed", "cidrs", "good"),
    [
        (["10.0.0.0/8"], ["10.0.0.0/8", "10.2.3.4"], True),
        (["10.0.0.0/8"], ["10.0.0.0/7"], False),
        (["10.0.0.0/9", "10.128.0.0/9"], ["10.0.0.0/8"], False),
        (["0.0.0.0/0", "::/0"], [], True),
        (["0.0.0.0/0"], [], False),
        (["0.0.0.0/0"], ["::/0"], False),
        # What an edge takes for IPv4, because of the mapping, is IPv4 here, too.
        (["::/0"], ["::ffff:10.0.0.0/104"], False),
        (["10.0.0.0/8"], ["::ffff:10.1.0.0/112"], True),
        (["::ffff:10.0.0.0/104"], ["10.1.0.0/16"], True),
        (["::ffff:0:0/96"], ["10.1.0.0/16"], True),
        (["::ffff:0:0/96"], [], False),
    ],
)
def test_each_range_must_lie_within_one_that_is_allowed(
    owner: Connection, shop: Connection, allowed: list[str], cidrs: list[str], good: bool
) -> None:
    set_policy(owner, cidrs=allowed)
    if good:
        issue(shop, cidrs=cidrs)
    else:
        with refused("policy_cidrs"):
            issue(shop, cidrs=cidrs)


def test_scopes_can_be_none_at_all(owner: Connection, shop: Connection) -> None:
    set_policy(owner, scopes=[])
    issue(shop)
    with refused("policy_scopes", "does not allow the scope"):
        issue(shop, scopes=["read"])


def test_what_counts_is_what_can_be_used(owner: Connection, shop: Connection) -> None:
    set_policy(owner, most_tokens=2)
    revoked, _ = issue(shop)
    shop.execute("SELECT pat.revoke(%s)", (revoked,))
    insert(owner, expires_at="2020-01-01", id="expired")
    issue(shop, not_before=in_days(10))
    last, _ = issue(shop)
    with refused("policy_most_tokens"):
        issue(shop)

    # A rotation at the limit is possible: the old one does not count during the overlap.
    newer = one(shop, "SELECT id FROM pat.rotate(%s)", last)
    assert one(shop, "SELECT count(*) FROM pat.tokens WHERE status IN ('ok', 'not_yet_valid')") == 3
    assert policy_of(shop)["tokens"] == 2
    # But no chain of rotations gets more and more tokens.
    with refused("policy_most_tokens"):
        shop.execute("SELECT pat.rotate(%s)", (newer,))
    shop.execute("SELECT pat.revoke(%s)", (newer,))
    assert policy_of(shop)["tokens"] == 2, "the old one counts, as its replacement has ended"
    with refused("policy_most_tokens"):
        issue(shop)
    shop.execute("SELECT pat.revoke(%s)", (last,))
    issue(shop)


def test_tokens_stay_when_a_policy_becomes_stricter(owner: Connection, shop: Connection) -> None:
    ids = {issue(shop, expires_at=None, scopes=["admin"])[0] for _ in range(3)}
    short, _ = issue(shop, expires_at=in_days(1))
    set_policy(owner, longest_lifetime="30 days", most_tokens=1, scopes=["admin"])
    assert one(shop, "SELECT array_agg(DISTINCT status) FROM pat.tokens") == ["ok"]
    with refused("policy_most_tokens"):
        shop.execute("SELECT pat.rotate(%s)", (short,))
    assert one(shop, "SELECT count(*) FROM pat.tokens WHERE replaced_by IS NOT NULL") == 0

    set_policy(owner, longest_lifetime="30 days", scopes=["admin"])
    forever = ids.pop()
    with refused("policy_lifetime", f'"{forever}" cannot be rotated') as _:
        shop.execute("SELECT pat.rotate(%s)", (forever,))
    new = one(shop, "SELECT id FROM pat.rotate(%s, lifetime => '30 days')", forever)
    assert abs(one(shop, "SELECT expires_at FROM pat.tokens WHERE id = %s", new) - in_days(30)) < timedelta(minutes=5)
    set_policy(owner, scopes=["read"])
    with refused("policy_scopes", "cannot be rotated"):
        shop.execute("SELECT pat.rotate(%s)", (new,))
    with pytest.raises(errors.InvalidParameterValue, match="already be expired"):
        shop.execute("SELECT pat.rotate(%s, lifetime => '0')", (short,))


@pytest.mark.parametrize("how", ["issue", "rotate"])
def test_two_at_once_are_not_both_the_last(database: Database, owner: Connection, how: str) -> None:
    set_policy(owner, most_tokens=2 if how == "rotate" else 1)
    if how == "rotate":
        # Two replacements, and each old one in its overlap: what a second rotation would leave counts again.
        old, _ = issue(owner, id="old")
        owner.execute("SELECT pat.rotate('old', new_id => 'b')")
        statements = ("SELECT pat.issue('alice')", "SELECT pat.rotate('b')")
    else:
        statements = ("SELECT pat.issue('alice')", "SELECT pat.issue('alice')")

    def late() -> None:
        with database.connect("shop", options=NOT_FOR_EVER) as connection, refused("policy_most_tokens"):
            connection.execute(statements[1])

    with database.connect("shop", autocommit=False) as first:
        first.execute(statements[0])
        with workers([late]):
            wait_until(lambda: waiting(owner), "the second waits")
            first.commit()


def test_the_limit_holds_among_many(database: Database, owner: Connection) -> None:
    set_policy(owner, most_tokens=10)

    def work(number: int) -> None:
        with database.connect("shop", options=NOT_FOR_EVER) as connection:
            for _ in range(20):
                try:
                    token_id, _ = issue(connection)
                    if number % 2:
                        connection.execute("SELECT pat.rotate(%s, '0')", (token_id,))
                except (errors.CheckViolation, errors.ObjectNotInPrerequisiteState):
                    pass
                if number == 3:
                    connection.execute("SELECT pat.revoke_subject('alice')")

    with workers([partial(work, number) for number in range(4)]):
        pass
    for _ in range(10):
        try:
            issue(owner)
        except errors.CheckViolation:
            break
    assert one(owner, "SELECT count(*) FROM pat.tokens WHERE status = 'ok'") == 10


@pytest.mark.parametrize("level", [REPEATABLE_READ, SERIALIZABLE])
def test_a_snapshot_that_could_miss_a_token_is_refused_only_where_tokens_are_counted(
    database: Database, owner: Connection, level: psycopg.IsolationLevel
) -> None:
    set_policy(owner, longest_lifetime="100 days")
    with database.connect("shop", autocommit=False) as connection:
        connection.isolation_level = level
        token_id, _ = issue(connection)
        connection.execute("SELECT pat.rotate(%s)", (token_id,))
        connection.commit()
        set_policy(owner, most_tokens=100)
        with pytest.raises(errors.FeatureNotSupported, match="limits the number of tokens"):
            issue(connection)
        connection.rollback()
        connection.isolation_level = READ_COMMITTED
        issue(connection)


def test_subjects_are_limited_one_by_one(database: Database, owner: Connection, shop: Connection) -> None:
    """Nobody waits for another subject, unless they share one of 256 locks."""
    set_policy(owner, most_tokens=1)
    with database.connect("shop", autocommit=False) as slow:
        issue(slow, "alice")
        shop.execute("SET lock_timeout = '2s'")
        free = 0
        for number in range(8):
            try:
                issue(shop, f"user:{number}")
                free += 1
            except errors.LockNotAvailable:
                pass
        assert free >= 6


def test_an_operator_sets_policies_and_classes(owner: Connection) -> None:
    odd: list[tuple[dict[str, Any], str]] = [
        ({"longest_lifetime": "3 months"}, "in days or hours"), ({"longest_lifetime": "0"}, "lifetime"),
        ({"most_tokens": -1}, "most_tokens"), ({"cidrs": []}, "cidrs"), ({"scopes": [None]}, "scopes"),
        ({"name": "a b"}, "policy_class")]
    for bad, words in odd:
        with pytest.raises(errors.CheckViolation, match=words):
            set_policy(owner, **bad)
    with pytest.raises(errors.NoDataFound, match='no policy "pro"'):
        owner.execute("SELECT pat.set_class('alice', 'pro')")
    set_policy(owner, "pro", most_tokens=5, scopes=["read"])
    set_policy(owner, "pro", most_tokens=6)
    owner.execute("SELECT pat.set_class('alice', 'pro'), pat.set_class('alice', 'pro')")
    assert (policy_of(owner)["class"], policy_of(owner)["most_tokens"], policy_of(owner)["scopes"]) == ("pro", 6, None)
    with pytest.raises(errors.ForeignKeyViolation, match='there are subjects in the class "pro"'):
        owner.execute("SELECT pat.drop_policy('pro')")
    owner.execute("SELECT pat.set_class('alice')")
    assert policy_of(owner)["class"] == "default"
    owner.execute("SELECT pat.drop_policy('pro')")
    with pytest.raises(errors.NoDataFound):
        owner.execute("SELECT pat.drop_policy('pro')")
    with pytest.raises(errors.InvalidParameterValue, match="cannot be dropped"):
        owner.execute("SELECT pat.drop_policy('default')")


def test_nobody_but_operators_sets_policies(database: Database) -> None:
    for login in ("shop", "profile", "admin", "auditor", "edge"):
        with database.connect(login) as connection:
            for query in ("SELECT pat.set_policy('default')", "SELECT pat.set_class('alice')",
                          "SELECT pat.drop_policy('x')", "SELECT * FROM pat.policy", "DELETE FROM pat.subject_class",
                          "SELECT pat.create_token('a', '', '{}', NULL, '{}', NULL, '{}', 'a', NULL, NULL, NULL)"):
                with pytest.raises(errors.InsufficientPrivilege):
                    connection.execute(query)


# Tokens that end soon


def expiring(connection: Connection, within: str = "7 days", since: datetime | None = None) -> list[str]:
    return [row[0] for row in connection.execute("SELECT id FROM pat.expiring(%s, %s)", (within, since))]


def test_tokens_that_end_soon(owner: Connection, shop: Connection, edge: Connection) -> None:
    soon, _ = issue(shop, expires_at=in_days(6), name="CI")
    for ends in (in_days(8), None):
        issue(shop, expires_at=ends)
    revoked, rotated = (issue(shop, expires_at=in_days(6))[0] for _ in range(2))
    shop.execute("SELECT pat.revoke(%s)", (revoked,))
    newer = one(shop, "SELECT id FROM pat.rotate(%s, lifetime => '30 days')", rotated)
    insert(owner, expires_at="2020-01-01")
    report(edge, 1, {"id": soon, "at": 5})
    ((subject, token_id, name, expires_at, last_used_at, _),) = shop.execute("SELECT * FROM pat.expiring('7 days')")
    assert (subject, token_id, name) == ("alice", soon, "CI")
    assert abs(expires_at - in_days(6)) < timedelta(minutes=5) and last_used_at.timestamp() == 5
    assert newer in expiring(shop, "31 days") and rotated not in expiring(shop, "31 days")
    for bad in ("0", "-1 day"):
        with pytest.raises(errors.InvalidParameterValue, match="within"):
            expiring(shop, bad)


def test_each_token_that_ends_soon_is_told_once(owner: Connection, shop: Connection) -> None:
    """By runs whose times are known: the rows are moved instead of the clock."""
    before = one(shop, "SELECT now()")
    insert(owner, bytes([1] * 32), id="was.in", expires_at=in_days(5), issued_at=in_days(-30))
    insert(owner, bytes([2] * 32), id="comes.in", expires_at=before + timedelta(days=7, milliseconds=1),
           issued_at=in_days(-30))
    insert(owner, bytes([3] * 32), id="later", expires_at=in_days(7.5), issued_at=in_days(-30))
    issue(shop, id="born.in", expires_at=in_days(2))
    wait_until(lambda: "comes.in" in expiring(shop, "7 days"), "the end comes closer")
    run = one(shop, "SELECT now()")
    assert expiring(shop, "7 days", before) == ["born.in", "comes.in"]
    assert expiring(shop, "7 days", before - timedelta(days=3)) == ["born.in", "was.in", "comes.in"]
    assert expiring(shop, "7 days", run) == []
