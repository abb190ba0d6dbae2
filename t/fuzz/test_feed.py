"""Lines of a feed on their way through pat-sync and patctl: whatever becomes of them, pat-sync fails in its own words,
and no token whose revocation was spoilt stays valid, unless pat-sync takes a snapshot instead."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from basics import DEADLINE, PATCTL
from conftest import Dice
from pat_sync.errors import SourceFailed
from pat_sync.sources.feed import source as feed
from requests.structures import CaseInsensitiveDict
from store import Store

TOKENS = 200
LATER = 4102444800

WORDS = [
    b'"', b"{", b"}", b"[", b"]", b":", b",", b"\\", b" ", b"\t", b"\r", b"\0", b"\xff", b"\xc3\xa9", b"null",
    b'"digest"', b'"digest":"', b'"seq":', b'"x":{', b'"x":[', b'"op":"revoke"', b'"more":false', b"\\u0064",
    b"\\ud800", b"NaN", b"1e400", b"9" * 25, b"-1", b"[" * 2000,
]  # fmt: skip


def digest_of(number: int) -> str:
    return hashlib.sha256(f"token {number}".encode()).hexdigest()


def put(number: int, seq: int) -> dict[str, Any]:
    return {
        "op": "put", "seq": seq, "digest": digest_of(number), "id": f"t{number}", "subject": "user:42", "name": "ci",
        "scopes": ["api:read"], "cidrs": ["192.0.2.0/24"], "expires_at": LATER, "claims": {"plan": "pro"},
    }  # fmt: skip


def revocation(dice: Dice, number: int, seq: int) -> dict[str, Any]:
    if dice.random() < 0.5:
        return {"op": "delete", "seq": seq, "digest": digest_of(number)}
    return {"op": "revoke", "seq": seq, "digest": digest_of(number), "revoked_at": 1767225600}


def line_of(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


# --- pat-sync and patctl ---


def named_digest(line: feed._Line) -> str:
    if line.fields:
        return str(line.fields["digest"]).lower()
    found = feed._DIGEST.search(line.text)
    assert found is not None
    return found[1].decode().lower()


def apply(store: Store, lines: list[bytes]) -> list[dict[str, Any]]:
    """What patctl answers between the first line, that it has opened the store, and the last, that it has committed."""
    done = subprocess.run(
        [PATCTL, "--store", str(store.folder), "apply"],
        input=b"".join(line + b"\n" for line in [*lines, line_of({"op": "commit", "cursor": "end"})]),
        capture_output=True, timeout=DEADLINE,
    )  # fmt: skip
    opened, *answers, committed = map(json.loads, done.stdout.splitlines())
    assert (opened["answer"], committed["answer"], committed["line"]) == ("opened", "committed", len(lines) + 1)
    return answers


def test_no_revocation_is_lost(dice: Dice, tmp_path: Path) -> None:
    for number, _ in enumerate(dice.rounds()):
        store = Store(tmp_path / f"store{number}")
        assert apply(store, [line_of(put(token, 1)) for token in range(TOKENS)]) == []

        passed: list[tuple[int, feed._Line]] = []
        for token in range(TOKENS):
            is_put = dice.random() < 0.2
            fields = put(token, token + 2) if is_put else revocation(dice, token, token + 2)
            text = dice.mutate(line_of(fields), WORDS).replace(b"\n", b"")
            line = feed._Line(1, text + b"\n", feed._fields(text))
            dice.tried += 1
            # pat-sync passes on just these; otherwise it fails, or takes a snapshot.
            if text.strip() and feed._may_be(line, "put", "revoke", "delete") and line.names_token():
                passed.append((-1 if is_put else token, line))

        answers = apply(store, [line.text.rstrip(b"\n") for _, line in passed])
        for answer in answers:
            line = passed[answer["line"] - 1][1]
            assert answer["answer"] == "rejected" and answer.get("digest") == named_digest(line), (line, answer)
        statuses = store.tokens()
        for token, line in passed:
            if token >= 0 and named_digest(line) == digest_of(token) and not re.search(rb'"seq":1(?!\d)', line.text):
                assert statuses.get(f"t{token}") != "ok", line
        subprocess.run(["rm", "-r", store.folder], check=True)


# --- pat-sync alone ---


class Answer:
    """What `requests` has of an answer; the parts in which it comes are of any size."""

    status_code = 200

    def __init__(self, dice: Dice, body: bytes, epoch: str) -> None:
        self.headers = CaseInsensitiveDict({"ETag": f'"{epoch}"'})
        self._dice = dice
        self._body = body

    def iter_content(self, _: int) -> Iterator[bytes]:
        rest = self._body
        while rest:
            length = self._dice.choice((1, 10, 100, len(rest)))
            yield rest[:length]
            rest = rest[length:]

    def close(self) -> None:
        pass


class Quiet:
    """Stands for the parts of pat-sync that only count, or only wait."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class Receiver(Quiet):
    """Stands for patctl: keeps the cursors that it was sent."""

    def __init__(self) -> None:
        self.epoch = "one"
        self.cursor = "0"
        self.snapshots = 0

    def commit(self, lines: bytes, cursor: str) -> None:
        assert lines == b"" or lines.endswith(b"\n")
        assert 0 < len(cursor) <= 256
        self.cursor = cursor

    def end_snapshot(self, lines: bytes, cursor: str, read_at: float) -> None:
        self.snapshots += 1
        self.commit(lines, cursor)


class Settings:
    source = "https://127.0.0.1/feed"
    heartbeat_interval = poll_interval = query_timeout = 1.0
    ca_file = token = client_cert = None


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Any:
    made: Any = feed.FeedSource(*(stub() for stub in (Settings, Quiet, Quiet)))  # type: ignore[arg-type]
    made._freshness.is_proven = True
    return made


def changes(dice: Dice) -> list[bytes]:
    lines = []
    for seq in range(1, dice.randrange(2, 6)):
        lines.append(line_of(put(seq, seq) if dice.random() < 0.5 else revocation(dice, seq, seq)))
        lines.append(line_of({"op": "commit", "after": str(seq - 1), "cursor": str(seq), "more": dice.random() < 0.5}))
    return lines


def snapshot(dice: Dice) -> list[bytes]:
    rows = [line_of(put(number, number)) for number in range(1, dice.randrange(2, 6))]
    begin = line_of({"op": "snapshot_begin", "epoch": "one", "seq": 9})
    return [begin, *rows, line_of({"op": "snapshot_end", "cursor": "9"})]


def test_no_answer_is_more_than_a_failure(dice: Dice, source: Any) -> None:
    whole = 0
    for _ in dice.rounds():
        for _ in range(100):
            is_snapshot = dice.random() < 0.5
            lines = snapshot(dice) if is_snapshot else changes(dice)
            body = b"\n".join(lines) + b"\n"
            if dice.random() < 0.9:
                body = dice.mutate(body, [*WORDS, b"\n", b"\n\n", b"\n" + lines[0] + b"\n", b" " * 70000])
            answer = Answer(dice, body, "one")
            receiver = Receiver()
            dice.tried += 1
            try:
                if is_snapshot:
                    source._get = lambda *_, answer=answer: answer
                    source._take_snapshot(receiver, "a test")
                    assert receiver.snapshots == 1
                else:
                    source._pass_on(receiver, answer)
                whole += 1
            except (SourceFailed, feed._NeedsSnapshot):
                pass
    assert whole > 0
