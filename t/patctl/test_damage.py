"""Stores whose bytes were spoilt, streams that are closed, and texts that would act on a terminal."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
from pathlib import Path

import pytest
from basics import PATCTL
from conftest import FAULT, NO, Patctl

PAGE = 4096


def load(patctl: Patctl, count: int) -> None:
    digests = (hashlib.sha256(str(number).encode()).hexdigest() for number in range(count))
    patctl.load(*({"digest": digest, "id": digest[:8], "subject": "s"} for digest in digests))


@pytest.mark.parametrize("length", [0, PAGE, 2 * PAGE, 5 * PAGE - 1])
def test_a_truncated_store_is_a_finding_of_verify_and_a_fault_for_others(patctl: Patctl, length: int) -> None:
    load(patctl, 500)
    os.truncate(patctl.store / "data.mdb", length)
    for command in ("list", "stats", "export"):
        assert str(patctl.store) in patctl.run(command, status=FAULT).stderr
    if length >= 2 * PAGE:
        assert patctl.json("verify", status=NO)[-1] == {"records": 0, "findings": 1}


def test_verify_survives_any_page_that_is_gone(patctl: Patctl) -> None:
    load(patctl, 2000)
    data = patctl.store / "data.mdb"
    whole = data.read_bytes()
    findings = 0
    for page in range(2, len(whole) // PAGE):
        data.write_bytes(whole[: page * PAGE] + bytes(PAGE) + whole[(page + 1) * PAGE :])
        done = subprocess.run([PATCTL, "--store", str(patctl.store), "verify"], capture_output=True)
        assert done.returncode in (0, NO), done
        findings += done.returncode
    assert findings > len(whole) // PAGE / 2  # the others are free


def test_what_a_terminal_would_act_on_is_not_shown(patctl: Patctl) -> None:
    patctl.issue("--name", "a\u009b31m\u202eb")
    for command in (("list",), ("show", patctl.json("list")[0]["id"])):
        assert "a\ufffd31m\ufffdb" in patctl.run(*command).stdout
    assert "\\u009b" in patctl.run("export").stdout


def test_a_backup_needs_a_folder_to_be_in(patctl: Patctl, tmp_path: Path) -> None:
    assert f'"{tmp_path}/none/copy" can\'t be made' in patctl.run("backup", f"{tmp_path}/none/copy", status=FAULT).stderr


def endless(data: Path) -> None:
    """Puts pages behind the tree, each of which leads to the next one twice: 2^28 ways to its last page."""
    whole = bytearray(data.read_bytes())

    def number(form: str, at: int) -> int:
        return int(struct.unpack_from(form, whole, at)[0])

    header = max((0, PAGE), key=lambda at: number("<Q", at + 144))
    root = number("<Q", header + 128)
    last_node = root * PAGE + number("<H", root * PAGE + number("<H", root * PAGE + 12) - 2)
    page = number("<H", last_node)
    for level in range(29):
        first, second = PAGE - 8, PAGE - 8 - 50
        above = bytearray(PAGE)
        struct.pack_into("<QHHHHHH", above, 0, len(whole) // PAGE, 0, 1, 20, second, first, second)
        for at, to, key in (first, root if level == 28 else page, b""), (second, page, b"t".ljust(33, b"\xff")):
            struct.pack_into(f"<HHHH{len(key)}s", above, at, to, 0, 0, len(key), key)
        page = len(whole) // PAGE
        whole += above
    struct.pack_into("<QQ", whole, header + 128, page, page)
    data.write_bytes(whole)


@pytest.mark.parametrize("command", [
    "stats", "export", "export --local-revocations", "list", "gc --dry-run", "backup COPY", "revoke --subject nobody",
])
def test_a_walk_ends_whatever_leads_to_whatever(patctl: Patctl, tmp_path: Path, command: str) -> None:
    load(patctl, 100)
    endless(patctl.store / "data.mdb")
    done = patctl.run(*command.replace("COPY", f"{tmp_path}/copy").split(), status=FAULT)
    assert "is damaged" in done.stderr
    assert not list(tmp_path.glob("copy*"))


@pytest.mark.parametrize("command", ["revoke --subject nobody", "gc", "convert --format 2"])
def test_a_key_that_sorts_behind_all_is_not_the_end(patctl: Patctl, command: str) -> None:
    load(patctl, 300)
    data = patctl.store / "data.mdb"
    key = b"t" + sorted(hashlib.sha256(str(number).encode()).digest() for number in range(300))[150]
    spoiled = data.read_bytes().replace(key, b"u" + key[1:])
    data.write_bytes(spoiled)
    assert "is damaged" in patctl.run(*command.split(), status=FAULT).stderr
    assert data.read_bytes() == spoiled


def test_a_backup_that_is_made_has_all_that_the_store_has(patctl: Patctl, tmp_path: Path) -> None:
    load(patctl, 300)
    data = patctl.store / "data.mdb"
    whole = data.read_bytes()
    there = set(patctl.run("export").stdout.splitlines())
    told = 0
    for page in range(2, len(whole) // PAGE):
        # Where the free part of a page ends, which LMDB clears in a copy, and which nobody else needs to read.
        upper_at = page * PAGE + 14
        for upper in (2000, 4000):
            data.write_bytes(whole[:upper_at] + upper.to_bytes(2, "little") + whole[upper_at + 2 :])
            copy = tmp_path / f"copy-{page}-{upper}"
            done = subprocess.run([PATCTL, "--store", str(patctl.store), "backup", str(copy)], capture_output=True)
            assert done.returncode in (0, FAULT), done
            told += done.returncode == FAULT and b"is damaged" in done.stderr
            if done.returncode == 0:
                assert set(Patctl(copy).run("export").stdout.splitlines()) == there
            else:
                assert not copy.exists() and not Path(f"{copy}.partial").exists()
    assert told > 0


@pytest.mark.parametrize("closed", ["0", "1", "2", "01", "02", "12", "012"])
def test_what_is_meant_for_a_closed_stream_does_not_end_up_in_the_store(patctl: Patctl, closed: str) -> None:
    redirections = " ".join(f"{stream}>&-" for stream in closed)
    for command in ("issue --subject alice", "list", "check", "stats", "revoke --subject nobody", "import /dev/null"):
        line = f'exec "$0" --store "$1" {command} {redirections}'
        subprocess.run(["sh", "-c", line, PATCTL, str(patctl.store)], stdin=subprocess.DEVNULL, capture_output=True)
        assert not any(b"patctl: " in path.read_bytes() for path in patctl.store.iterdir()), command
    assert "no damage" in patctl.run("verify").stdout
    assert len(patctl.json("list")) == (0 if "1" in closed else 1)
