"""The process of the workers' user that looks at a store for nginx, or the owner's that works on one for root, can be
reached by that user, and be taken over through lock.mdb: it has nothing of root's, and what it says is not believed."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
from basics import PATCTL, wait_until
from nginx import Nginx
from store import Store
from test_no_store_stops_nginx import LOOK, SLOWNESS
from users import User, nginx_t, patctl, run, shim

#: Before the store is locked, and so opened, tells of the process what another one of its user could make use of.
TELLS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>
int flock(int locked, int operation) {
    int (*really)(int, int) = dlsym(RTLD_NEXT, "flock");
    char file[100], line[1000];
    snprintf(file, sizeof file, "FOLDER/%d", getpid());
    FILE *to = geteuid() != 0 && (operation & LOCK_EX) ? fopen(file, "w") : NULL;
    if (to != NULL) {
        struct stat info;
        for (int fd = 0; fd < 1000; fd++)
            if (fd != fileno(to) && fstat(fd, &info) == 0)
                fprintf(to, "descriptor: %d %c\\n", fd,
                    S_ISFIFO(info.st_mode) ? 'p' : S_ISCHR(info.st_mode) ? 'c' : info.st_uid != 0 ? 's' : '?');
        fprintf(to, "dumpable: %d\\n", prctl(PR_GET_DUMPABLE));
        FILE *status = fopen("/proc/self/status", "r");
        while (fgets(line, sizeof line, status) != NULL)
            fputs(line, to);
        fclose(status);
        fclose(to);
        link(file, "FOLDER/told");  /* the first one */
    }
    return really(locked, operation);
}
"""


def tells(folder: Path) -> dict[str, str]:
    (folder / "open").mkdir()
    (folder / "open").chmod(0o777)
    return shim(folder, TELLS.replace("FOLDER", f"{folder}/open"))


def has_nothing_of_roots(folder: Path, user: User) -> str:
    told = (folder / "open" / "told").read_text()
    for field in ("Uid", "Gid"):
        number = user.uid if field == "Uid" else user.gid
        assert re.search(rf"^{field}:(\t{number}){{4}}$", told, re.MULTILINE), told
    groups = re.search(r"^Groups:\t(.*)$", told, re.MULTILINE)
    assert groups is not None
    assert {int(group) for group in groups[1].split()} <= {user.gid}, told
    for kind in ("Prm", "Eff", "Amb"):
        assert re.search(rf"^Cap{kind}:\t0+$", told, re.MULTILINE), told
    assert "dumpable: 0\n" in told
    return told


def descriptors(told: str) -> list[str]:
    return re.findall(r"^descriptor: (\d+ .)$", told, re.MULTILINE)


def test_patctl_has_nothing_of_roots(folder: Path, owned_store: Store, attacker: User) -> None:
    command = [PATCTL, "--store", str(owned_store.folder), "issue", "--subject", "alice"]
    subprocess.run(command, env=tells(folder), extra_groups=[0, 4], check=True, timeout=60)
    has_nothing_of_roots(folder, attacker)


def test_a_look_has_nothing_of_roots(folder: Path, owned_store: Store, workers_user: User) -> None:
    command = nginx_t(folder, owned_store.folder, user=workers_user.name)
    done = subprocess.run(command, env=tells(folder), extra_groups=[0, 4], timeout=60)
    assert done.returncode == 0
    told = has_nothing_of_roots(folder, workers_user)
    # Besides /dev/null the pipe, and the folder and open.lock of the store.
    assert descriptors(told) == ["0 c", "1 c", "2 c", "3 p", "4 c", "5 s", "6 s"]


