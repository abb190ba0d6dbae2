"""A store, and what patctl does with it."""

from __future__ import annotations

import hashlib
import base64
import json
import os
import signal
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from basics import PATCTL

Record = dict[str, Any]


# LMDB, mdb.c: MDB_txninfo. The C library keeps a thread's number in a robust mutex.
_WRITERS_MUTEX_AT = 64
_THREAD_MASK = 0x3FFFFFFF


@contextmanager
def stopped_writer(folder: Path) -> Iterator[int]:
    """A patctl that stands still in a transaction, which it goes on with in the end. It imports 20,000 tokens."""
    lines = [{"digest": hashlib.sha256(b"%d" % n).hexdigest(), "id": f"imported-{n}", "subject": "s"} for n in range(20000)]
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    command = [PATCTL, "--store", str(folder), "import", "-"]

    def writes(process: int) -> bool:
        mutex: int = struct.unpack_from("<I", (folder / "lock.mdb").read_bytes(), _WRITERS_MUTEX_AT)[0]
        return mutex & _THREAD_MASK == process

    def stop(writer: subprocess.Popen[bytes]) -> bool:
        """In a transaction, unless it ends before."""
        while True:
            while not writes(writer.pid):
                if writer.poll() is not None:
                    return False
            writer.send_signal(signal.SIGSTOP)
            state = os.waitid(os.P_PID, writer.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            if state is not None and state.si_code == os.CLD_STOPPED and writes(writer.pid):
                return True
            writer.send_signal(signal.SIGCONT)

    while True:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
            assert writer.stdin is not None
            writer.stdin.write(text)
            writer.stdin.close()
            if stop(writer):
                try:
                    yield writer.pid
                finally:
                    writer.send_signal(signal.SIGCONT)
                return


@contextmanager
def forged_writer(folder: Path, thread: int) -> Iterator[None]:
    """Whoever may write to lock.mdb has it say that this thread writes to the store."""
    with (folder / "lock.mdb").open("r+b", buffering=0) as file:
        before = os.pread(file.fileno(), 4, _WRITERS_MUTEX_AT)
        os.pwrite(file.fileno(), struct.pack("<I", thread), _WRITERS_MUTEX_AT)
        try:
            yield
        finally:
            os.pwrite(file.fileno(), before, _WRITERS_MUTEX_AT)


class Issued(NamedTuple):
    token: str
    id: str

    @property
    def header(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def basic(self) -> dict[str, str]:
        """It is the password of a user."""
        return {"Authorization": "Basic " + base64.b64encode(f"robot:{self.token}".encode()).decode()}


class Store:
    """A new one; `init` goes to patctl. It belongs to who runs the tests, unless that says otherwise."""

    def __init__(self, folder: Path, *init: str) -> None:
        self.folder = folder
        self.patctl("init", *(init or ("--owner", str(os.geteuid()))))

    def patctl(self, *arguments: str, input: str = "") -> str:
        command = [PATCTL, "--store", str(self.folder), *arguments]
        done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            raise RuntimeError(f"patctl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def issue(self, *arguments: str) -> Issued:
        answer = json.loads(self.patctl("--json", "issue", *(arguments or ("--subject", "alice"))))
        return Issued(answer["token"], answer["id"])

    def revoke(self, token: Issued) -> None:
        self.patctl("revoke", token.id)

    def apply(self, *lines: Record) -> None:
        """What a source sends."""
        self.patctl("apply", input="".join(json.dumps(line) + "\n" for line in lines))

    def heartbeat(self, at: float) -> None:
        """Its source was reached at that time."""
        self.apply({"op": "heartbeat", "at": int(at)})

    def stats(self) -> Record:
        found: Record = json.loads(self.patctl("--json", "stats"))
        return found

    def tokens(self) -> dict[str, str]:
        """The status of each token, by its id."""
        lines = map(json.loads, self.patctl("--json", "list").splitlines())
        return {line["id"]: line["status"] for line in lines}

    def records(self) -> dict[str, Record]:
        """What it holds, by digest."""
        records = map(json.loads, self.patctl("export").splitlines())
        return {record["digest"]: record for record in records}

    def verdict(self, token: str) -> str:
        command = [PATCTL, "--store", str(self.folder), "check"]
        done = subprocess.run(command, input=token, capture_output=True, text=True, timeout=120)
        return done.stdout.split("\n")[0]
