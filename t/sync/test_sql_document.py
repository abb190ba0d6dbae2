"""docs/sql.md: the signatures are those of the functions, and the statements can be run."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from basics import ROOT
from postgresql import LOGINS, POSTGRESQL_BIN, Connection, Database, issue, one
from sidecar import once
from store import Store

DOCUMENT = (ROOT / "docs" / "sql.md").read_text()

# The names, the types and the number of defaults of arguments; the names and types of results, or one type.
Signature = tuple[list[tuple[str, str]], int, list[tuple[str, str]] | str]


def split(arguments: str) -> list[str]:
    """At the commas outside of parentheses."""
    return [part.strip() for part in re.split(r",(?![^()]*\))", arguments) if part.strip()]


def type_of(connection: Connection, name: str) -> str:
    return str(one(connection, "SELECT %s::regtype::text", name.strip()))


def typed(connection: Connection, arguments: str) -> list[tuple[str, str]]:
    pairs = (part.partition(" DEFAULT ")[0].partition(" ") for part in split(arguments))
    return [(name.strip('"'), type_of(connection, type)) for name, _, type in pairs]


def documented(connection: Connection) -> dict[str, Signature]:
    blocks = "".join(re.findall(r"^    .*\n|^\n", DOCUMENT, re.M))
    found = re.findall(
        r"pat\.(\w+)\(((?:[^()]|\(\))*)\)\s+RETURNS\s+(?:(?:TABLE )?\(([^)]*)\)|([\w\[\]]+))", blocks)
    return {
        name: (typed(connection, arguments), arguments.count(" DEFAULT "),
               typed(connection, table) if table else type_of(connection, single))
        for name, arguments, table, single in found
    }


def existing(connection: Connection) -> dict[str, Signature]:
    """Those that a role may execute, and those that the document has for operators."""
    rows: list[Any] = connection.execute(
        "SELECT proname, pronargdefaults, coalesce(proargnames, '{}'), coalesce(proargmodes::text[], '{}'),"
        " (SELECT coalesce(array_agg(type::regtype::text ORDER BY place), '{}')"
        "  FROM unnest(coalesce(proallargtypes, proargtypes::oid[])) WITH ORDINALITY AS argument (type, place)),"
        " prorettype::regtype::text FROM pg_proc WHERE pronamespace = 'pat'::regnamespace AND prokind = 'f'"
        " AND (proname = ANY (%s) OR EXISTS (SELECT FROM unnest(%s::name[]) AS role"
        "                                    WHERE has_function_privilege(role, oid, 'EXECUTE')))",
        (["new_epoch", "number_changes", "use_pepper", "set_policy", "set_class", "drop_policy", "purge_audit"],
         [role for role in LOGINS.values() if role])).fetchall()
    signatures: dict[str, Signature] = {}
    for name, defaults, names, modes, types, result in rows:
        arguments = list(zip(names, types, modes or ["i"] * len(types)))
        results = [(name, type) for name, type, mode in arguments if mode in "obt"]
        signatures[name] = ([(name, type) for name, type, mode in arguments if mode in "ib"], defaults, results or result)
    return signatures


def test_the_signatures_are_those_of_the_functions(owner: Connection) -> None:
    assert documented(owner) == existing(owner)


def statements(heading: str) -> Iterator[str]:
    section = re.split(r"^#+ .*\n", DOCUMENT.partition(f"\n{heading}\n")[2], maxsplit=1, flags=re.M)[0]
    for block in re.findall(r"^```sql\n(.*?)^```", section, re.M | re.S):
        for statement in block.split(";\n"):
            if statement.strip():
                yield statement


PAGE = list(statements("### A profile page"))


@pytest.mark.parametrize("number", range(len(PAGE)))
def test_a_platform_may_run_the_statements(shop: Connection, number: int) -> None:
    shop.execute(f"PREPARE documented AS {PAGE[number]}")


def test_a_page_shows_and_changes_the_tokens_of_its_user(shop: Connection) -> None:
    mine, _ = issue(shop, "alice")
    issue(shop, "bob")
    names = ("list", "create", "rotate", "revoke", "everywhere", "ending")
    for name, statement in zip(names, PAGE, strict=True):
        shop.execute(f'PREPARE "{name}" AS {statement}')
    assert [row[0] for row in shop.execute("EXECUTE list ('alice')")] == [mine]
    assert shop.execute("EXECUTE revoke ('bob', %s)" % f"'{mine}'").fetchall() == []
    assert shop.execute("EXECUTE rotate ('bob', %s)" % f"'{mine}'").fetchall() == []
    assert shop.execute("EXECUTE revoke ('alice', %s)" % f"'{mine}'").fetchall() == [(True,)]
    made = shop.execute("EXECUTE \"create\" ('alice', 'x', '{api:read}', now() + interval '1 day')").fetchone()
    assert made is not None and made[1].startswith("ropat_")
    assert [row[1] for row in shop.execute("EXECUTE ending")] == [made[0]]
    assert one(shop, "EXECUTE everywhere ('alice')") == 1


def test_the_roles_are_granted(database: Database) -> None:
    database.psql("CREATE ROLE dba; " + ";".join(statements("## Roles")).replace("edge_fra1", "edge") + "; DROP ROLE dba")


def test_the_job_purges(database: Database, owner: Connection) -> None:
    """In portions, until nothing is left; and it ends if the database is gone."""
    owner.execute("INSERT INTO pat.token (digest, id, subject, revoked_at) SELECT sha256(int8send(n)), n, 'a',"
                  " now() - interval '91 days' FROM generate_series(1, 1100) AS n")
    found = re.search(r"^    17 3 \* \* \*  (.*)$", DOCUMENT, re.M)
    assert found is not None
    server = database.server
    environment = {"PATH": f"{POSTGRESQL_BIN}:/usr/bin:/bin", "PGHOST": str(server.folder), "PGPORT": str(server.port),
                   "PGUSER": "shop"}
    command = found[1].replace("-XAtqd shop", f"-XAtqd {database.name}")
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert one(owner, "SELECT count(*) FROM pat.token") == 0
    command = found[1].replace("-XAtqd shop", "-XAtqd nowhere")
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60)
    assert 'database "nowhere" does not exist' in done.stderr


def test_a_database_takes_over_the_tokens_of_a_local_store(database: Database, store: Store, tmp_path: Path) -> None:
    names = ["--subject", 'a "user" \\', "--name", "ü,", "--claim", "plan=a\\b"]
    kept = store.issue(*names, "--scope", "api:read", "--cidr", "10.0.0.0/8", "--cidr", "2001:db8::/32")
    forever = store.issue("--subject", "b", "--no-expiry")
    revoked = store.issue("--subject", "b")
    store.revoke(revoked)
    before = store.records()

    (tmp_path / "tokens.jsonl").write_text(store.patctl("export"))
    script = re.search(r"^```sql\n(BEGIN;\n.*?)^```", DOCUMENT, re.M | re.S)
    assert script is not None
    url = database.server.socket_url("postgres", database.name)
    done = subprocess.run([POSTGRESQL_BIN / "psql", "-XAtqv", "ON_ERROR_STOP=1", "-d", url], input=script[1],
                          cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")

    store.patctl("accept-snapshot")
    assert once("--source", database.url("edge"), "--store", store.folder).returncode == 0
    # What the source adds: numbers, and that the revocation is its own, too.
    added = {"seq", "revoked_at"}
    after = {digest: {field: value for field, value in record.items() if field not in added}
             for digest, record in store.records().items()}
    assert after == before
    assert store.tokens() == {kept.id: "ok", forever.id: "ok", revoked.id: "revoked"}
