"""The source file:///…: JSON Lines as written by `patctl export`, or CSV. Each new version of the file becomes a
snapshot."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from pat_sync.applier import Applier
from pat_sync.configuration import Settings
from pat_sync.errors import SourceFailed
from pat_sync.log import log
from pat_sync.metrics import Metrics
from pat_sync.pulse import Pulse
from pat_sync.sources.file.check import Check
from pat_sync.sources.file.lists import parse_list
from pat_sync.sources.file.record import BadRecord, find_digest, parse_line, put_line
from pat_sync.sources.snapshot import SnapshotSender
from pat_sync.sources.source import Probe, Source, Store

_LONGEST_LINE = 65536
_CHUNK = 1 << 19

# How many lines to check between two calls of Pulse.beat().
_BEAT_EVERY = 1000


@dataclass(frozen=True)
class _Version:
    """Attributes that change when a file is written to or replaced."""

    device: int
    inode: int
    size: int
    modified_at: int
    # Unlike mtime, ctime cannot be set back.
    changed_at: int

    @classmethod
    def read(cls, file: BinaryIO) -> _Version:
        status = os.fstat(file.fileno())
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


# How often a file may change, with --once, before pat-sync gives up.
_MOST_CHANGES = 10


class _BadFile(Exception):
    """This version of the file is invalid."""


class FileSource(Source):
    def __init__(self, settings: Settings, pulse: Pulse, metrics: Metrics) -> None:
        self._path = Path(unquote(urlsplit(settings.source).path))
        self._epoch = f"file:{hashlib.sha256(bytes(self._path)).hexdigest()[:16]}"
        is_csv = settings.file_format == "csv" or (settings.file_format is None and self._path.suffix.lower() == ".csv")
        self._records = _csv_records if is_csv else _json_records
        self._patctl = settings.patctl
        self._pulse = pulse
        self._metrics = metrics
        self._poll_interval = settings.poll_interval
        self._settle = settings.settle
        self.settles_for = settings.poll_interval + settings.settle
        self._wanted: str | None = None

        # The version that the store has, and the one found to be invalid.
        self._good: _Version | None = None
        self._bad: _Version | None = None
        self._cause = ""

    def want_snapshot(self, reason: str, is_too_old: bool) -> None:
        self._wanted = reason

    def probe(self, store: Store) -> Probe:
        with self._open() as file:
            digest = hashlib.sha256()
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        if store.epoch != self._epoch:
            return Probe("exists; the store does not come from this file", False)
        if store.cursor != _cursor(digest.hexdigest()):
            return Probe("exists; the store has another version of it", False)
        return Probe("exists; the store has this version of it", True)

    def follow(self, applier: Applier, once: bool) -> None:
        # The store may have changed since the previous patctl ended.
        self._good = None
        changes = 0
        while True:
            applier.check()
            read_at = time.time()
            with self._open() as file:
                version = _Version.read(file)
                if version not in (self._good, self._bad) or self._wanted is not None:
                    self._pulse.sleep(self._settle)
                    if _Version.read(file) != version or not self._is_still(version):
                        changes += 1
                        if once and changes > _MOST_CHANGES:
                            raise SourceFailed(f'"{self._path}" is being written to: replace it by renaming')
                        continue
                    self._take(applier, file, version)
                    read_at = min(read_at, time.time())
            if version == self._good:
                applier.current(read_at, even_if_early=once)
                if once:
                    applier.settle()
                    return
            elif once:
                raise SourceFailed(f'"{self._path}" is not used: {self._cause}')
            self._pulse.sleep(self._poll_interval)

    @contextmanager
    def _open(self) -> Iterator[BinaryIO]:
        try:
            with open(self._path, "rb", opener=_open_at_once) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise SourceFailed(f'"{self._path}" is not a regular file')
                yield file
        except OSError as error:
            raise SourceFailed(f'cannot read "{self._path}": {error.strerror}') from None

    def _is_still(self, version: _Version) -> bool:
        """Whether the path still leads to this version."""
        with self._open() as file:
            return _Version.read(file) == version

    def _take(self, applier: Applier, file: BinaryIO, version: _Version) -> None:
        """Bring the store to a version of the file that has stopped changing."""
        read_at = time.time()
        try:
            content = self._check(file)
            if applier.ready and (applier.epoch, applier.cursor) == (self._epoch, _cursor(content)):
                self._good = version
                return
            log.info('taking a snapshot of "%s": %s', self._path, self._wanted or "the store has another version of it")
            self._send(applier, file, content, version, read_at)
        except _BadFile as error:
            self._bad = version
            self._cause = str(error)
            log.error('"%s" is not used, and the previous tokens stay: %s', self._path, error)
            return
        self._good = version
        self._bad = None
        self._wanted = None

    def _check(self, file: BinaryIO) -> str:
        """Validate the whole file and return its hash. Raises _BadFile."""
        reader = _Reader(file)
        with Check(self._patctl, self._pulse) as check:
            found: _BadFile | None = None
            try:
                self._look_at(reader, check)
            except _BadFile as error:
                found = error
            # patctl may have found an earlier bad line.
            complaint = check.finish()
        if complaint is not None:
            raise _BadFile(complaint)
        if found is not None:
            raise found
        return reader.content()

    def _look_at(self, reader: _Reader, check: Check) -> None:
        """Send the lines to patctl, and check what it does not: the format of the file, and duplicate digests."""
        seen: set[bytes] = set()
        for number, fields, line in self._records(reader):
            if number % _BEAT_EVERY == 0:
                self._pulse.beat()
            check.add(number, line)
            digest = find_digest(fields)
            if digest is None:
                continue
            if digest in seen:
                raise _BadFile(f'line {number}: digest "{digest.hex()}" occurs twice')
            seen.add(digest)

    def _send(self, applier: Applier, file: BinaryIO, content: str, version: _Version, read_at: float) -> None:
        sender = SnapshotSender(applier, self._metrics, self._epoch, 0)
        reader = _Reader(file)
        for _, fields, _ in self._records(reader):
            # Lines of another version are not validated, and patctl would deny the tokens of bad lines.
            if _Version.read(file) != version:
                raise self._was_written_to()
            sender.put(put_line(fields))
        if reader.content() != content or _Version.read(file) != version:
            raise self._was_written_to()
        sender.end(_cursor(content), read_at)

    def _was_written_to(self) -> SourceFailed:
        return SourceFailed(f'"{self._path}" was written to while it was read: replace it by renaming')


def _cursor(content: str) -> str:
    return f"sha256:{content}"


def _open_at_once(path: str, flags: int) -> int:
    """Opening a FIFO would block until it has a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


