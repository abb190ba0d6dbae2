"""Other users of the host: attackers, and those whom services run as."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from basics import NGINX, PATCTL, free_port
from nginx import load_modules, quote, temporary_paths


class User:
    """Somebody without privileges on this host."""

    def __init__(self, name: str) -> None:
        entry = pwd.getpwnam(name)
        self.name = name
        self.uid = entry.pw_uid
        self.gid = entry.pw_gid

    def run(self, command: Sequence[object], **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs a program as this user, without any other group; it may fail."""
        return subprocess.run(
            [str(word) for word in command],
            capture_output=True,
            text=True,
            timeout=60,
            user=self.uid,
            group=self.gid,
            extra_groups=[],
            **options,
        )

    def own(self, path: Path) -> None:
        """Makes a file or folder, with all that is in it, this user's."""
        for found in (path, *path.rglob("*")):
            os.chown(found, self.uid, self.gid, follow_symlinks=False)


def run(
    command: Sequence[str], input: str | None = None, check: bool = False, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a program as root."""
    done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=120, env=env)
    assert not check or done.returncode == 0, (command, done)
    return done


def patctl(store: Path, *arguments: str, input: str = "", status: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Runs patctl as root; it must end with this status, if one is given."""
    done = run([PATCTL, "--store", str(store), *arguments], input)
    assert status is None or done.returncode == status, (arguments, done)
    return done


def nginx_conf(folder: Path, *stores: Path, user: str) -> Path:
    """A configuration that uses these stores, each in a location of its number."""
    locations = "".join(
        f"location = /{number} {{ auth_pat API; auth_pat_store {quote(store)}; try_files /nowhere =204; }}\n"
        for number, store in enumerate(stores)
    )
    conf = folder / "trial.conf"
    conf.write_text(f"""
        {load_modules()}
        user {user};
        pid {folder}/trial.pid;
        error_log stderr;
        events {{}}
        http {{
            {temporary_paths(folder)}
            access_log off;
            server {{ listen 127.0.0.1:{free_port()}; {locations} }}
        }}
        """)
    return conf


def nginx_t(folder: Path, *stores: Path, user: str) -> list[str]:
    """The command by which root tests that configuration."""
    conf = nginx_conf(folder, *stores, user=user)
    return [NGINX, "-t", "-p", str(folder), "-c", str(conf), "-e", "stderr"]


def shim(folder: Path, source: str) -> dict[str, str]:
    """The environment of a program that has these functions in place of the C library's: what an attacker does in a
    moment that must be hit, it does."""
    (folder / "shim.c").write_text(source)
    library = folder / "shim.so"
    run(["cc", "-shared", "-fPIC", "-o", str(library), str(folder / "shim.c")], check=True)
    return {**os.environ, "LD_PRELOAD": str(library)}
