"""The contents of data.mdb: destroyed, damaged, and those of another store."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import BinaryIO

from clients import NEVER, Connection
from fault import Fault
from oracle import LET_IN
from store import Store

PAGE = 4096
#: Where a page says of which kind it is, and a kind (LMDB, mdb.c: MDB_page).
FLAGS = 10
BRANCH = 1


class _Destroyed(Fault):
    """The operator makes the store anew."""

    stops_service = True
    logs: tuple[str, ...] = (r"\[crit\].*(truncated|damaged|not a store|replaced)",)

    def inject(self) -> None:
        # Revocations of this host were exported when they were made; none is made until the store is there again.
        self.host.operator.lock.acquire()
        self.revoked_here = self.host.local_revocations()
        self.destroy(self.host.store.folder / "data.mdb")

    def destroy(self, data: Path) -> None:
        raise NotImplementedError

    def heal(self) -> None:
        self.host.rebuild(self.revoked_here)
        self.host.operator.lock.release()


class Truncated(_Destroyed):
    """truncated data.mdb"""

    def destroy(self, data: Path) -> None:
        os.truncate(data, data.stat().st_size // PAGE // 2 * PAGE)


class Emptied(_Destroyed):
    """empty data.mdb"""

    def destroy(self, data: Path) -> None:
        os.truncate(data, 0)


class Randomised(_Destroyed):
    """random data.mdb"""

    def destroy(self, data: Path) -> None:
        with data.open("r+b") as file:
            file.write(self.chance.randbytes(data.stat().st_size))


class ZeroedHeader(_Destroyed):
    """zeroed pages in the header"""

    def destroy(self, data: Path) -> None:
        with data.open("r+b") as file:
            file.write(bytes(2 * PAGE))


class ZeroedUnderWriter(_Destroyed):
    """zeroed pages in records, while changes arrive"""

    logs = ()

    def destroy(self, data: Path) -> None:
        size = data.stat().st_size
        with data.open("r+b") as file:
            file.seek(2 * PAGE)
            file.write(bytes(size - 2 * PAGE))


class _Damaged(Fault):
    """One damage after the other, each undone. Nobody writes meanwhile, so that the bytes can be put back."""

    stops_service = None
    seconds = 6.0
    may_refuse = True
    least = 20

    def last(self) -> None:
        host = self.host
        with host.at_rest(), host.stop(*host.writers()), (host.store.folder / "data.mdb").open("r+b", 0) as file:
            tokens = [host.kept, host.gone, *NEVER, *host.bad[-8:], *self.chance.sample(host.bad, 8)]
            size = os.fstat(file.fileno()).st_size
            connections = host.each_worker()
            end = time.monotonic() + self.seconds
            count = 0
            while time.monotonic() < end:
                at, new = self.damage(file, size)
                old = os.pread(file.fileno(), len(new), at)
                os.pwrite(file.fileno(), new, at)
                for connection in connections:
                    for token in tokens:
                        host.ask(connection, token)
                os.pwrite(file.fileno(), old, at)
                count += 1
                self._wait_until_open(connections, end)
            if count < self.least:
                raise RuntimeError(f"only {count} damages")

    def _wait_until_open(self, connections: list[Connection], end: float) -> None:
        """A worker that has closed a damaged store looks at it again within a second."""
        for connection in connections:
            while self.host.ask(connection, self.host.kept) != LET_IN and time.monotonic() < end:
                time.sleep(0.02)

    def damage(self, file: BinaryIO, size: int) -> tuple[int, bytes]:
        """Where, and the bytes there."""
        raise NotImplementedError

    def anywhere(self, file: BinaryIO, size: int, kind: int, wanted: bool) -> int:
        """In a page that is of a kind, or is not."""
        pages = [
            page
            for page in range(2, size // PAGE)
            if bool(os.pread(file.fileno(), 1, page * PAGE + FLAGS)[0] & kind) == wanted
        ]
        return self.chance.choice(pages) * PAGE + self.chance.randrange(PAGE)

    def flip(self, file: BinaryIO, at: int) -> tuple[int, bytes]:
        return at, bytes([os.pread(file.fileno(), 1, at)[0] ^ 1 << self.chance.randrange(8)])


class FlippedRecords(_Damaged):
    """flipped bits in records"""

    def damage(self, file: BinaryIO, size: int) -> tuple[int, bytes]:
        if self.chance.random() < 0.3:
            return self.flip(file, self.anywhere(file, size, BRANCH, wanted=False))
        # Near the id of a token that has to be refused; its flags and times are before that.
        token = self.chance.choice([*self.host.bad[-8:], self.host.gone, *NEVER[1:3]]).encode()
        places = [found.start() for found in re.finditer(re.escape(token), os.pread(file.fileno(), size, 0))]
        if not places:
            return self.flip(file, self.anywhere(file, size, BRANCH, wanted=False))
        return self.flip(file, max(2 * PAGE, self.chance.choice(places) + self.chance.randrange(-110, 40)))


#: The end of what LMDB uses of a meta page (src/store/pat_lmdb_header.h).
META_END = 168


class FlippedHeader(_Damaged):
    """flipped bits in the header"""

    least = 5

    def damage(self, file: BinaryIO, size: int) -> tuple[int, bytes]:
        return self.flip(file, self.chance.choice((0, PAGE)) + self.chance.randrange(META_END))


class FlippedPageNumbers(_Damaged):
    """flipped bits in the pages above those of records, in the numbers of pages"""

    least = 5

    def damage(self, file: BinaryIO, size: int) -> tuple[int, bytes]:
        return self.flip(file, self.anywhere(file, size, BRANCH, wanted=True))


class ZeroedPages(_Damaged):
    """zeroed pages in records"""

    least = 5

    def damage(self, file: BinaryIO, size: int) -> tuple[int, bytes]:
        return self.chance.randrange(2, size // PAGE) * PAGE, bytes(PAGE)


class _OtherStore(Fault):
    """One that must not be served is in the place of the store."""

    stops_service = True

    def last(self) -> None:
        host = self.host
        wrong = self.make(host.folder / "wrong")
        with host.writers_stopped():
            host.store.folder.rename(host.folder / "right")
            wrong.rename(host.store.folder)
            time.sleep(self.seconds)
            host.store.folder.rename(wrong)
            (host.folder / "right").rename(host.store.folder)

    def make(self, folder: Path) -> Path:
        raise NotImplementedError


class WrongPepper(_OtherStore):
    """wrong pepper"""

    logs = (r"\[crit\].*the pepper does not match",)

    def make(self, folder: Path) -> Path:
        pepper = folder.with_suffix(".pepper")
        pepper.write_text("a" * 64)
        pepper.chmod(0o600)
        Store(folder, "--pepper-file", str(pepper), *self.host.init)
        return folder


class NewerFormat(_OtherStore):
    """newer store format"""

    logs = (r"\[crit\].*written by a newer version of nginx-auth-pat",)

    def make(self, folder: Path) -> Path:
        Store(folder, *self.host.init)
        data = folder / "data.mdb"
        bytes_there = bytearray(data.read_bytes())
        # The version is four bytes before the name in the meta record.
        for found in re.finditer(b"auth_pat", bytes(bytes_there)):
            bytes_there[found.start() - 4] = 0xFE
        data.write_bytes(bytes_there)
        return folder