class _Reader:
    """Iterates over the lines of a file, and hashes the content."""

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        self._file = file
        self._hash = hashlib.sha256()
        self.number = 0

    def __iter__(self) -> Iterator[bytes]:
        while line := self._file.readline(_LONGEST_LINE + 2):
            self.number += 1
            self._hash.update(line)
            if not line.endswith(b"\n"):
                raise _BadFile(
                    f"line {self.number} is longer than {_LONGEST_LINE} bytes"
                    if len(line) > _LONGEST_LINE
                    else f"line {self.number} has no end: is the file half-written?"
                )
            yield line.removeprefix(b"\xef\xbb\xbf") if self.number == 1 else line

    def content(self) -> str:
        return self._hash.hexdigest()


# --- formats: the number of a line, its fields, and the line as JSON ---

_Record = tuple[int, dict[str, Any], bytes]


def _json_records(reader: _Reader) -> Iterator[_Record]:
    for line in reader:
        if not line.strip():
            continue
        try:
            yield reader.number, parse_line(line), line
        except BadRecord as error:
            raise _BadFile(f"line {reader.number}: {error}") from None


def _csv_records(reader: _Reader) -> Iterator[_Record]:
    try:
        rows = csv.reader((line.decode() for line in reader), strict=True)
        header = next(rows, None)
        if header is None:
            return
        if len(set(header)) < len(header):
            raise _BadFile("line 1: a column occurs twice")
        for name in header:
            if not name.startswith("claim.") and name not in _COLUMNS:
                raise _BadFile(f'line 1: unknown column "{name}"')
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise _BadFile(f"line {reader.number}: {len(row)} cells, where the header has {len(header)}")
            try:
                fields = _from_cells(dict(zip(header, row)))
            except BadRecord as error:
                raise _BadFile(f"line {reader.number}: {error}") from None
            yield reader.number, fields, json.dumps(fields, ensure_ascii=False).encode() + b"\n"
    except UnicodeDecodeError:
        raise _BadFile(f"line {reader.number}: not UTF-8") from None
    except csv.Error as error:
        raise _BadFile(f"line {reader.number}: {error}") from None


_LISTS = ("scopes", "cidrs")
_COLUMNS = ("digest", "id", "subject", "name", "issued_at", "not_before", "expires_at", "revoked_at", *_LISTS)


def _from_cells(cells: dict[str, str]) -> dict[str, Any]:
    """Convert a row to fields, without its empty cells."""
    fields: dict[str, Any] = {}
    claims: dict[str, str] = {}
    for name, cell in cells.items():
        if not cell:
            continue
        if name in _LISTS:
            try:
                fields[name] = parse_list(cell)
            except BadRecord as error:
                raise BadRecord(f"{name}: {error}") from None
        elif name.startswith("claim."):
            claims[name.removeprefix("claim.")] = cell
        else:
            fields[name] = cell
    if claims:
        fields["claims"] = claims
    return fields