def test_a_look_acts_on_no_signal_as_nginx_does(
    folder: Path, owned_store: Store, workers_user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which writes to the log then, by a number that is that of a file of the store in this process."""
    for name, value in tells(folder).items():
        monkeypatch.setenv(name, value)
    site = "server { listen 127.0.0.1:PORT; location / { auth_pat API; auth_pat_store STORE; try_files /none =204; } }"
    with Nginx(folder, site, STORE=owned_store.folder, user=workers_user.name) as nginx:
        told = folder / "open" / "told"
        assert nginx.request("/", "test") == 401  # so that the worker has opened the store
        told.unlink()
        nginx.process.send_signal(signal.SIGHUP)
        wait_until(told.exists, "the look of a reload")
        assert re.search(r"^SigCgt:\t0+$", told.read_text(), re.MULTILINE), told.read_text()


# ---- what it says

#: One byte of what the process says is another.
LIES = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>
#include <stdlib.h>
ssize_t write(int to, const void *from, size_t length) {
    ssize_t (*really)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    unsigned char said[1000];
    size_t at = atoi(getenv("LIE_AT"));
    if (geteuid() == 0 || to != 3 || length > sizeof said)
        return really(to, from, length);
    memcpy(said, from, length);
    if (at < length)
        said[at] = strtoul(getenv("LIE"), NULL, 16);
    return really(to, said, length);
}
"""


@pytest.mark.parametrize("lie", ["ff", "7f"])
@pytest.mark.parametrize("truth", ["a link", "no rights"])
def test_what_it_says_is_not_believed(folder: Path, owned_store: Store, attacker: User, truth: str, lie: str) -> None:
    if truth == "a link":
        (owned_store.folder / "lock.mdb").unlink()
        victim = folder / "victim"
        victim.write_text("root's\n")
        assert attacker.run(["ln", "-s", victim, owned_store.folder / "lock.mdb"]).returncode == 0
    else:
        owned_store.folder.chmod(0o700)
    command = nginx_t(folder, owned_store.folder, user="www-data")
    env = shim(folder, LIES)
    honest = run(command, env={**env, "LIE_AT": "999", "LIE": lie})
    assert "[warn]" in honest.stderr
    for at in range(64):
        done = run(command, env={**env, "LIE_AT": str(at), "LIE": lie})
        assert done.returncode in (0, 1), (at, done)
        assert "store" in done.stderr, at
        assert len(done.stderr) < len(honest.stderr) + 1000, (at, done.stderr)
        assert done.stderr.replace("\n", "").isprintable(), (at, done.stderr)


# ---- what it costs

HANGS = "#include <unistd.h>\nint flock(int fd, int operation) { return geteuid() != 0 ? pause() : 0; }"
NO_PROCESS = "#include <errno.h>\nint fork(void) { errno = EAGAIN; return -1; }"
NO_USER = "#include <errno.h>\nint setuid(int user) { errno = EPERM; return -1; }"


@pytest.mark.parametrize("how", [HANGS, NO_PROCESS, NO_USER])
def test_many_looks_are_no_longer_than_one(folder: Path, attacker: User, how: str) -> None:
    stores = [Store(folder / f"store{i}", "--owner", attacker.name, "--group", "www-data").folder for i in range(20)]
    begin = time.monotonic()
    done = run(nginx_t(folder, *stores, user="www-data"), env=shim(folder, how))
    assert time.monotonic() - begin < LOOK + SLOWNESS
    assert done.returncode == 0, done
    assert len(re.findall(r"\[warn\]", done.stderr)) == len(stores)
    if how != HANGS:
        assert 'no process of user "www-data" could check it' in done.stderr


def test_it_is_waited_for_where_nobody_waits_for_children(folder: Path, owned_store: Store) -> None:
    """Who starts nginx may ignore SIGCHLD. Then the kernel gives away the numbers of processes that are to be ended."""
    command = ["env", "--ignore-signal=CHLD", *nginx_t(folder, owned_store.folder, user="www-data")]
    trace = run(["strace", "-e", "trace=wait4", "-e", "signal=none", *command]).stderr
    assert re.search(r"wait4\(\d+, NULL, WNOHANG, NULL\) += [1-9]", trace), trace
    assert "ECHILD" not in trace


# ---- what root is told to do


@pytest.mark.parametrize("change", ["group", "modes"])
def test_the_remedy_lends_the_owner_nothing(folder: Path, owned_store: Store, attacker: User, change: str) -> None:
    store = owned_store.folder
    for path in (store, *store.iterdir()):
        if change == "group":
            os.chown(path, attacker.uid, attacker.gid)
        else:
            path.chmod(0o700 if path == store else 0o600)
    command = nginx_t(folder, store, user="www-data")
    told = re.search(r'and group "[^"]*": (.*), used by', run(command).stderr)
    assert told is not None

    calls = "trace=setsid,setgroups,setresgid,setresuid,fchmodat,chmod"
    trace = run(["strace", "-f", "-e", calls, "-e", "signal=none", "-e", "status=successful", "sh", "-c", told[1]]).stderr
    assert "[warn]" not in run(command).stderr
    names = [match[1] for match in re.finditer(r"(\w+)\(", trace)]
    modes = [at for at, name in enumerate(names) if name in ("chmod", "fchmodat")]
    assert set(names[: modes[0]]) == {"setsid", "setgroups", "setresgid", "setresuid"}, trace
    assert f"setresgid({attacker.gid}, {attacker.gid}, {attacker.gid})" in re.sub("-1", str(attacker.gid), trace)


def test_the_remedy_for_a_store_of_roots_makes_it_no_longer_roots(folder: Path, private_accounts: list[str]) -> None:
    """As root would not open it any more once others may."""
    store = folder / "a store's"
    patctl(store, "init", "--owner", "root")
    command = nginx_t(folder, store, user="www-data")
    told = re.search(r'and group "[^"]*": (.*), used by', run(command).stderr)
    assert told is not None
    again = " ".join(shlex.quote(word) for word in command)
    done = run([*private_accounts, f"{told[1]} && stat -c %U:%G:%a {shlex.quote(str(store))}/lock.mdb && {again}"], check=True)
    assert done.stdout == "pat-sync:www-data:660\n"
    assert "[warn]" not in done.stderr


@pytest.mark.parametrize("is_led", [True, False])
def test_no_remedy_opens_what_another_has_led_to(folder: Path, attacker: User, is_led: bool) -> None:
    """Else root would be told to let nginx's workers into a folder of its own, as /root."""
    roots = folder / "roots"
    roots.mkdir(mode=0o700)
    (roots / "api").mkdir()
    theirs = folder / "theirs"
    theirs.mkdir()
    attacker.own(theirs)
    assert attacker.run(["ln", "-s", roots, theirs / "store"]).returncode == 0
    path = theirs / "store" / "api" if is_led else roots / "api"
    said = run(nginx_t(folder, path, user="www-data")).stderr
    assert 'may not enter' in said
    assert ("another user can redirect that path" in said, "chgrp" in said) == (is_led, not is_led), said
