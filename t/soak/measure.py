"""What processes hold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Memory(NamedTuple):
    """In KiB. `rss` has the pages of the store, too, and the zone; `pss` its share of them; `own` neither."""

    rss: int
    pss: int
    own: int


class Process(NamedTuple):
    memory: Memory
    descriptors: int


def process(pid: int) -> Process | None:
    """None if it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    except (FileNotFoundError, ProcessLookupError):
        return None
    lines = (line.split() for line in text.splitlines()[1:])
    sizes = {words[0]: int(words[1]) for words in lines}
    if "Rss:" not in sizes:  # a zombie
        return None
    return Process(Memory(sizes["Rss:"], sizes["Pss:"], sizes["Anonymous:"]), descriptors)
