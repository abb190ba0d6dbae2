"""Who can change the way to a store, or to where one is made, leads root to no store of a third user, and to no folder
of root's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from basics import PATCTL
from store import Store
from test_root_opens_no_store_of_others import COMMANDS, command_line, former_store
from users import User, patctl, run, shim

EXPOSED = "root opens no store on whose path others can put another"


@pytest.fixture
def guide(workers_user: User) -> User:
    """Somebody else than the owner of the store."""
    return workers_user


def folder_of(user: User, path: Path) -> Path:
    path.mkdir()
    user.own(path)
    return path


def link_of(user: User, path: Path, to: Path) -> Path:
    assert user.run(["ln", "-s", to, path]).returncode == 0
    return path


@pytest.mark.parametrize("name", COMMANDS)
def test_by_a_link_to_the_store_of_another(folder: Path, owned_store: Store, guide: User, name: str) -> None:
    """Root would work there with that user's rights: what it meant for a store of the guide's would be valid there."""
    path = link_of(guide, folder_of(guide, folder / "theirs") / "store", owned_store.folder)
    done = patctl(path, *command_line(name, folder), input="a" * 40, status=3)
    assert name == "init" or EXPOSED in done.stderr
    assert not (folder / "copy").exists()
    assert owned_store.patctl("list", "--json") == ""


@pytest.mark.parametrize("how", ["folder", "group", "sticky"])
def test_by_a_folder_on_the_way(folder: Path, owned_store: Store, guide: User, how: str) -> None:
    """In which that user can put the store of another in the place of this one."""
    way = folder / "way"
    way.mkdir()
    owned_store.folder.rename(way / "store")
    if how == "folder":
        os.chown(way, guide.uid, guide.gid)
    elif how == "group":
        os.chown(way, 0, guide.gid)
        way.chmod(0o2775)
    else:
        way.chmod(0o777)
    assert EXPOSED in patctl(way / "store", "list", status=3).stderr
    if how == "sticky":
        way.chmod(0o1777)
        patctl(way / "store", "list")


def test_the_owner_leads_to_its_own(folder: Path, owned_store: Store, attacker: User) -> None:
    way = folder_of(attacker, folder / "home")
    way.chmod(0o775)
    owned_store.folder.rename(way / "store")
    patctl(link_of(attacker, way / "link", way / "store"), "list")


def test_by_a_link_of_proc(folder: Path) -> None:
    """Which leads elsewhere than its text says: there, a store is as it should be."""
    good = folder / "store"
    patctl(good, "init", "--owner", "root")
    (folder / "other").mkdir()
    bad = former_store(folder / "other", "www-data")
    command = ["unshare", "--mount", "sh", "-c", 'mount --bind "$1" "$2" && echo mounted && exec cat', "sh", str(bad), str(good)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as elsewhere:
        assert elsewhere.stdout is not None
        if elsewhere.stdout.readline() != "mounted\n":
            pytest.skip("NOT RUN: mounting is not permitted here")
        assert EXPOSED in patctl(Path(f"/proc/{elsewhere.pid}/root{good}"), "list", status=3).stderr
        elsewhere.communicate()


# ---- where something is made


@pytest.mark.parametrize("owner", ["nobody", "www-data", "root"])
@pytest.mark.parametrize("path", ["store", "new/store"])
def test_to_make_a_store_in_a_folder_of_roots(folder: Path, attacker: User, owner: str, path: str) -> None:
    roots = folder / "roots"
    roots.mkdir()
    way = link_of(attacker, folder_of(attacker, folder / "theirs") / "pat", roots)
    patctl(way / path, "init", "--owner", owner, status=3)
    assert list(roots.iterdir()) == []


@pytest.mark.parametrize("path", ["store", "new/store"])
def test_a_store_in_a_folder_of_its_owner_is_made(folder: Path, attacker: User, path: str) -> None:
    store = folder_of(attacker, folder / "home") / path
    patctl(store, "init", "--owner", attacker.name, "--group", "www-data")
    for made in (store, *store.iterdir()):
        assert (made.stat().st_uid, made.stat().st_gid) == (attacker.uid, 33), made
    patctl(store, "list")


#: In the moment after a folder is made, another takes its place.
EXCHANGE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
int mkdir(const char *path, mode_t mode) {
    int (*really)(const char *, mode_t) = dlsym(RTLD_NEXT, "mkdir");
    const int result = really(path, mode);
    if (result == 0 && strcmp(path, "MADE") == 0 && rename("MADE", "MADE.away") == 0)
        rename("OTHER", "MADE");
    return result;
}
"""


@pytest.mark.parametrize("what", ["init", "backup"])
def test_to_give_away_a_folder_of_roots(folder: Path, owned_store: Store, attacker: User, what: str) -> None:
    """Which lies in one of the attacker's, who can give it another name there."""
    theirs = folder_of(attacker, folder / "theirs")
    secrets = theirs / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "key").write_text("secret")
    made = {"init": theirs / "made", "backup": theirs / "made.partial"}[what]
    env = shim(folder, EXCHANGE.replace("MADE", str(made)).replace("OTHER", str(secrets)))
    command = {
        "init": ["--store", str(made), "init", "--owner", attacker.name],
        "backup": ["--store", str(owned_store.folder), "backup", str(theirs / "made")],
    }[what]
    done = run([PATCTL, *command], env=env)
    assert done.returncode == 3, done
    for path in theirs.iterdir():
        if (path / "key").exists():
            assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (0, 0o700), path


@pytest.mark.parametrize("is_roots", [True, False])
def test_to_put_a_backup_where_others_can_touch_it(
    folder: Path, owned_store: Store, attacker: User, is_roots: bool
) -> None:
    theirs = folder_of(attacker, folder / "theirs")
    store = owned_store.folder
    if is_roots:
        store = folder / "roots"
        patctl(store, "init", "--owner", "root")
    done = patctl(store, "backup", str(theirs / "copy"), status=3)
    assert "other users can replace a folder on its path" in done.stderr
    assert list(theirs.iterdir()) == []
