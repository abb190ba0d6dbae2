"""The child process `patctl apply`, which alone writes the store. Its protocol is described in docs/apply.md."""

from __future__ import annotations

import fcntl
import json
import os
import select
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from pat_sync.configuration import Settings
from pat_sync.errors import ApplierFailed, CommitRejected, SnapshotHeld, SnapshotRejected
from pat_sync.log import log
from pat_sync.metrics import Metrics
from pat_sync.pulse import Pulse

# Limits for what is sent and not yet acknowledged.
_MOST_PENDING = 64
_MOST_PENDING_BYTES = 16 << 20

# Longer than the 10 seconds for which patctl waits for the lock of the store.
_OPENING_SECONDS = 30.0

# How long patctl may be silent while an answer is due.
_SILENCE_SECONDS = 120.0

# How long to read its standard error after patctl has ended.
_LAST_WORDS_SECONDS = 1.0

_PIPE_SIZE = 1 << 20

# How often a lasting problem is logged.
_REMIND_SECONDS = 60.0


@dataclass(frozen=True)
class Opened:
    """The state of the store when patctl opened it."""

    state: str
    epoch: str
    cursor: str
    last_sequence: int
    key_id: str | None


@dataclass
class _Pending:
    """A line that patctl has yet to answer."""

    op: str
    size: int
    cursor: str = ""
    # Once the line is acknowledged, the store has everything that the source had at this time.
    current_at: float | None = None
    # Another snapshot has begun since, so a rejection is expected.
    overtaken: bool = False


