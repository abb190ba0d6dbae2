"""The source file://: the file replaces the whole store, and an invalid file changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from basics import wait_until
from feed_server import Line, digest, token
from pat_sync.errors import ApplierFailed
from pat_sync.pulse import Pulse
from pat_sync.sources.file import check
from sidecar import PatSync, once, pat_sync
from store import Store

FAST = ("--poll-interval", "0.05", "--heartbeat-interval", "0.1", "--settle", "0.2")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.jsonl"


def lines(*records: Line) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def follow(path: Path, store: Store) -> PatSync:
    return PatSync("--source", f"file://{path}", "--store", store.folder, *FAST)


def take_once(path: Path, store: Store, *arguments: str) -> subprocess.CompletedProcess[str]:
    return once("--source", f"file://{path}", "--store", store.folder, *FAST, *arguments)


def wait_for_tokens(store: Store, **wanted: str) -> None:
    wait_until(lambda: store.tokens() == wanted, f"{wanted}")


def wait_for_heartbeats(store: Store) -> None:
    commits = store.stats()["commit"]
    wait_until(lambda: store.stats()["commit"] >= commits + 2, "two heartbeats")


def test_each_replacement_is_taken_over(path: Path, store: Store) -> None:
    path.write_text(lines(token("a"), token("b", seq=7)))
    with follow(path, store):
        wait_for_tokens(store, a="ok", b="ok")
        replace(path, lines(token("b", revoked_at=5, seq=3), token("c")))
        wait_for_tokens(store, b="revoked", c="ok")
        # Numbers order nothing, and a revocation is undone by a file without it.
        replace(path, lines(token("b", seq=1)))
        wait_for_tokens(store, b="ok")
        wait_for_heartbeats(store)


def test_a_file_that_the_store_has_is_not_sent_again(path: Path, store: Store) -> None:
    path.write_text(lines(token("a")))
    assert "taking a snapshot" in take_once(path, store).stderr
    replace(path, lines(token("a")))
    done = take_once(path, store)
    assert done.returncode == 0
    assert "taking a snapshot" not in done.stderr


def test_an_export_of_another_store_is_taken(path: Path, store: Store, tmp_path: Path) -> None:
    """Tokens refused on the exporting host are refused here, and their records are complete."""
    other = Store(tmp_path / "other")
    fields: dict[str, Any] = {
        "name": "ü \"x\"", "scopes": ["r", "w:x"], "cidrs": ["192.0.2.0/24", "2001:db8::/32", "::ffff:192.0.2.7"],
        "claims": {"plan": "p"}, "issued_at": 5, "not_before": "1970-01-01T00:00:06Z", "expires_at": 4102444800,
    }  # fmt: skip
    source = tmp_path / "import.jsonl"
    source.write_text(lines(token("a", **fields), token("b")))
    other.patctl("import", "--strict", str(source))
    other.patctl("revoke", "b")
    path.write_text(other.patctl("export"))
    assert take_once(path, store).returncode == 0
    assert store.tokens() == {"a": "ok", "b": "revoked"}
    shown = [json.loads(text) for text in (store.patctl("show", "--json", "a"), other.patctl("show", "--json", "a"))]
    assert shown[0] == shown[1]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "the snapshot has 0 tokens, and would remove 1 of the 1"),
        ("\n\n", "accept-snapshot"),
        (lines(token("a"))[:-1], "line 1 has no end"),
        (lines(token("a"), token("b"))[:-9], "line 2 has no end"),
        (lines(token("a")) + "nonsense\n", "line 2: not JSON"),
        (lines(token("a")) + "[]\n", "line 2: not a JSON object"),
        (lines(token("a"), token("b"), token("a")), f'line 3: digest "{digest("a")}" occurs twice'),
        (lines({"digest": digest("a"), "id": "a"}), 'line 1: no field "subject"'),
        (lines(token("a", colour="red")), 'line 1: unknown field "colour"'),
        (lines(token("a"))[:-2] + ',"id":"b"}\n', "a field is given twice"),
        (lines(token("a") | {"digest": "12"}), "line 1: digest: a digest has 64"),
        (lines(token("c") | {"id": "a b"}, token("a"), token("a")), "line 1: the id must be"),
        (lines(token("a"), token("a"), token("c") | {"id": "a b"}), f'line 2: digest "{digest("a")}" occurs twice'),
        (lines(token("a") | {"id": "a b"}), "line 1: the id must be 1 to 64 letters, digits, or any of "),
        (lines(token("a") | {"subject": "x" * 256}), "line 1: the subject must be 1 to 255 bytes"),
        (lines(token("a") | {"subject": "victim "}), "line 1: the subject begins or ends with a blank"),
        (lines(token("a", claims={"a": " x"})), 'line 1: the value of claim "a" begins or ends with a blank'),
        (lines(token("a", name="x\ty")), "line 1: the name must be at most 255 bytes without control characters"),
        (lines(token("a", name="\ud800")), "line 1: not JSON"),
        (lines(token("a", expires_at=0)), "line 1: expires_at: "),
        (lines(token("a", expires_at="2026-02-30T00:00:00Z")), "line 1: expires_at: "),
        (lines(token("a", expires_at=1.5)), "line 1: expires_at: "),
        (lines(token("a", revoked_at="soon")), "line 1: revoked_at: "),
        (lines(token("a", scopes="r w")), "line 1: scopes: not an array"),
        (lines(token("a", scopes=["r w"])), "line 1: scopes: "),
        (lines(token("a", cidrs=["192.0.2.1/24"])), "line 1: cidrs: "),
        (lines(token("a", cidrs=["fe80::1%eth0"])), "line 1: cidrs: "),
        (lines(token("a", claims={"A": "b"})), "line 1: claims: "),
        (lines(token("a", claims={"a": 1})), "line 1: claims: "),
        (lines(token("a", claims={"a": "x" * 4090})), "the texts of the record are longer than 4032 bytes"),
        (lines(token("a", seq=-1)), "line 1: seq: "),
        (lines(token("a", name="x" * 70000)), "line 1 is longer than 65536 bytes"),
    ],
)
def test_a_file_that_is_wrong_is_refused_as_a_whole(path: Path, store: Store, text: str, cause: str) -> None:
    path.write_text(lines(token("before")))
    assert take_once(path, store).returncode == 0
    heartbeat = store.stats()["heartbeat"]
    replace(path, text)
    done = take_once(path, store)
    assert done.returncode == 1
    assert cause in done.stderr
    assert store.tokens() == {"before": "ok"}
    assert store.stats()["heartbeat"] == heartbeat
    assert store.stats()["state"] == ("ready" if text.strip() else "resync")


def test_what_is_refused_here_patctl_would_refuse_too(path: Path, store: Store, tmp_path: Path) -> None:
    """pat-sync accepts and refuses the same records as patctl import."""
    edges: list[Line] = [
        token("a", expires_at=253402300799),
        token("b", expires_at=253402300800),
        token("c", expires_at="9999-12-31T23:59:59-00:01"),
        token("d", expires_at="2026-01-01t00:00:00.123z"),
        token("e", expires_at="2026-01-01"),
        token("f", expires_at="17"),
        token("g", expires_at=" 17"),
        token("h", cidrs=["10.0.0.1"]),
        token("i", cidrs=["10.0.0.01"]),
        token("j", cidrs=["10.0.0.0/255.0.0.0"]),
        token("k", cidrs=["::/0", "0.0.0.0/0"]),
        token("l", scopes=[""]),
        token("m", scopes=[]),
        token("n", claims={"": "x"}),
        token("o", claims={"x": ""}),
        token("p", name="\u007f"),
        token("q", name="\u0080"),
        token("r", name=None, scopes=None),
        token("s", seq=2**63),
        token("t", seq=True),
        token("u", claims={"a": "x" * (4096 - 64 - 1 - 6 - 4)}),
        token("v", claims={"a": "x" * (4096 - 64 - 1 - 6 - 3)}),
        token("w", expires_at="2016-12-31T23:59:60Z"),
        token("x", expires_at="٣"),
        token("y", expires_at="2016-12-31T12:00:60Z"),
        token("z", subject=" x"),
        token("A", subject="x "),
        token("B", subject="\u00a0x\u00a0"),
        token("C", name=" x "),
        token("D", name="\tx\t"),
        token("E", name=" " * 300),
        token("H", name="\r\nx\v\f\n"),
        token("F", claims={"a": "x "}),
        token("G", claims={"a": " "}),
    ]
    for record in edges:
        one = tmp_path / "one.jsonl"
        one.write_text(lines(record))
        fresh = Store(tmp_path / f"store-{record['id']}")
        try:
            fresh.patctl("import", "--strict", str(one))
            is_good = True
        except RuntimeError:
            is_good = False
        replace(path, lines(record))
        done = take_once(path, store)
        assert (done.returncode == 0) == is_good, (record, done.stderr)


def test_a_bad_file_is_told_once_and_a_good_one_is_taken_again(path: Path, store: Store) -> None:
    path.write_text(lines(token("a")))
    with follow(path, store) as sync:
        wait_for_tokens(store, a="ok")
        replace(path, lines(token("b"))[:-1])
        sync.wait_for_line("is not used, and the previous tokens stay")
        commits = store.stats()["commit"]
        replace(path, lines(token("c")) + "x\n")
        sync.wait_for_line("line 2: not JSON")
        # Many looks later, too.
        started = time.monotonic()
        wait_until(lambda: time.monotonic() > started + 1, "a second")
        assert len(sync.find("is not used")) == 2
        assert store.stats()["commit"] == commits
        replace(path, lines(token("b")))
        wait_for_tokens(store, b="ok")
        wait_for_heartbeats(store)


def test_a_file_that_is_written_in_place_is_noticed_whatever_its_time_says(path: Path, store: Store) -> None:
    path.write_text(lines(token("a")))
    with follow(path, store):
        wait_for_tokens(store, a="ok")
        wait_for_heartbeats(store)
        before = path.stat()
        with path.open("r+") as file:
            file.write(lines(token("b")))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_size == before.st_size
        wait_for_tokens(store, b="ok")


def test_status_waits_for_a_version_that_is_on_its_way(path: Path, store: Store) -> None:
    def status(*arguments: str) -> subprocess.CompletedProcess[str]:
        return pat_sync("status", "--source", f"file://{path}", "--store", store.folder, *FAST, *arguments)

    path.write_text(lines(token("a")))
    with follow(path, store):
        wait_for_tokens(store, a="ok")
        replace(path, lines(token("b")))
        assert status("--settle", "5").returncode == 0
        replace(path, lines(token("c"))[:-1])
        done = status()
        assert done.returncode == 1
        assert "wrong: the store is behind its source" in done.stdout


def test_what_is_no_file_is_told_and_not_waited_for(path: Path, store: Store) -> None:
    os.mkfifo(path)
    done = once("--source", f"file://{path}", "--store", store.folder)
    assert done.returncode == 1
    assert f'"{path}" is not a regular file' in done.stderr.splitlines()[-1]


def test_a_missing_file_is_waited_for(path: Path, store: Store) -> None:
    path.write_text(lines(token("a")))
    with follow(path, store) as sync:
        wait_for_tokens(store, a="ok")
        path.unlink()
        sync.wait_for_line(f'cannot read "{path}": No such file or directory')
        commits = store.stats()["commit"]
        sync.wait_for_line("trying again", 3)
        assert store.stats()["commit"] == commits
        path.write_text(lines(token("a"), token("b")))
        wait_for_tokens(store, a="ok", b="ok")
        sync.wait_for_line("is back after")


def test_a_file_that_is_still_being_written_is_not_taken(path: Path, store: Store) -> None:
    path.write_text(lines(token("a")))
    with PatSync("--source", f"file://{path}", "--store", store.folder, *FAST, "--settle", "1") as sync:
        wait_for_tokens(store, a="ok")
        with path.open("w") as file:
            for number in range(40):
                file.write(lines(token(f"t{number}")))
                file.flush()
                written = time.monotonic()
                wait_until(lambda: time.monotonic() > written + 0.06, "the next line")
                assert store.tokens() == {"a": "ok"}
        wait_until(lambda: len(store.tokens()) == 40, "the whole file")
        assert len(sync.find("taking a snapshot")) == 2
        assert not sync.find("failed|not used")


def test_csv(path: Path, store: Store, tmp_path: Path) -> None:
    table = tmp_path / "tokens.csv"
    table.write_bytes(
        b"\xef\xbb\xbfid,digest,subject,name,scopes,cidrs,expires_at,revoked_at,claim.plan\r\n"
        + f'a,{digest("a")},user:1,"one, two",r w,192.0.2.0/24 ::1,2100-01-01T00:00:00Z,,pro\r\n'.encode()
        + f"b,{digest('b')},user:2,,,,,5,\n".encode()
    )
    assert take_once(table, store).returncode == 0
    assert store.tokens() == {"a": "ok", "b": "revoked"}
    shown = json.loads(store.patctl("show", "--json", "a"))
    assert shown["scopes"] == ["r", "w"]
    assert shown["cidrs"] == ["192.0.2.0/24", "::1/128"]
    assert (shown["name"], shown["claims"], shown["expires_at"]) == ("one, two", {"plan": "pro"}, 4102444800)

    path.write_bytes(table.read_bytes())
    assert take_once(path, store).returncode == 1
    assert take_once(path, store, "--file-format", "csv").returncode == 0


def test_csv_with_arrays_of_postgresql(store: Store, tmp_path: Path) -> None:
    table = tmp_path / "TOKENS.CSV"
    table.write_text(
        "digest,id,subject,name,scopes,cidrs\n"
        f'{digest("a")},a,user:1, CI ,"{{api:read,csv:write}}","{{192.0.2.0/24,::1}}"\n'
        f'{digest("b")},b,user:2,,"{{""a,b"",c}}",{{}}\n'
    )
    assert take_once(table, store).returncode == 0
    shown = {name: json.loads(store.patctl("show", "--json", name)) for name in "ab"}
    assert shown["a"]["scopes"] == ["api:read", "csv:write"]
    assert shown["a"]["cidrs"] == ["192.0.2.0/24", "::1/128"]
    assert shown["a"]["name"] == "CI"
    assert shown["b"]["scopes"] == ["a,b", "c"]
    assert "cidrs" not in shown["b"], "an empty list of ranges means every address"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("digest,id,user\n", 'line 1: unknown column "user"'),
        ("digest,id,subject,id\n", "line 1: a column occurs twice"),
        ("digest,id,subject\n" + digest("a") + ",a\n", "line 2: 2 cells, where the header has 3"),
        ("digest,id,subject\n" + digest("a") + ",a,\n", 'line 2: no field "subject"'),
        ("digest,id,subject\n" + digest("a") + ",a,s", "line 2 has no end"),
        ("digest,id,subject\n" + digest("a") + ',a,"s\n', "line 2: unexpected end of data"),
        ("digest,id,subject,claim.X\n" + digest("a") + ",a,s,x\n", "line 2: claims: "),
        ("digest,id,subject,scopes\n" + digest("a") + ',a,s,"r,w"\n', 'line 2: scopes: "r,w" looks like a list of'),
        ("digest,id,subject,scopes\n" + digest("a") + ',a,s,"{r,NULL}"\n', "line 2: scopes: "),
        ("digest,id,subject,cidrs\n" + digest("a") + ",a,s,10.0.0.1;10.0.0.2\n", "line 2: cidrs: "),
        ("digest,id,subject\n\n\n" + digest("a") + ",a, s\n", "line 4: the subject begins or ends with a blank"),
        ("digest,id,subject,name\n" + digest("a") + ',a,s,"x\n\ny"\n', "line 4: the name must be"),
        ("digest,id,subject\n" + digest("a") + ",a, s\n", "line 2: the subject begins or ends with a blank"),
    ],
)
def test_csv_that_is_wrong(store: Store, tmp_path: Path, text: str, cause: str) -> None:
    table = tmp_path / "tokens.csv"
    table.write_text(text)
    done = take_once(table, store)
    assert done.returncode == 1
    assert cause in done.stderr
    assert store.tokens() == {}


def test_a_check_that_hangs_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patctl = tmp_path / "patctl"
    patctl.write_text("#!/bin/sh\nexec sleep 20\n")
    patctl.chmod(0o755)
    monkeypatch.setattr(check, "_LAST_SECONDS", 0.5)
    with check.Check(patctl, Pulse()) as running, pytest.raises(ApplierFailed, match="it has not checked the file within"):
        running.finish()
