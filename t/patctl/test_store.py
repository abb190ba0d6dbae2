"""init, import, export, list, stats, verify, backup and gc."""

from __future__ import annotations

import grp
import hashlib
import json
import os
import signal
import stat
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from basics import PATCTL
from conftest import FAULT, NO, USAGE, Patctl

PEPPER = "00112233445566778899aabbccddeeff" * 2


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def record(number: int, **more: object) -> dict[str, object]:
    return {"digest": digest(number), "id": str(number), "subject": f"s{number}", **more}


def modes(folder: Path) -> dict[str, str]:
    paths = {".": folder, **{path.name: path for path in folder.iterdir()}}
    return {name: oct(stat.S_IMODE(path.stat().st_mode)) for name, path in paths.items()}


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    store = tmp_path / "new" / "folders" / "store"
    command = [PATCTL, "--store", str(store), "init", "--owner", str(os.geteuid())]
    subprocess.run(command, umask=umask, check=True, capture_output=True)
    lock = "0o600" if os.geteuid() == 0 else "0o660"  # nobody but root may touch what root opens
    assert modes(store) == {".": "0o2750", "data.mdb": "0o640", "lock.mdb": lock, "open.lock": "0o640"}
    for folder in (store.parent, store.parent.parent):
        assert oct(stat.S_IMODE(folder.stat().st_mode)) == "0o755"


def test_init_says_which_folder_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = Patctl(tmp_path / "file" / "folder" / "store").run("init", status=FAULT)
    assert f'folder "{tmp_path}/file/folder" can\'t be made: Not a directory' in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to any group")
def test_files_belong_to_the_group() -> None:
    with tempfile.TemporaryDirectory(prefix="auth-pat-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the owner must be able to enter it
        patctl = Patctl(folder / "store")
        patctl.run("init", "--owner", "nobody", "--group", "www-data")
        number = grp.getgrnam("www-data").gr_gid
        assert {path.stat().st_gid for path in [patctl.store, *patctl.store.iterdir()]} == {number}
        assert modes(patctl.store)["lock.mdb"] == "0o660"

        patctl.run("backup", str(folder / "copy"))
        assert {path.stat().st_gid for path in [folder / "copy", *(folder / "copy").iterdir()]} == {number}
        assert modes(folder / "copy") == modes(patctl.store)


def test_init_leaves_what_is_there_alone(patctl: Patctl, tmp_path: Path) -> None:
    token = patctl.issue()
    assert "a store already" in patctl.run("init", status=FAULT).stderr
    assert patctl.verdict(token) == "ok"

    other = Patctl(tmp_path / "other")
    other.store.mkdir()
    (other.store / "precious").touch()
    assert "other files" in other.run("init", status=FAULT).stderr
    assert [path.name for path in other.store.iterdir()] == ["precious"]


def test_a_pepper_must_be_the_one_the_store_was_made_with(tmp_path: Path) -> None:
    right, wrong, short = (tmp_path / name for name in ("right", "wrong", "short"))
    for path, text in ((right, PEPPER), (wrong, PEPPER[::-1]), (short, PEPPER[:40])):
        path.write_text(text + "\n")
        path.chmod(0o600)

    patctl = Patctl(tmp_path / "store")
    patctl.run("init", "--pepper-file", str(right))
    token = patctl.issue("--pepper-file", str(right))

    assert patctl.verdict(token, "--pepper-file", str(right)) == "ok"
    for pepper in ((), ("--pepper-file", str(wrong))):
        assert patctl.verdict(token, *pepper) == "store_error"
        assert "pepper does not match" in patctl.run("issue", "--subject", "a", *pepper, status=FAULT).stderr
        assert "pepper does not match" in patctl.run("revoke", "--token-stdin", *pepper, input=token, status=FAULT).stderr
    assert "hexadecimal" in patctl.run("issue", "--subject", "a", "--pepper-file", str(short), status=USAGE).stderr
    assert len(patctl.json("list")) == 1
    right.chmod(0o644)
    assert "can be read by everyone" in patctl.run("issue", "--subject", "a", "--pepper-file", str(right)).stderr


def test_export_and_import_give_the_same_store(patctl: Patctl, tmp_path: Path) -> None:
    patctl.load(
        record(1),
        record(2, name="ü", scopes=["a", "b"], cidrs=["10.0.0.0/8", "2001:db8::/32"], claims={"x": "1", "y": ""}, seq=7),
        record(3, issued_at=1, not_before=2, expires_at=3, revoked_at=4, local_revoked_at=5),
        record(4, expires_at="2030-01-01T00:00:00.5Z"),
    )
    first = patctl.run("export").stdout
    assert first.count("\n") == 4

    other = Patctl(tmp_path / "other")
    other.run("init")
    other.run("import", "-", input=first)
    assert other.run("export").stdout == first
    assert other.json("stats")[0]["meta_revoked"] == 1


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"id":"1","subject":"s"}', "digest"),
        ('{"digest":"xy","id":"1","subject":"s"}', "digest"),
        (json.dumps(record(1, id="")), "id"),
        (json.dumps(record(1, subject="a\u0000b")), "subject"),
        (json.dumps(record(1, extra=1)), 'unknown field "extra"'),
        (json.dumps(record(1, scopes="a")), "scopes"),
        (json.dumps(record(1, cidrs=["10.0.0.1/8"])), "10.0.0.0/8"),
        (json.dumps(record(1, expires_at=-1)), "expires_at"),
        (json.dumps(record(1, expires_at="2026-02-30T00:00:00Z")), "expires_at"),
        (json.dumps(record(1, claims={"A": "1"})), "claim"),
        (json.dumps(record(1, seq=-1)), "seq"),
        (json.dumps(record(1, name="x" * 70000)), "longer than 65536 bytes"),
        ('{"token":"aaaaaaaaaaaaaaaaaaaa","id":"1","subject":"s"}', "--plaintext"),
    ],
)
def test_a_bad_line_is_named_with_its_cause_and_left_out(patctl: Patctl, line: str, cause: str) -> None:
    lines = json.dumps(record(7)) + "\n" + line + "\n" + json.dumps(record(8))

    strict = patctl.run("import", "--strict", "-", input=lines, status=NO)
    assert "line 2: " in strict.stderr and cause in strict.stderr
    dry = patctl.run("import", "--dry-run", "-", input=lines, status=NO)
    assert dry.stderr == strict.stderr.splitlines(keepends=True)[0] + "patctl: 1 line was refused\n"
    assert patctl.json("list") == []

    partly = patctl.run("import", "-", input=lines, status=NO).stderr
    assert partly.endswith("\npatctl: imported 2 records, 2 of them new; 1 line was refused\n")
    assert patctl.run("import", "--lenient", "-", input=lines).stderr.endswith("; 1 line was refused\n")
    assert {token["id"] for token in patctl.json("list")} == {"7", "8"}
    for other in ("--strict", "--dry-run"):
        patctl.run("import", "--lenient", other, "-", input=lines, status=USAGE)


