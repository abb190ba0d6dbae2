"""The formats of a store, and what brings it from one to the other: `patctl convert`, and snapshots."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from basics import PATCTL
from conftest import FAULT, NO, USAGE, Patctl, places_of
from test_apply import Apply, apply, begin, commit, delete, digest, end, export, put, revoke, run, stats  # noqa: F401

OLD_STORE = Path(__file__).with_name("store_of_format_1.mdb.gz")

PAGE = 4096
LEAF = 2

# What a conversion may change of the figures.
FIGURES_OF_THE_FILE = {
    "store", "format", "other_format", "file_size", "used_size", "depth", "commit", "readers", "heartbeat_age",
}  # fmt: skip


def figures(patctl: Patctl) -> dict[str, Any]:
    return {name: value for name, value in stats(patctl).items() if name not in FIGURES_OF_THE_FILE}


def fill(patctl: Patctl) -> None:
    """Tokens with and without all that a record may have, of two epochs, and what is no token."""
    run(patctl, begin("E", 9), put("of_before", 5), end(9))
    whole = {
        "name": "n", "scopes": ["a", "b"], "cidrs": ["192.0.2.0/24", "2001:db8::/32"], "claims": {"c": "d"},
        "issued_at": 1700000000, "not_before": 1700000001, "expires_at": 253402300799, "revoked_at": 1700000002,
    }  # fmt: skip
    run(patctl, begin("F", 2**32), put("whole", 2**32 - 1, **whole), put("here", 1), put("denied", 3), end(1))
    run(patctl, put("later", 2**32 + 1), delete("gone", 2**32 + 2), revoke("early", 2**32 + 3), commit(4))
    run(patctl, {"op": "put", "seq": 2**32 + 4, "digest": digest("denied"), "id": "denied"}, commit(5))
    patctl.run("revoke", "--digest", digest("here"))
    patctl.run("revoke", "--digest", digest("unknown"))


def leaf_pages(data: bytes) -> list[int]:
    """Where the leaves of a file of LMDB 0.9 begin, those of former transactions among them."""
    return [page for page in range(2 * PAGE, len(data), PAGE) if data[page + 10 : page + 12] == bytes([LEAF, 0])]


def leaves(data: bytes) -> Iterator[list[tuple[bytes, bytes]]]:
    """The keys and values in each of them."""
    for page in leaf_pages(data):
        leaf = []
        for slot in range(page + 16, page + struct.unpack_from("<H", data, page + 12)[0], 2):
            node = page + struct.unpack_from("<H", data, slot)[0]
            length, _, key_length = struct.unpack_from("<IHH", data, node)
            value = node + 8 + key_length
            leaf.append((data[node + 8 : value], data[value : value + length]))
        yield leaf


def entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values in the leaves of a file that has no free pages."""
    for leaf in leaves(data):
        yield from leaf


def versions(patctl: Patctl, tmp_path: Path) -> tuple[int, int, Counter[int]]:
    """Those of the meta record, of what is written, and of the token records, as the bytes of the store say."""
    copy = tmp_path / "versions"
    patctl.run("backup", str(copy))
    found = dict(entries((copy / "data.mdb").read_bytes()))
    shutil.rmtree(copy)
    return found[b"m"][4], found[b"m"][69], Counter(value[4] for key, value in found.items() if key[:1] == b"t")


def test_a_new_store_has_the_newest_format(patctl: Patctl, tmp_path: Path) -> None:
    patctl.issue()
    assert (stats(patctl)["format"], stats(patctl)["other_format"]) == (2, 0)
    assert patctl.json("verify") == [{"records": 1, "findings": 0, "format": 2, "other_format": 0}]
    assert versions(patctl, tmp_path) == (2, 2, {2: 1})


def test_a_store_is_the_same_in_either_format(patctl: Patctl, tmp_path: Path) -> None:
    fill(patctl)
    before = figures(patctl), export(patctl), patctl.json("export", "--local-revocations")
    records = before[0]["meta_tokens"]
    assert (before[0]["tombstones"], before[0]["early_revocations"]) == (2, 1)

    for target, bytes_of_meta in ((1, (1, 0)), (2, (2, 2)), (1, (1, 0))):
        answer = patctl.json("convert", "--format", str(target))
        assert answer == [{"format": target, "converted": records, "unchanged": 0, "damaged": 0}]
        assert (figures(patctl), export(patctl), patctl.json("export", "--local-revocations")) == before
        assert versions(patctl, tmp_path) == (*bytes_of_meta, {target: records})
        assert patctl.json("verify")[-1] == {
            "records": records, "findings": 0, "format": target, "other_format": 0
        }  # fmt: skip


