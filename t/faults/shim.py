"""Calls that fail in the programs under test: see shim.cpp."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

from basics import ROOT

LIBRARY = ROOT / "build" / "faults.so"

_FIELDS = (
    "clock_seconds",
    "kill_in_lookup",
    "kill_in_transaction",
    "kill_unpublished",
    "data_error",
    "meta_error",
    "sync_error",
    "sync_microseconds",
)
_FORMAT = "<q"
_SIZE = struct.calcsize(_FORMAT)


class Shim:
    """What the programs that are started with `environment` are to suffer, from now on or later."""

    def __init__(self, path: Path) -> None:
        self.environment = {"LD_PRELOAD": str(LIBRARY), "FAULTS_SHIM": str(path)}
        path.write_bytes(bytes(_SIZE * len(_FIELDS)))
        path.chmod(0o666)
        file = os.open(path, os.O_RDWR)
        self._map = mmap.mmap(file, _SIZE * len(_FIELDS))
        os.close(file)

    def set(self, **values: int) -> None:
        for name, value in values.items():
            struct.pack_into(_FORMAT, self._map, _FIELDS.index(name) * _SIZE, value)

    def get(self, name: str) -> int:
        value: int = struct.unpack_from(_FORMAT, self._map, _FIELDS.index(name) * _SIZE)[0]
        return value
