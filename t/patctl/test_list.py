"""list: which tokens, and in what order."""

from __future__ import annotations

import time

import pytest
from conftest import USAGE, YES, Patctl, places_of

NOW = int(time.time())
DAY = 86400


def record(number: int, **fields: object) -> dict[str, object]:
    return {"digest": f"{number:02x}" * 32, "id": f"id{number}", "subject": "s", **fields}


@pytest.fixture
def filled(patctl: Patctl) -> Patctl:
    patctl.load(
        record(1, subject="b", name="shop", scopes=["api:read"], expires_at=NOW + 9 * DAY, issued_at=NOW - 3 * DAY),
        record(2, subject="c", name="CI of shop", scopes=["api:read", "csv:write"], issued_at=NOW - DAY),
        record(3, subject="a", scopes=["csv:write"], expires_at=NOW + DAY, issued_at=NOW - 2 * DAY),
        record(4, subject="d", expires_at=NOW - DAY),
        record(5, subject="d", expires_at=NOW + DAY // 2, revoked_at=NOW - 1),
        record(6, subject="e", expires_at=NOW + 5 * DAY, not_before=NOW + DAY),
    )
    return patctl


def ids(patctl: Patctl, *arguments: str) -> str:
    found = [token["id"] for token in patctl.json("list", *arguments)]
    rows = patctl.run("list", *arguments).stdout.splitlines()[1:]
    assert [row.split()[0] for row in rows] == found
    return "".join(id.removeprefix("id") for id in found)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ("", "123456"),
        ("--name shop", "12"),
        ("--name Shop", ""),
        ("--scope api:read", "12"),
        ("--scope api:read --scope csv:write", "2"),
        ("--scope=api:read --subject b", "1"),
        ("--scope api", ""),
        ("--expiring-within 2d", "3"),
        ("--expiring-within 1w", "36"),
        ("--expiring-within 1w --status ok", "3"),
        ("--expiring-within 30d --sort expires", "361"),
        ("--sort expires", "453612"),
        ("--sort expires --reverse", "216354"),
        ("--sort expires --limit 2", "45"),
        ("--sort issued", "456132"),
        ("--sort subject", "312456"),
        ("--sort name", "345621"),
        ("--sort id --reverse", "654321"),
        ("--sort status", "461235"),
        ("--limit 2", "12"),
    ],
)
def test_which_tokens_and_in_what_order(filled: Patctl, arguments: str, wanted: str) -> None:
    assert ids(filled, *arguments.split()) == wanted


def test_scopes_may_be_given_in_one_option(filled: Patctl) -> None:
    assert ids(filled, "--scope", "api:read csv:write") == "2"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--sort", "age"), "--sort"),
        (("--reverse",), "--sort"),
        (("--expiring-within", "7"), "--expiring-within"),
        (("--scope", "a,b"), "--scope"),
        (("--name", ""), "--name"),
        (("--scope", ""), "--scope"),
        (("--scope", " "), "--scope"),
    ],
)
def test_bad_values_are_refused(filled: Patctl, arguments: tuple[str, ...], words: str) -> None:
    assert words in filled.run("list", *arguments, status=USAGE).stderr


def test_an_empty_list_is_not_an_error(patctl: Patctl) -> None:
    assert patctl.json("list", "--sort", "id", "--name", "none", status=YES) == []


def test_a_damaged_record_is_left_out_of_a_sorted_list(filled: Patctl) -> None:
    data = bytearray((filled.store / "data.mdb").read_bytes())
    places = places_of(bytes.fromhex("03" * 32), data)
    for start, end in places:
        data[end - 1] ^= 1
    assert places
    (filled.store / "data.mdb").write_bytes(data)
    done = filled.run("list", "--sort", "id", status=YES)
    assert [row.split()[0] for row in done.stdout.splitlines()[1:]] == ["id1", "id2", "id4", "id5", "id6"]
    assert "left out" in done.stderr
