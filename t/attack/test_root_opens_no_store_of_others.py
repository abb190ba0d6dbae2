"""Root does not open a store that another user can touch: it becomes that user first, or refuses."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
from basics import PATCTL
from nginx import Nginx
from store import Store
from users import User, nginx_t, patctl, run

FILES = ("data.mdb", "lock.mdb", "open.lock")

COMMANDS: dict[str, tuple[str, ...]] = {
    "init": ("init",),
    "issue": ("issue", "--subject", "alice"),
    "rotate": ("rotate", "pat_none"),
    "import": ("import", "-"),
    "export": ("export",),
    "revoke": ("revoke", "--subject", "alice"),
    "restore-access": ("restore-access", "--subject", "alice"),
    "show": ("show", "pat_none"),
    "list": ("list",),
    "check": ("check",),
    "stats": ("stats",),
    "verify": ("verify",),
    "backup": ("backup", "{folder}/copy"),
    "gc": ("gc",),
    "apply": ("apply",),
}


def command_line(name: str, folder: Path) -> list[str]:
    return [word.format(folder=folder) for word in COMMANDS[name]]


def opened_by_root(trace: str, store: Path) -> list[str]:
    """The calls by which a process opened a file of the store before it had become another user."""
    found = []
    unprivileged: set[str] = set()
    for line in trace.splitlines():
        match = re.match(r"(\d+) +(\w+)\((.*)", line)
        if match is None:
            continue
        pid, call, rest = match.groups()
        if call in ("setuid", "setresuid") and not rest.startswith("0") and "= 0" in rest:
            unprivileged.add(pid)
        elif call in ("fork", "vfork", "clone", "clone3") and pid in unprivileged:
            if child := re.search(r"= (\d+)$", rest):
                unprivileged.add(child.group(1))
        elif call in ("open", "openat") and pid not in unprivileged and "O_PATH" not in rest:
            if any(f'"{store}/{file}"' in rest or f'"{file}"' in rest for file in FILES):
                found.append(line)
    return found


def traced(folder: Path, command: list[str]) -> str:
    """The calls of a program and its children that open files or change the user."""
    trace = folder / "trace"
    calls = "trace=open,openat,setuid,setresuid,fork,vfork,clone,clone3"
    run(["strace", "-f", "-o", str(trace), "-e", calls, *command], input="a" * 40)
    return trace.read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_patctl_becomes_the_owner_first(folder: Path, owned_store: Store, name: str) -> None:
    command = [PATCTL, "--store", str(owned_store.folder), *command_line(name, folder)]
    trace = traced(folder, command)
    assert "lock.mdb" in trace
    assert opened_by_root(trace, owned_store.folder) == []


def test_nginx_becomes_the_workers_user_first(folder: Path, owned_store: Store) -> None:
    trace = traced(folder, nginx_t(folder, owned_store.folder, user="www-data"))
    assert "lock.mdb" in trace
    assert opened_by_root(trace, owned_store.folder) == []


def test_a_worker_of_root_refuses(folder: Path, owned_store: Store) -> None:
    """And says why; nginx -t did before."""
    token = owned_store.issue()
    site = "server { listen 127.0.0.1:PORT; location / { auth_pat API; auth_pat_store STORE; try_files /none =204; } }"
    with Nginx(folder, site, STORE=owned_store.folder) as nginx:
        assert nginx.request("/", "test", headers=token.header) == 503
        nginx.logged(r'\[crit\].*the store belongs to another user, and root opens only its own')
        worker = nginx.workers()[0]
        assert str(owned_store.folder) not in Path(f"/proc/{worker}/maps").read_text()
    answer = run(nginx_t(folder, owned_store.folder, user="root"))
    assert answer.returncode == 0
    assert re.search(r"\[warn\].*the store belongs to another user, and root opens only its own", answer.stderr)


# ---- a store of root's


def test_roots_store_is_for_root_alone(folder: Path) -> None:
    store = folder / "store"
    patctl(store, "init", "--owner", "root")
    for file in FILES:
        info = (store / file).stat()
        assert (info.st_uid, info.st_mode & 0o022) == (0, 0), file
    patctl(store, "issue", "--subject", "alice")


def test_roots_store_has_no_group(folder: Path) -> None:
    refused = patctl(folder / "store", "init", "--owner", "root", "--group", "www-data", status=2)
    assert "root opens no store that a group may use" in refused.stderr
    assert not (folder / "store").exists()


def former_store(folder: Path, group: str) -> Path:
    """As root's patctl made it before, with a path that a shell must be told of."""
    store = folder / "a store's"
    patctl(store, "init", "--owner", "root")
    token = patctl(store, "issue", "--subject", "alice").stdout
    (folder / "token").write_text(token)
    run(["chgrp", "-R", group, str(store)], check=True)
    (store / "lock.mdb").chmod(0o660)
    return store


