"""Orders for failing.cpp: which allocations fail, in which process."""

from __future__ import annotations

import bisect
import mmap
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, pairwise
from pathlib import Path

_MAX_FRAMES = 64
_MAX_RANGES = 256
_FIELDS = ("armed", "process", "first", "last", "count", "failed", "base", "frames", "ranges")
_FRAMES = 8 * len(_FIELDS)
_RANGES = _FRAMES + 8 * _MAX_FRAMES
_SIZE = _RANGES + 16 * _MAX_RANGES
_LAST = 2**62


class Failing:
    """To be made before the program starts, which then has the file of this path in FAIL_ALLOCATIONS."""

    def __init__(self, path: Path, program: str) -> None:
        self._symbols = _symbols(program)
        self._starts = [start for start, _ in self._symbols]
        path.write_bytes(bytes(_SIZE))
        with path.open("r+b") as file:
            self._orders = mmap.mmap(file.fileno(), _SIZE)

    def _get(self, field: str) -> int:
        value: int = struct.unpack_from("<q", self._orders, 8 * _FIELDS.index(field))[0]
        return value

    def _set(self, **fields: int) -> None:
        for field, value in fields.items():
            struct.pack_into("<q", self._orders, 8 * _FIELDS.index(field), value)

    def only(self, *parts: str) -> None:
        """Lets only allocations fail that come from functions whose names have one of these parts, by whatever they
        call."""
        ranges: list[list[int]] = []
        for (start, name), (end, _) in pairwise(self._symbols):
            if not any(part in name for part in parts):
                continue
            if ranges and ranges[-1][1] == start:
                ranges[-1][1] = end
            else:
                ranges.append([start, end])
        assert 0 < len(ranges) <= _MAX_RANGES, len(ranges)
        struct.pack_into(f"<{2 * len(ranges)}Q", self._orders, _RANGES, *chain(*ranges))
        self._set(ranges=len(ranges))

    def all(self) -> None:
        """Lets all fail, whoever makes them."""
        self._set(ranges=0)

    @contextmanager
    def allocation(self, number: int, *, process: int = 0, and_later: bool = False) -> Iterator[None]:
        """Within, the allocation of this number fails, from 1, and with `and_later` each one after it. A process that is
        negative stands for all others."""
        last = _LAST if and_later else number
        self._set(process=process, first=number, last=last, count=0, failed=0, frames=0)
        self._set(armed=1)
        try:
            yield
        finally:
            self._set(armed=0)

    @property
    def has_failed(self) -> bool:
        """Whether one has failed since."""
        return self._get("failed") > 0

    @property
    def count(self) -> int:
        """How many there have been since."""
        return self._get("count")

    def calls(self) -> str:
        """The functions that led to the first that failed, the innermost first, as far as they are the program's."""
        found = []
        for address in struct.unpack_from(f"<{self._get('frames')}Q", self._orders, _FRAMES):
            at = bisect.bisect_right(self._starts, address - self._get("base")) - 1
            if 0 <= at < len(self._symbols) - 1:
                found.append(self._symbols[at][1])
        return " < ".join(found)


def _symbols(program: str) -> list[tuple[int, str]]:
    """The functions of a program by their addresses, and its end."""
    command = ["nm", "--defined-only", "-C", program]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = (line.split(" ", 2) for line in listed.splitlines())
    return sorted({int(start, 16): name for start, kind, name in rows if kind in "tTwW" or name == "_end"}.items())