def test_a_store_that_has_the_format_is_left_as_it_is(patctl: Patctl) -> None:
    fill(patctl)
    for target in ("1", "2"):
        patctl.run("convert", "--format", target)
        before = stats(patctl) | {"heartbeat_age": 0}
        done = patctl.run("convert", "--format", target)
        assert f"has format {target} already: nothing was converted" in done.stderr
        assert stats(patctl) | {"heartbeat_age": 0} == before


def test_there_is_no_other_format(patctl: Patctl) -> None:
    for number in ("0", "3", "x", ""):
        patctl.run("convert", "--format", number, status=USAGE)


# --- a store of the release before


@pytest.fixture
def old(patctl: Patctl) -> Patctl:
    """As fill() made it with the release before, which knew no formats; its times are of 2026-11-30."""
    (patctl.store / "data.mdb").write_bytes(gzip.decompress(OLD_STORE.read_bytes()))
    return patctl


def test_a_store_of_the_release_before_is_served_and_stays_of_its_format(old: Patctl, tmp_path: Path) -> None:
    assert (stats(old)["format"], stats(old)["other_format"], stats(old)["meta_tokens"]) == (1, 0, 4)
    assert old.json("verify")[-1]["findings"] == 0

    token = old.issue("--subject", "bob")
    assert old.verdict(token) == "ok"
    old.run("revoke", "--token-stdin", input=token)
    old.load({"digest": digest("imported"), "id": "imported", "subject": "s"})
    run(old, put("changed", 2**32 + 9), delete("whole", 2**32 + 10), commit(10))
    old.run("gc", "--older-than", "0s")
    assert old.verdict(token) == "revoked"

    meta, written, records = versions(old, tmp_path)
    assert (meta, written, set(records)) == (1, 0, {1})


def test_a_store_of_the_release_before_comes_back_from_a_conversion_as_it_was(old: Patctl, tmp_path: Path) -> None:
    before = figures(old), export(old)
    old.run("convert")
    assert versions(old, tmp_path)[:2] == (2, 2)
    assert (figures(old), export(old)) == before
    old.run("convert", "--format", "1")
    assert versions(old, tmp_path) == (1, 0, {1: 4})
    assert (figures(old), export(old)) == before


def test_a_snapshot_converts_all_of_a_store(old: Patctl, tmp_path: Path) -> None:
    # One that is not newer, one that is, one that is revoked here and has no row, and one that is new.
    rows = put("denied", 3), put("new", 7)
    lines = (begin("F", 2**32 + 50), *rows, put("newer", 2**32 + 100), commit(1), end(2))
    done = old.run("apply", input="".join(json.dumps(line) + "\n" for line in lines))
    assert "the snapshot converts the store to format 2" in done.stderr
    assert versions(old, tmp_path) == (2, 2, {2: 4})
    assert set(export(old)) == {"denied", "new", "newer", "here"}


def test_a_snapshot_that_is_held_back_converts_nothing(patctl: Patctl) -> None:
    run(patctl, begin("E", 9), *(put(name, 1) for name in range(200)), end(9))
    patctl.run("convert", "--format", "1")
    run(patctl, begin("E", 10), end(10), status=NO)
    assert (stats(patctl)["format"], stats(patctl)["other_format"]) == (1, 0)


# --- half way

TOKENS = 30000


def newest_commit(data: Path) -> int:
    """LMDB's number of it, which each of the two pages of the header may hold."""
    with data.open("rb") as file:
        header = file.read(8192)
    return max(int(struct.unpack_from("<Q", header, page + 144)[0]) for page in (0, 4096))