def told_command(text: str) -> str:
    match = re.search(r"give it to a user of its own: (.*?)(, used by .*)?$", text, re.MULTILINE)
    assert match is not None, text
    return match.group(1)


@pytest.mark.parametrize("group", ["root", "www-data"])
@pytest.mark.parametrize("from_nginx", [False, True])
def test_a_former_store_is_refused_with_the_command_that_repairs_it(
    folder: Path, group: str, from_nginx: bool, private_accounts: list[str]
) -> None:
    store = former_store(folder, group)
    if from_nginx:
        said = run(nginx_t(folder, store, user="root")).stderr
    else:
        said = patctl(store, "list", status=3).stderr
    assert "opens no store that others may write to" in said

    # The command may make a user: this host's are not touched.
    run([*private_accounts, f"{told_command(said)} && {PATCTL} --store '{folder}/a store'\\''s' list"], check=True)
    assert (store / "lock.mdb").stat().st_gid == (33 if group == "www-data" else 0)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("change", ["mode", "owner", "acl"])
def test_each_file_counts(folder: Path, attacker: User, file: str, change: str) -> None:
    store = folder / "store"
    patctl(store, "init", "--owner", "root")
    if change == "mode":
        (store / file).chmod(0o642)
    elif change == "owner":
        os.chown(store / file, attacker.uid, -1)
    else:
        run(["setfacl", "-m", f"u:{attacker.name}:rw", str(store / file)], check=True)
    assert "opens no store that others may write to" in patctl(store, "list", status=3).stderr


@pytest.mark.parametrize("change", ["folder", "parent", "link", "sticky"])
def test_nobody_can_put_another_in_its_place(folder: Path, attacker: User, change: str) -> None:
    parent = folder / "parent"
    parent.mkdir()
    store = parent / "store"
    patctl(store, "init", "--owner", "root")
    path = store
    if change == "folder":
        store.chmod(0o2777)
    elif change == "parent":
        os.chown(parent, attacker.uid, attacker.gid)
    elif change == "link":
        path = folder / "link"
        path.symlink_to(store)
        os.chown(path, attacker.uid, attacker.gid, follow_symlinks=False)
        folder.chmod(0o1777)
    else:
        parent.chmod(0o777)
    said = patctl(path, "list", status=3).stderr
    # With fs.protected_symlinks, which systemd switches on, root cannot follow the link.
    assert re.search(r"root opens no store|opens no store that" + "|may not follow the link" * (change == "link"), said)
    if change == "sticky":
        parent.chmod(0o1777)
        patctl(path, "list")


def test_a_link_that_leads_where_the_user_may_not_go_is_named(folder: Path, attacker: User) -> None:
    roots = folder / "roots"
    roots.mkdir(mode=0o700)
    patctl(roots / "store", "init", "--owner", "root")
    link = folder / "link"
    link.symlink_to(roots / "store")
    said = attacker.run([PATCTL, "--store", link, "list"]).stderr
    assert said.endswith(f'Permission denied: user "{attacker.name}" may not follow the link "{link}"\n')


