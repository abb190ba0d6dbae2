"""Runs the real patctl (the environment variable PATCTL says which) on stores in temporary folders."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from basics import PATCTL

YES, NO, USAGE, FAULT = range(4)


class Patctl:
    """A store, and the program that writes it."""

    def __init__(self, store: Path) -> None:
        self.store = store

    def run(self, *arguments: str, input: str | bytes = "", status: int = YES) -> subprocess.CompletedProcess[str]:
        """Runs a command, which must end with this status. A new store belongs to who runs the tests."""
        if "init" in arguments and "--owner" not in arguments:
            arguments = (*arguments, "--owner", str(os.geteuid()))
        data = input.encode() if isinstance(input, str) else input
        raw = subprocess.run(
            [PATCTL, "--store", str(self.store), *arguments], input=data, capture_output=True, timeout=60
        )
        done = subprocess.CompletedProcess(raw.args, raw.returncode, raw.stdout.decode(), raw.stderr.decode())
        assert done.returncode == status, f"{arguments}: {done.returncode}, {done.stdout}{done.stderr}"
        return done

    def json(self, *arguments: str, **options: Any) -> list[dict[str, Any]]:
        output = self.run("--json", *arguments, **options).stdout
        return [json.loads(line) for line in output.splitlines()]

    def issue(self, *arguments: str) -> str:
        if "--subject" not in arguments:
            arguments = ("--subject", "alice", *arguments)
        return self.run("issue", *arguments).stdout.strip()

    def load(self, *records: dict[str, Any]) -> None:
        self.run("import", "--strict", "-", input="".join(json.dumps(record) + "\n" for record in records))

    def verdict(self, token: str, *arguments: str) -> str:
        """What `check` says; its exit status must fit."""
        done = subprocess.run(
            [PATCTL, "--store", str(self.store), "check", *arguments], input=token, capture_output=True, text=True
        )
        word = done.stdout.split()[0]
        assert done.returncode == (YES if word == "ok" else FAULT if word == "store_error" else NO), done
        return word


def places_of(key: bytes, data: bytes) -> list[tuple[int, int]]:
    """Where LMDB's file has values of a key, of which all but one may be left from before: from where, and to where."""
    starts = (found.end() for found in re.finditer(re.escape(key), data))
    # The length stands 8 bytes before the key.
    return [(at, at + struct.unpack_from("<I", data, at - len(key) - 8)[0]) for at in starts]


@pytest.fixture
def patctl(tmp_path: Path) -> Patctl:
    made = Patctl(tmp_path / "store")
    made.run("init")
    return made
