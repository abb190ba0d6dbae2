"""The reader table in lock.mdb, as LMDB 0.9 has it: their number, and after a head of 128 bytes a slot for each."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from pathlib import Path
from typing import IO

SLOTS = 1024
_COUNT_AT = 56
_SLOT_AT = 128
_SLOT_SIZE = 64
_PID_AT = 8


def used_slots(store: Path) -> int:
    """How many have ever been taken since the table was started: by the first process of those that have it open."""
    (count,) = struct.unpack_from("<I", (store / "lock.mdb").read_bytes(), _COUNT_AT)
    return int(count)


def taken_slots(store: Path) -> list[int]:
    """Their processes."""
    count = used_slots(store)
    table = (store / "lock.mdb").read_bytes()
    pids = (struct.unpack_from("<i", table, _SLOT_AT + slot * _SLOT_SIZE + _PID_AT)[0] for slot in range(count))
    return [pid for pid in pids if pid != 0]


def readers(store: Path) -> set[int]:
    """The processes that have a slot."""
    return set(taken_slots(store))


def fill(file: IO[bytes], pid: int) -> None:
    """Give all free slots of a lock.mdb to a process."""
    table = os.pread(file.fileno(), _SLOT_AT + SLOTS * _SLOT_SIZE, 0)
    for slot in range(SLOTS):
        at = _SLOT_AT + slot * _SLOT_SIZE
        if struct.unpack_from("<i", table, at + _PID_AT)[0] == 0:
            os.pwrite(file.fileno(), struct.pack("<qiiq", -1, pid, 0, 1), at)
    os.pwrite(file.fileno(), struct.pack("<I", SLOTS), _COUNT_AT)


def hold(store: Path) -> None:
    """Take all slots, as a process that lives, until the end of the input. For LMDB, a process lives that has a lock
    on the byte of its number; byte 0 is locked by all who have the store open."""
    pid = os.getpid()
    with (store / "lock.mdb").open("r+b", buffering=0) as file:
        fcntl.lockf(file, fcntl.LOCK_SH, 1, 0)
        fcntl.lockf(file, fcntl.LOCK_EX, 1, pid)
        fill(file, pid)
        print("full", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    hold(Path(sys.argv[1]))