def test_a_link_leads_to_the_owner_of_what_it_leads_to(folder: Path, owned_store: Store, attacker: User) -> None:
    link = folder / "link"
    link.symlink_to(owned_store.folder)
    trace = traced(folder, [PATCTL, "--store", str(link), "list"])
    assert opened_by_root(trace, link) == []
    assert re.search(rf"setresuid\({attacker.uid}, {attacker.uid}, {attacker.uid}\)", trace)


# ---- what is the caller's stays the caller's


def test_the_pepper_is_read_as_the_caller(folder: Path, attacker: User) -> None:
    pepper = folder / "pepper"
    pepper.write_text("a" * 64)
    pepper.chmod(0o600)
    store = folder / "store"
    patctl(store, "--pepper-file", str(pepper), "init", "--owner", attacker.name)
    token = patctl(store, "--pepper-file", str(pepper), "issue", "--subject", "alice").stdout.strip()
    assert patctl(store, "--pepper-file", str(pepper), "check", input=token).stdout.startswith("ok")
    assert {file.stat().st_uid for file in (store, *store.iterdir())} == {attacker.uid}


def test_input_and_output_are_opened_as_the_caller(folder: Path, owned_store: Store) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    owned_store.issue()
    with (closed / "tokens").open("w") as output:
        subprocess.run(
            [PATCTL, "--store", owned_store.folder, "export"], stdout=output, check=True, timeout=60
        )
    (closed / "tokens").chmod(0o600)
    assert "imported 1 records" in patctl(owned_store.folder, "import", str(closed / "tokens")).stderr


def test_a_backup_lies_where_the_caller_may_write_and_belongs_to_the_owner(
    folder: Path, owned_store: Store, attacker: User
) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    token = owned_store.issue()
    patctl(owned_store.folder, "backup", str(closed / "copy"))
    assert [path.name for path in closed.iterdir()] == ["copy"]
    original = owned_store.folder.stat()
    for path in (closed / "copy", *(closed / "copy").iterdir()):
        assert (path.stat().st_uid, path.stat().st_gid) == (original.st_uid, original.st_gid), path

    # It can take the place of the store.
    (closed / "copy").rename(folder / "restored")
    assert stat.S_IMODE((folder / "restored").stat().st_mode) == 0o2750
    assert patctl(folder / "restored", "check", input=token.token).stdout.startswith("ok")


# ---- making one


def test_a_store_with_a_group_belongs_to_a_user_of_its_own(folder: Path, private_accounts: list[str]) -> None:
    """By default to the one that the installation makes; without it, the error says what to do."""
    command = f"{PATCTL} --store {folder}/store init --group www-data"
    said = run([*private_accounts, f"userdel pat-sync 2>/dev/null; {command}"])
    assert (said.returncode, "--owner" in said.stderr) == (2, True), said
    assert not (folder / "store").exists()

    make = re.search(r'\("(useradd [^"]*)"\)', said.stderr)
    assert make is not None
    done = run([*private_accounts, f"{make.group(1)} && {command} && stat -c %U:%G:%a {folder}/store/*"], check=True)
    assert done.stdout.split() == ["pat-sync:www-data:640", "pat-sync:www-data:660", "pat-sync:www-data:640"]


def test_a_folder_of_others_is_not_taken(folder: Path, attacker: User) -> None:
    """Neither given away, if a link of the attacker leads to it, nor taken from whom it belongs to."""
    (folder / "empty").mkdir()
    (folder / "theirs").mkdir()
    attacker.own(folder / "theirs")
    (folder / "theirs" / "store").symlink_to(folder / "empty")
    os.chown(folder / "theirs" / "store", attacker.uid, attacker.gid, follow_symlinks=False)

    patctl(folder / "theirs" / "store", "init", "--owner", attacker.name, status=3)
    assert (folder / "empty").stat().st_uid == 0
    patctl(folder / "theirs", "init", "--owner", "www-data", status=3)
    assert (folder / "theirs").stat().st_uid == attacker.uid