def test_a_dry_run_needs_no_store_and_finds_what_is_good(tmp_path: Path) -> None:
    nowhere = Patctl(tmp_path / "nowhere")
    good = json.dumps(record(7)) + "\n"
    assert nowhere.run("import", "--dry-run", "-", input=good).stderr == ""
    plaintext = '{"token":"aaaaaaaaaaaaaaaaaaaa","id":"1","subject":"s"}'
    nowhere.run("import", "--dry-run", "--plaintext", "-", input=plaintext)
    nowhere.run("import", "--dry-run", "--plaintext", "-", input=good, status=NO)
    nowhere.run("import", "--dry-run", "--local-revocations", "-", status=USAGE)
    assert not nowhere.store.exists()


def test_lines_may_have_dos_ends_a_byte_order_mark_and_blank_lines(patctl: Patctl) -> None:
    text = b"\xef\xbb\xbf" + json.dumps(record(1)).encode() + b"\r\n\r\n" + json.dumps(record(2)).encode() + b"\r\n"
    patctl.run("import", "--strict", "-", input=text)
    assert len(patctl.json("list")) == 2
    assert "line 1: " in patctl.run("import", "--strict", "-", input=b'{"digest":"\xff"}\n', status=NO).stderr


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1798761600", 1798761600),
        ('"1798761600"', 1798761600),
        ('"2027-01-01T00:00:00Z"', 1798761600),
        ('"2027-01-01t00:00:00z"', 1798761600),
        ('"2027-01-01 01:00:00+01:00"', 1798761600),
        ('"2026-12-31T20:30:00-03:30"', 1798761600),
        ('"2027-01-01T00:00:00.999Z"', 1798761600),
        ('"2016-12-31T23:59:60Z"', 1483228800),
        ('"2028-02-29T00:00:00Z"', 1835395200),
        ("253402300799", 253402300799),
        ("null", None),
        ("0", "later than"),
        ("-1", "later than"),
        ("1.5", "neither"),
        ("true", "neither"),
        ("253402300800", "outside the years 1970 to 9999"),
        ("18446744073709551615", "between 1970 and 9999"),
        ('""', "neither"),
        ('"2027-01-01"', "neither"),
        ('"2027-01-01T00:00:00"', "neither"),
        ('"2027-02-29T00:00:00Z"', "neither"),
        ('"2027-01-01T24:00:00Z"', "neither"),
        ('"2027-01-01T12:00:60Z"', "neither"),
        ('"2027-01-01T00:00:00Zx"', "neither"),
    ],
)
def test_times(patctl: Patctl, text: str, seconds: int | str | None) -> None:
    line = json.dumps(record(1))[:-1] + f', "expires_at": {text}}}'
    if isinstance(seconds, str):
        assert seconds in patctl.run("import", "--strict", "-", input=line, status=NO).stderr
    else:
        patctl.run("import", "--strict", "-", input=line)
        assert patctl.json("list")[0].get("expires_at") == seconds


