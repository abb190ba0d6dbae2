"""The source file:///…, JSON Lines and CSV: whatever is in a file, pat-sync refuses it in its own words, or
patctl takes all of its lines."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
from pathlib import Path
from typing import Any

from basics import DEADLINE, PATCTL
from conftest import Dice
from pat_sync.pulse import Pulse
from pat_sync.sources.file import source as file
from pat_sync.sources.file.lists import parse_list
from pat_sync.sources.file.record import BadRecord, put_line
from store import Store

COLUMNS = ("digest", "id", "subject", "name", "scopes", "cidrs", "expires_at", "revoked_at", "claim.plan")

WORDS = [
    b'"', b"''", b",", b"\n", b"\r\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"{", b"}", b"[1:2]={", b"\\", b"null",
    b" ", b"\t", b"\xc3\xa9", b"claim.", b'"denied":true,', b'"seq":9,', b'"local_revoked_at":5,', b"\\ud800", b"NaN",
]  # fmt: skip

# Of cells with lists.
PARTS = ["{", "}", ",", '"', "\\", " ", "a", "NULL", "[1:2]=", "=", "{}", "api:read", "é", ";", "\t"]


def record(number: int) -> dict[str, Any]:
    return {
        "digest": hashlib.sha256(f"token {number}".encode()).hexdigest(), "id": f"t{number}", "subject": "user:42",
        "name": 'a "name", or two', "scopes": ["api:read", "orders:write"], "cidrs": ["192.0.2.0/24", "2001:db8::/32"],
        "expires_at": 4102444800, "revoked_at": "2026-01-01T00:00:00Z", "claims": {"plan": "pro"},
    }  # fmt: skip


def as_json(records: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def as_csv(dice: Dice, records: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in records:
        cells = {**one, "claim.plan": one["claims"]["plan"], "scopes": " ".join(one["scopes"])}
        cells["cidrs"] = dice.choice(("{%s}", "[1:2]={%s}")) % ",".join(one["cidrs"])
        writer.writerow(cells[column] for column in COLUMNS)
    return text.getvalue().encode()


def follow(path: Path, name: str) -> Any:
    class Settings:
        source = f"file://{path}"
        file_format = name
        patctl = Path(PATCTL)
        poll_interval = settle = 0.0

    return file.FileSource(Settings, Pulse(), None)  # type: ignore[arg-type]


def reject(store: Store, lines: list[bytes]) -> list[bytes]:
    """What patctl says of the rows of a snapshot that it does not take."""
    begin = json.dumps({"op": "snapshot_begin", "epoch": "one", "seq": 0}).encode() + b"\n"
    end = json.dumps({"op": "snapshot_end", "cursor": "end"}).encode() + b"\n"
    done = subprocess.run(
        [PATCTL, "--store", str(store.folder), "apply"], input=begin + b"".join(lines) + end, capture_output=True,
        timeout=DEADLINE,
    )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers[-1]["answer"] == "snapshot_committed", (answers, done.stderr)
    return [line for line, answer in zip(done.stdout.splitlines(), answers) if answer["answer"] == "rejected"]


def test_a_file_is_refused_or_taken(dice: Dice, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    path = tmp_path / "tokens"
    taken = 0
    for _ in dice.rounds():
        name = dice.choice(("csv", "jsonl"))
        records = [record(number) for number in range(dice.randrange(1, 4))]
        content = as_csv(dice, records) if name == "csv" else as_json(records)
        if dice.random() < 0.9:
            content = dice.mutate(content, WORDS)
        path.write_bytes(content)
        source = follow(path, name)
        dice.tried += 1
        with path.open("rb") as opened:
            try:
                source._check(opened)
            except file._BadFile:
                continue
            lines = [put_line(fields) for _, fields, _ in source._records(file._Reader(opened))]
        assert reject(store, lines) == [], content
        taken += 1
    assert dice.tried < 50 or taken > 0


def quote(element: str) -> str:
    return '"' + element.replace("\\", "\\\\").replace('"', '\\"') + '"'


def test_a_cell_is_refused_or_a_list(dice: Dice) -> None:
    for _ in dice.rounds():
        for _ in range(1000):
            cell = "".join(dice.choices(PARTS, k=dice.randrange(8)))
            dice.tried += 1
            try:
                elements = parse_list(cell)
            except BadRecord:
                continue
            assert parse_list("{" + ",".join(map(quote, elements)) + "}") == elements, cell