def convert_half(patctl: Patctl, target: int) -> None:
    """Has it killed after one of its transactions but the last."""
    for _ in range(20):
        before = newest_commit(patctl.store / "data.mdb")
        command = [PATCTL, "--store", str(patctl.store), "convert", "--format", str(target)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as running:
            while newest_commit(patctl.store / "data.mdb") == before and running.poll() is None:
                pass
            running.kill()
        if running.wait() != 0:
            return
        patctl.run("convert", "--format", str(3 - target))
    raise AssertionError("it was always too fast")


@pytest.mark.parametrize("target", [2, 1])
def test_a_conversion_that_was_killed_is_taken_up_again(patctl: Patctl, tmp_path: Path, target: int) -> None:
    records = ({"digest": digest(number), "id": str(number), "subject": "s"} for number in range(TOKENS))
    patctl.load(*records)
    if target == 2:
        patctl.run("convert", "--format", "1")
    tokens = [patctl.issue(), patctl.issue()]
    convert_half(patctl, target)

    # No release before opens it from the first transaction on, to the last.
    meta, written, found = versions(patctl, tmp_path)
    assert (meta, written, set(found)) == (2, target, {1, 2})
    before = export(patctl)
    assert stats(patctl)["other_format"] == found[1]
    assert f"format 2, which {found[1]} records do not have" in patctl.run("verify").stdout
    assert ("being converted to 1" in patctl.run("stats").stdout) == (target == 1)

    # All else goes on, and writes what is to be written.
    tokens.append(patctl.issue())
    patctl.run("revoke", "--token-stdin", input=tokens[0])
    patctl.load({"digest": digest("new"), "id": "new", "subject": "s"})
    run(patctl, put("changed", 5), delete(7, 6), commit(6))
    patctl.run("gc")
    assert list(map(patctl.verdict, tokens)) == ["revoked", "ok", "ok"]
    after = versions(patctl, tmp_path)[2]
    assert after[target] > found[target]
    assert sum(after.values()) == TOKENS + 4

    answer = patctl.json("convert", "--format", str(target))[0]
    assert answer["converted"] == after[3 - target]
    assert answer["unchanged"] == after[target]
    assert versions(patctl, tmp_path) == ((2, 2, {2: TOKENS + 4}) if target == 2 else (1, 0, {1: TOKENS + 4}))
    assert list(map(patctl.verdict, tokens)) == ["revoked", "ok", "ok"]
    now = export(patctl)
    differing = {id for id in before if before[id] != now.get(id)}
    assert "7" in differing and len(differing) == 2  # deleted, and revoked on this host
    patctl.run("verify")


def test_the_way_back_waits_for_no_snapshot(patctl: Patctl, apply: Apply) -> None:  # noqa: F811
    assert "stop pat-sync first" in patctl.run("convert", "--format", "1", status=FAULT).stderr
    assert stats(patctl)["format"] == 2
    patctl.run("convert")


# --- damage


def spoil(patctl: Patctl, name: str) -> bytes:
    """Changes a bit of a record, in all copies of it; returns what it is from then on."""
    data = bytearray((patctl.store / "data.mdb").read_bytes())
    places = places_of(b"t" + bytes.fromhex(digest(name)), data)
    for _, end in places:
        data[end - 1] ^= 1
    (patctl.store / "data.mdb").write_bytes(data)
    return bytes(data[places[-1][0] : places[-1][1]])


@pytest.mark.parametrize("target", [2, 1])
def test_a_damaged_record_is_named_and_left(patctl: Patctl, tmp_path: Path, target: int) -> None:
    patctl.load(*({"digest": digest(name), "id": name, "subject": "s"} for name in "abc"))
    patctl.run("convert", "--format", str(3 - target))
    bytes_of_it = spoil(patctl, "b")

    answer = patctl.run("--json", "convert", "--format", str(target), status=NO)
    assert json.loads(answer.stdout) == {"format": target, "converted": 2, "unchanged": 0, "damaged": 1}
    assert f"record of digest {digest('b')}: not converted: " in answer.stderr
    assert bytes_of_it in (patctl.store / "data.mdb").read_bytes()
    assert stats(patctl)["format"] == target

    patctl.load({"digest": digest("b"), "id": "b", "subject": "s"})
    assert patctl.json("convert", "--format", str(target)) == [
        {"format": target, "converted": 0, "unchanged": 3, "damaged": 0}
    ]


def test_damage_where_a_transaction_ends_is_noticed(patctl: Patctl) -> None:
    """A transaction looks at 8,192 records, and at the first of the next ones: here its key is wrong."""

    def tokens(digests: Iterable[str]) -> list[dict[str, Any]]:
        return [{"digest": digest, "id": f"t{n}", "subject": "s"} for n, digest in enumerate(digests)]

    patctl.load(*tokens(digest(str(n)) for n in range(8300)))
    patctl.run("backup", str(patctl.store.parent / "compact"))
    shutil.rmtree(patctl.store)
    (patctl.store.parent / "compact").rename(patctl.store)

    # Which leaf is the last with at most 8,192 records before it; with others in front, it has as many.
    data = (patctl.store / "data.mdb").read_bytes()
    keys_of = [[key for key, _ in leaf if key[:1] == b"t"] for leaf in leaves(data)]
    count_of = {keys[0]: len(keys) for keys in keys_of if keys}
    before = 0
    for first in sorted(count_of):
        if before + count_of[first] > 8192:
            break
        before += count_of[first]
    patctl.load(*tokens(f"{n:064x}" for n in range(8192 - before)))

    spoiled = bytearray((patctl.store / "data.mdb").read_bytes())
    for page, leaf in zip(leaf_pages(bytes(spoiled)), leaves(bytes(spoiled)), strict=True):
        if leaf[0][0] == first:
            key = page + struct.unpack_from("<H", spoiled, page + 16)[0] + 8
            spoiled[key + 1 : key + len(first)] = bytes(len(first) - 1)  # out of order
    (patctl.store / "data.mdb").write_bytes(spoiled)

    done = patctl.run("convert", "--format", "1", status=FAULT)
    assert "data.mdb is damaged" in done.stderr
    assert (patctl.store / "data.mdb").read_bytes() == spoiled