@pytest.mark.parametrize("line", [b"\0", b'{"digest":"\0"}', b'{"id":"\xed\xa0\x80"}', b'{"id":"\xc0\xaf"}'])
def test_bytes_that_json_can_not_have(patctl: Patctl, line: bytes) -> None:
    assert "line 1: not JSON" in patctl.run("import", "--strict", "-", input=line + b"\n", status=NO).stderr


def test_a_line_of_65536_bytes_is_read_and_a_longer_one_does_not_harm_the_next(patctl: Patctl) -> None:
    line = json.dumps(record(1)).encode()
    longest, longer = line.ljust(65536), line.ljust(3_000_000)
    patctl.run("import", "--strict", "-", input=longest + b"\r\n")
    after = json.dumps(record(2)).encode()
    for end in (b"\n" + after, b"\n" + after + b"\n"):
        assert "line 1: longer" in patctl.run("import", "--lenient", "-", input=longer + end).stderr
    assert {token["id"] for token in patctl.json("list")} == {"1", "2"}
    assert "line 1: longer" in patctl.run("import", "--strict", "-", input=longer, status=NO).stderr
    assert "line 1: longer" in patctl.run("import", "--strict", "-", input=line.ljust(65537), status=NO).stderr


def test_plaintext_lines_hold_tokens_which_no_message_repeats(patctl: Patctl) -> None:
    token = "a-token-of-another-system"
    good = json.dumps({"token": token, "id": "1", "subject": "s"})
    patctl.run("import", "--strict", "--plaintext", "-", input=good)
    assert patctl.verdict(token) == "ok"
    assert patctl.json("list")[0]["digest"] == hashlib.sha256(token.encode()).hexdigest()

    for bad in (good[:-1], good[:-1] + ', "x": 1}', good.replace(token, token + "!!"), good.replace(token, token * 30)):
        done = patctl.run("import", "--strict", "--plaintext", "-", input=bad, status=NO)
        assert token not in done.stdout + done.stderr
    assert "--plaintext" in patctl.run("import", "--plaintext", "--strict", "-", input=json.dumps(record(1)), status=NO).stderr


def test_of_two_lines_with_one_digest_the_last_counts(patctl: Patctl) -> None:
    lines = "".join(json.dumps(record(1, name=name)) + "\n" for name in ("first", "second"))
    assert "line 1: line 2 has the same digest" in patctl.run("import", "-", input=lines).stderr
    assert [token["name"] for token in patctl.json("list")] == ["second"]


def test_an_import_replaces_but_does_not_undo_a_local_revocation(patctl: Patctl) -> None:
    patctl.load(record(1, seq=9), record(2))
    patctl.run("revoke", "1")
    patctl.load(record(1, name="new"), record(2, name="new"))
    first, second = sorted(patctl.json("list"), key=lambda token: str(token["id"]))
    assert (first["name"], first["status"]) == ("new", "revoked")
    assert (second["name"], second["status"]) == ("new", "ok")


def test_list_and_stats_tell_states(patctl: Patctl) -> None:
    now = int(time.time())
    patctl.load(record(1), record(2, expires_at=now - 1), record(3, revoked_at=now), record(4, not_before=now + 999))
    for number, status in enumerate(("ok", "expired", "revoked", "not_yet_valid"), 1):
        assert [token["id"] for token in patctl.json("list", "--status", status)] == [str(number)]
    assert [token["id"] for token in patctl.json("list", "--subject", "s2")] == ["2"]
    assert len(patctl.json("list", "--limit", "3")) == 3

    (stats,) = patctl.json("stats")
    assert [stats[state] for state in ("ok", "expired", "revoked", "not_yet_valid", "damaged")] == [1, 1, 1, 1, 0]
    assert (stats["meta_tokens"], stats["meta_revoked"], stats["heartbeat"]) == (4, 1, None)
    assert "never" in patctl.run("stats").stdout


