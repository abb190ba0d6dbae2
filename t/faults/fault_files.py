"""The files of the store: missing, in the wrong hands, and replaced."""

from __future__ import annotations

import fcntl
import signal
import time

from fault import Fault, mount, unmount


class ReadOnlyMount(Fault):
    """read-only mount"""

    stops_service = True
    closes_connections = True
    mounts = True
    logs = (r"\[crit\].*the store is on a read-only file system",)
    sidecar_logs = (r"read-only file system",)

    def inject(self) -> None:
        store = self.host.store.folder
        mount("--bind", store, store)
        self.host.at_end(self.heal)
        mount("-o", "remount,bind,ro", store)
        # Who has the store open goes on; others are refused.
        self.host.nginx.reload()
        self.host.sidecar.send_to_patctl(signal.SIGKILL)

    def heal(self) -> None:
        unmount(self.host.store.folder)


class LockMissing(Fault):
    """lock.mdb missing"""

    stops_service = True
    closes_connections = True
    logs = (r"\[crit\].*lock\.mdb or open\.lock is missing",)

    def last(self) -> None:
        # A patctl that is not stopped makes another at once.
        with self.host.writers_stopped():
            (self.host.store.folder / "lock.mdb").unlink()
            self.host.nginx.reload()
            time.sleep(self.seconds)


class LockMissingForAMoment(Fault):
    """lock.mdb missing, until patctl makes another; workers have the old one, and learn of a single change at once"""

    stops_service = None

    def last(self) -> None:
        host = self.host
        connections = host.each_worker()
        for _ in range(3):
            with host.at_rest():
                (host.store.folder / "lock.mdb").unlink()
                token = host.good.pop()
                host.source.refuse(token)
                end = time.monotonic() + self.seconds / 2
                while time.monotonic() < end:
                    for connection in connections:
                        host.ask(connection, token)
                    time.sleep(0.002)


class LockNotWritable(Fault):
    """lock.mdb not writable"""

    stops_service = True
    closes_connections = True
    logs = (r"\[crit\].*lock\.mdb not writable",)

    def inject(self) -> None:
        (self.host.store.folder / "lock.mdb").chmod(0o440)
        self.host.nginx.reload()

    def heal(self) -> None:
        (self.host.store.folder / "lock.mdb").chmod(0o660)


class DataReplaced(Fault):
    """data.mdb renamed: that of another folder takes its place"""

    stops_service = None
    seconds = 0.0

    def inject(self) -> None:
        with self.host.at_rest():
            new = self.host.new_store(self.host.local_revocations())
            self.began = time.monotonic_ns()
            (new.folder / "data.mdb").rename(self.host.store.folder / "data.mdb")

    def heal(self) -> None:
        self.host.wait_for_replacement(self.began)


class DataAway(Fault):
    """data.mdb renamed, and renamed back"""

    stops_service = True
    logs = (r"\[crit\].*there is no store",)

    def last(self) -> None:
        data = self.host.store.folder / "data.mdb"
        with self.host.writers_stopped():
            data.rename(data.with_suffix(".away"))
            time.sleep(self.seconds)
            data.with_suffix(".away").rename(data)


class FolderSwapped(Fault):
    """the folder swapped"""

    stops_service = None
    seconds = 0.0

    def inject(self) -> None:
        self.began = self.host.swap()

    def heal(self) -> None:
        self.host.wait_for_replacement(self.began)


class FolderAway(Fault):
    """the folder swapped: it is away for a while"""

    stops_service = True
    logs = (r"\[crit\].*there is no store",)
    sidecar_logs = (r"there is no store",)

    def inject(self) -> None:
        self.host.store.folder.rename(self.host.folder / "away")

    def heal(self) -> None:
        (self.host.folder / "away").rename(self.host.store.folder)


class OpenLockHeld(Fault):
    """killed reader holding a transaction: somebody who opens the store, and does not come to an end"""

    stops_service = True
    closes_connections = True
    logs = (r"\[crit\].*open\.lock is taken",)

    def inject(self) -> None:
        self.held = (self.host.store.folder / "open.lock").open("rb")
        fcntl.flock(self.held, fcntl.LOCK_EX)
        self.host.nginx.reload()

    def heal(self) -> None:
        self.held.close()
