"""Other users of the host: attackers, and those whom services run as."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any


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