def test_verify_finds_a_damaged_record(patctl: Patctl) -> None:
    patctl.load(*(record(number, name="spoil me") for number in range(3)))
    assert "no damage" in patctl.run("verify").stdout

    data = patctl.store / "data.mdb"
    bytes_ = bytearray(data.read_bytes())
    at = -1
    while (at := bytes_.find(b"spoil me", at + 1)) >= 0:
        bytes_[at] ^= 1
    data.write_bytes(bytes_)

    found = patctl.json("verify", status=NO)
    assert {line["digest"] for line in found[:-1]} == {digest(number) for number in range(3)}
    assert all("checksum" in line["cause"] for line in found[:-1])


def test_import_repairs_a_damaged_record_and_export_says_that_it_lacks_one(patctl: Patctl) -> None:
    patctl.load(record(1, name="spoil me"), record(2))
    data = patctl.store / "data.mdb"
    data.write_bytes(data.read_bytes().replace(b"spoil me", b"spoiled!"))

    done = patctl.run("export", status=FAULT)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ["2"]
    assert "lacks 1 damaged" in done.stderr
    assert patctl.json("stats")[0]["damaged"] == 1

    assert digest(1) in patctl.run("import", "-", input=json.dumps(record(1, name="new"))).stderr
    patctl.run("verify")
    assert patctl.run("export").stdout.count("\n") == 2


def test_a_backup_is_a_store(patctl: Patctl, tmp_path: Path) -> None:
    token = patctl.issue()
    copy = Patctl(tmp_path / "copy")
    patctl.run("backup", str(copy.store))
    assert copy.verdict(token) == "ok"
    copy.run("revoke", "--token-stdin", input=token)
    assert patctl.verdict(token) == "ok"
    assert "already exists" in patctl.run("backup", str(copy.store), status=FAULT).stderr


def test_gc_keeps_what_only_this_host_has_revoked(patctl: Patctl) -> None:
    now = int(time.time())
    old = now - 100 * 86400
    patctl.load(
        record(1), record(2, expires_at=old), record(3, revoked_at=old), record(4, local_revoked_at=old),
        record(5, revoked_at=old, local_revoked_at=old), record(6, expires_at=old, local_revoked_at=old),
        record(7, expires_at=now - 86400),
    )
    assert patctl.run("gc", "--dry-run").stdout == "would remove 3 tokens\n"
    assert len(patctl.json("list")) == 7
    assert patctl.run("gc").stdout == "removed 3 tokens\n"
    assert {token["id"] for token in patctl.json("list")} == {"1", "4", "5", "7"}
    patctl.run("verify")


def test_a_full_disk_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        patctl = Patctl(disk / "store")
        patctl.run("init")
        token = patctl.issue()
        lines = "".join(json.dumps(record(number)) + "\n" for number in range(20000))
        assert "disk full" in patctl.run("import", "-", input=lines, status=FAULT).stderr
        assert patctl.verdict(token) == "ok"
        patctl.run("verify")

        subprocess.run(["mount", "-o", "remount,size=32m", str(disk)], check=True)
        patctl.run("import", "-", input=lines)
        assert patctl.json("stats")[0]["meta_tokens"] == 20001
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_an_import_that_is_killed_leaves_a_whole_store(patctl: Patctl) -> None:
    token = patctl.issue()
    lines = "".join(json.dumps(record(number)) + "\n" for number in range(50000)).encode()

    for delay in (0.0, 0.02, 0.05, 0.1, 0.2):
        importing = subprocess.Popen([PATCTL, "--store", str(patctl.store), "import", "-"], stdin=subprocess.PIPE,
                                     stderr=subprocess.DEVNULL)
        assert importing.stdin is not None
        importing.stdin.write(lines)
        importing.stdin.close()
        end = time.monotonic() + delay
        while importing.poll() is None and time.monotonic() < end:
            time.sleep(0.001)
        importing.send_signal(signal.SIGKILL)
        importing.wait()

        assert patctl.verdict(token) == "ok"
        patctl.run("verify")
        assert patctl.json("stats")[0]["meta_tokens"] in (1, 50001)
        patctl.run("revoke", "--subject", "alice")
        patctl.run("restore-access", "--subject", "alice")
