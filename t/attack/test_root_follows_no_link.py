"""Links that the owner of a store puts in place of its files lead root nowhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from basics import ROOT
from store import Store
from test_root_opens_no_store_of_others import COMMANDS, FILES, command_line
from users import User, nginx_t, patctl, run

SECRET = "what only root may read"
BYTES = SECRET.encode() * 1000


@pytest.fixture
def victim(folder: Path) -> Path:
    """A file of root's."""
    path = folder / "victim"
    path.write_bytes(BYTES)
    path.chmod(0o600)
    return path


def untouched(victim: Path, content: bytes = BYTES) -> None:
    info = victim.stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o7777) == (0, 0, 0o600)
    assert victim.read_bytes() == content


def put_in_place(store: Path, file: str, victim: Path, attacker: User) -> bytes:
    """What the link then leads to. In place of data.mdb it is that of a store of root's: nothing else would be used."""
    if file == "data.mdb":
        roots = Store(victim.parent / "roots")
        roots.issue("--subject", "alice", "--name", SECRET)
        victim.write_bytes((roots.folder / file).read_bytes())
    (store / file).unlink()
    assert attacker.run(["ln", "-s", victim, store / file]).returncode == 0
    return victim.read_bytes()


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", COMMANDS)
def test_not_patctl(folder: Path, owned_store: Store, victim: Path, attacker: User, file: str, name: str) -> None:
    content = put_in_place(owned_store.folder, file, victim, attacker)
    done = patctl(owned_store.folder, *command_line(name, folder), status=None)
    untouched(victim, content)
    assert SECRET not in done.stdout + done.stderr
    assert not (folder / "copy").exists()


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("user", ["www-data", "root"])
def test_not_nginx(folder: Path, owned_store: Store, victim: Path, attacker: User, file: str, user: str) -> None:
    content = put_in_place(owned_store.folder, file, victim, attacker)
    tested = run(nginx_t(folder, owned_store.folder, user=user))
    assert tested.returncode == 0, tested.stderr
    assert "[warn]" in tested.stderr
    untouched(victim, content)


def test_not_where_a_backup_goes(folder: Path, owned_store: Store, victim: Path, attacker: User) -> None:
    """In a folder of the attacker's, who knows the name that it has until it is complete."""
    theirs = folder / "theirs"
    theirs.mkdir()
    attacker.own(theirs)
    assert attacker.run(["ln", "-s", victim, theirs / "copy.partial"]).returncode == 0
    patctl(owned_store.folder, "backup", str(theirs / "copy"), status=3)
    untouched(victim)


@pytest.mark.parametrize("how", ["ln -s", "mkfifo", "ln"])
def test_not_where_metrics_go(folder: Path, victim: Path, attacker: User, how: str) -> None:
    """Of a pat-sync that root runs, in a folder of the attacker's, as that of node_exporter may be."""
    theirs = folder / "theirs"
    theirs.mkdir()
    attacker.own(theirs)
    new = theirs / ".pat-sync.prom.new"
    if how == "ln":
        new.hardlink_to(victim)
    else:
        assert attacker.run([*how.split(), *([victim] if how == "ln -s" else []), new]).returncode == 0
    writes = "import pathlib, sys; from pat_sync.metrics import Metrics; Metrics().write(pathlib.Path(sys.argv[1]))"
    command = ["timeout", "20", sys.executable, "-c", writes, str(theirs / "pat-sync.prom")]
    run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")})
    untouched(victim)
    assert "pat_sync_applied_total" in (theirs / "pat-sync.prom").read_text()


def test_not_a_folder_that_is_a_link(folder: Path, owned_store: Store, victim: Path, attacker: User) -> None:
    """Even if it leads to root's own folder, from which nothing is made a store."""
    roots = folder / "roots"
    roots.mkdir()
    (roots / "data.mdb").write_bytes(BYTES)
    (roots / "data.mdb").chmod(0o600)
    assert attacker.run(["ln", "-s", roots, owned_store.folder / "link"]).returncode == 0
    for name in COMMANDS:
        patctl(owned_store.folder / "link", *command_line(name, folder), status=None)
        untouched(roots / "data.mdb")
    assert [path.name for path in roots.iterdir()] == ["data.mdb"]