class Applier:
    """A running `patctl apply`. Only one thread may send; `epoch`, `cursor` and `ready` reflect what was sent.

    Every method may raise ApplierFailed and Stopped.
    """

    def __init__(self, settings: Settings, pulse: Pulse, metrics: Metrics, caught_up: Callable[[bool], None]) -> None:
        self._pulse = pulse
        self._metrics = metrics
        self._caught_up = caught_up
        self._heartbeat_interval = settings.heartbeat_interval
        self._next_heartbeat = 0.0

        self._lock = threading.Lock()
        self._pending: dict[int, _Pending] = {}
        self._pending_bytes = 0
        self._line = 0
        self._failure: ApplierFailed | None = None
        self._opened: Opened | None = None
        self._silent_from = time.monotonic()
        self._waiting_for_disk = False
        # Why the last snapshot is held back, if it is.
        self._held: str | None = None
        self._next_reminder = 0.0
        self._closing = False
        # The last line of its standard error, logged as the cause of its end.
        self._last_words = ""
        # Number of rejected changes.
        self.rejected = 0

        self._process = _start(settings)
        assert self._process.stdin is not None
        self._input = self._process.stdin.fileno()
        self._threads = [
            threading.Thread(target=target, args=(stream,), daemon=True)
            for target, stream in (
                (self._read_answers, self._process.stdout),
                (self._read_errors, self._process.stderr),
            )
        ]
        # In reverse: the first thread joins the second, which must have been started by then.
        for thread in reversed(self._threads):
            thread.start()

        try:
            self.opened = self._wait_for_opened()
        except BaseException:
            self.close()
            raise
        self.acknowledged = self.opened.cursor
        self.epoch = self.opened.epoch
        self.cursor = self.opened.cursor
        self.ready = self.opened.state == "ready"
        # The highest number within the epoch that the store is known to have.
        self.last_sequence = self.opened.last_sequence

    # --- sending ---

    def send(self, lines: bytes) -> None:
        """Send whole lines, which patctl answers only if it rejects them."""
        self._write(lines)

    def commit(self, lines: bytes, cursor: str) -> None:
        """Send changes, and the commit that makes them durable together with the cursor."""
        commit = {"op": "commit", "cursor": cursor}
        if self.cursor:
            commit["after"] = self.cursor
        self._write(lines, commit, cursor)
        self.cursor = cursor

    def begin_snapshot(self, epoch: str, seq: int) -> None:
        self.ready = False
        self.cursor = ""
        with self._lock:
            for pending in self._pending.values():
                pending.overtaken = pending.op in ("snapshot_begin", "snapshot_end")
        self._write(b"", {"op": "snapshot_begin", "epoch": epoch, "seq": seq})
        # Send nothing until patctl has accepted the snapshot.
        while self._line in self._pending:
            self._pulse.wait(1)
            self.check()
        self.last_sequence = seq if epoch != self.epoch else max(seq, self.last_sequence)
        self.epoch = epoch

    def end_snapshot(self, lines: bytes, cursor: str, read_at: float) -> None:
        """`read_at` must not be later than the time of the snapshot."""
        self._write(lines, {"op": "snapshot_end", "cursor": cursor, "at": int(read_at)}, cursor)
        self.cursor = cursor
        self.ready = True

    def current(self, read_at: float | None, even_if_early: bool = False) -> None:
        """Note that everything that the source had at `read_at` was sent, and send a heartbeat if one is due.

        None means that the age of the data is unknown. While a snapshot is held back, the store is not current either.
        """
        if read_at is None or self._held is not None:
            self._caught_up(False)
            return
        with self._lock:
            last = self._pending.get(max(self._pending, default=0))
            if last is not None:
                last.current_at = read_at
        if last is None:
            self._metrics.succeeded(read_at)

        if even_if_early or time.monotonic() >= self._next_heartbeat:
            self._next_heartbeat = time.monotonic() + self._heartbeat_interval
            self._write(b"", {"op": "heartbeat", "at": int(read_at)})
        self._caught_up(True)

    def settle(self) -> None:
        """Wait until everything is durable."""
        while self._pending:
            if self._held is not None:
                raise SnapshotHeld(self._held)
            self._pulse.wait(1)
            self.check()

    def check(self, is_blocked: bool = False) -> None:
        """Raise if patctl has ended, is stuck, or has rejected a commit or a snapshot."""
        if self._failure is not None:
            raise self._failure
        if (self._pending or is_blocked) and time.monotonic() - self._silent_from > _SILENCE_SECONDS:
            raise ApplierFailed(f"it has not answered for {_SILENCE_SECONDS:.0f} seconds")

    def close(self) -> None:
        """Close patctl's input, which ends it; kill it if that takes too long, which is safe for the store."""
        self._closing = True
        assert self._process.stdin is not None
        self._process.stdin.close()
        for end in (self._process.terminate, self._process.kill):
            try:
                self._process.wait(0.4)
                break
            except subprocess.TimeoutExpired:
                end()
        self._process.wait()
        for thread in self._threads:
            thread.join(1)

    def _write(self, lines: bytes, last: dict[str, Any] | None = None, cursor: str = "") -> None:
        """Send lines, followed by one that patctl answers."""
        self._wait_for_room()

        data = lines if lines.endswith(b"\n") or not lines else lines + b"\n"
        if last is not None:
            data += json.dumps(last).encode() + b"\n"
        self._line += data.count(b"\n")
        self._silent_from = max(self._silent_from, time.monotonic())
        if last is not None:
            with self._lock:
                self._pending[self._line] = _Pending(last["op"], len(data), cursor)
                self._pending_bytes += len(data)
                self._metrics.set("pat_sync_unacknowledged_commits", len(self._pending))

        rest = memoryview(data)
        while rest:
            self.check(is_blocked=True)
            try:
                rest = rest[os.write(self._input, rest) :]
                self._silent_from = max(self._silent_from, time.monotonic())
            except BlockingIOError:
                self._pulse.wait(1, self._input, select.POLLOUT)
            except BrokenPipeError:
                # check() will raise with the cause in a moment.
                self._pulse.wait(1)
        self._pulse.beat()

    def _wait_for_room(self) -> None:
        self.check()
        while len(self._pending) >= _MOST_PENDING or self._pending_bytes >= _MOST_PENDING_BYTES:
            self._pulse.wait(1)
            self.check()

    def _wait_for_opened(self) -> Opened:
        deadline = time.monotonic() + _OPENING_SECONDS
        while self._opened is None:
            self._pulse.wait(1)
            self.check()
            if time.monotonic() > deadline:
                raise ApplierFailed(f"it has not opened the store within {_OPENING_SECONDS:.0f} seconds")
        return self._opened

    # --- the threads that read ---

    def _read_answers(self, stream: IO[bytes]) -> None:
        with stream:
            try:
                for line in stream:
                    self._take(json.loads(line))
            except Exception as error:
                self._fail(ApplierFailed(f"cannot parse its answer: {type(error).__name__}: {error}"))
                # Drain the pipe, so that patctl does not block.
                for _ in stream:
                    pass
        status = self._process.wait()
        if status < 0:
            self._fail(ApplierFailed(f"it was killed by signal {-status}"))
            return
        self._threads[1].join(_LAST_WORDS_SECONDS)
        said = f": {self._last_words}" if self._last_words else ""
        self._fail(ApplierFailed(f"it ended with status {status}{said}"))

    def _read_errors(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                text = line.decode(errors="replace").strip().removeprefix("patctl: ")
                if text:
                    self._last_words = text
                    log.warning("patctl: %s", text)

    def _fail(self, failure: ApplierFailed) -> None:
        if self._failure is None and not self._closing:
            self._failure = failure
        self._pulse.wake()

    def _take(self, answer: dict[str, Any]) -> None:
        kind = answer["answer"]
        self._silent_from = time.monotonic() + (answer["milliseconds"] / 1000 if kind == "waiting" else 0)
        self._note_disk(answer["cause"] if kind == "waiting" else None)

        match kind:
            case "opened":
                self._opened = Opened(
                    answer["state"],
                    answer["epoch"],
                    answer["cursor"],
                    answer["last_sequence"],
                    answer.get("key_id"),
                )
            case "committed":
                self._metrics.count("pat_sync_commits")
                self._metrics.count("pat_sync_applied", answer["applied"])
                self._metrics.count("pat_sync_older", answer["older"])
            case "heartbeat":
                self._metrics.set("pat_sync_heartbeat_timestamp_seconds", answer["at"])
            case "snapshot_progress":
                self._metrics.set_snapshot("written", answer["done"])
                self._metrics.set_snapshot("to_write", answer["of"])
            case "snapshot_held":
                self._note_held(answer["cause"])
            case "snapshot_committed":
                self._note_held(None)
                self._metrics.count("pat_sync_snapshots")
                log.info(
                    "the snapshot is in the store: %d tokens, %d written, %d removed, %d rejected",
                    answer["received"],
                    answer["written"],
                    answer["removed"],
                    answer["rejected"],
                )
            case "rejected":
                self._metrics.count("pat_sync_rejected")
        if "line" in answer:
            self._settle_line(answer)
        self._pulse.wake()

    def _settle_line(self, answer: dict[str, Any]) -> None:
        rejected = answer["answer"] == "rejected"
        waits = False
        with self._lock:
            pending = self._pending.pop(answer["line"], None)
            if pending is not None:
                self._pending_bytes -= pending.size
                # patctl answers later commits before the end of a snapshot.
                waits = any(other.op == "snapshot_end" for other in self._pending.values())
                self._metrics.set("pat_sync_unacknowledged_commits", len(self._pending))

        if pending is None:
            if rejected:
                self.rejected += 1
                log.warning(
                    'line %d was rejected, and its token is denied if the digest is known: digest "%s", id "%s": %s',
                    answer["line"],
                    answer.get("digest", "-"),
                    answer.get("id", "-"),
                    answer["cause"],
                )
        elif not rejected:
            if pending.op in ("commit", "snapshot_end"):
                self.acknowledged = pending.cursor
            if pending.current_at is not None and not waits:
                self._metrics.succeeded(pending.current_at)
        elif pending.overtaken:
            log.info("the previous snapshot was dropped for a newer one")
        elif pending.op == "commit":
            self._fail(CommitRejected(f'it rejected the commit of cursor "{pending.cursor}": {answer["cause"]}'))
        elif answer.get("held", False):
            self._note_held(answer["cause"])
            self._fail(SnapshotHeld(answer["cause"]))
        elif pending.op.startswith("snapshot"):
            self._fail(SnapshotRejected(f"it rejected the snapshot: {answer['cause']}"))
        else:
            self._fail(ApplierFailed(f"it rejected a {pending.op}: {answer['cause']}"))

    def _note_held(self, cause: str | None) -> None:
        if cause is not None and time.monotonic() >= self._next_reminder:
            self._next_reminder = time.monotonic() + _REMIND_SECONDS
            log.error("the snapshot is held back, and the heartbeat stands still: %s", cause)
        elif cause is None and self._held is not None:
            log.info("the snapshot is no longer held back")
        self._held = cause
        self._metrics.hold("removal", cause is not None)

    def _note_disk(self, cause: str | None) -> None:
        if cause is not None and not self._waiting_for_disk:
            log.error("patctl is waiting, nothing is lost: %s; free space on the disk of the store", cause)
        elif cause is None and self._waiting_for_disk:
            log.info("patctl has continued")
        self._waiting_for_disk = cause is not None
        self._metrics.set("pat_sync_disk_full", self._waiting_for_disk)


def patctl_environment() -> dict[str, str]:
    """The environment without secrets."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PAT_SYNC_", "PG"))}


def _start(settings: Settings) -> subprocess.Popen[bytes]:
    try:
        # In its own process group, so that Ctrl-C in a terminal reaches only pat-sync.
        process = subprocess.Popen(
            [settings.patctl, "apply", "--store", settings.store],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=patctl_environment(),
            process_group=0,
        )
    except OSError as error:
        raise ApplierFailed(f'cannot run "{settings.patctl}": {error.strerror}') from None

    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    try:
        fcntl.fcntl(process.stdin, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    except OSError:
        # Beyond this user's limit: keep the default size.
        pass
    return process
