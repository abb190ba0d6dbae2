"""What runs out: disk, map, reader table, descriptors; and a disk that fails or is slow."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from pathlib import Path

import reader_table
from fault import Fault
from host import IS_ROOT, USER, Setup


class DiskFull(Fault):
    """disk full"""

    mounts = True
    setup = Setup(disk="2m")
    sidecar_logs = (r"patctl is waiting, nothing is lost", r"patctl has continued")

    def inject(self) -> None:
        self.filler = self.host.store.folder / "filler"
        with self.filler.open("wb", 0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        self.host.add_many(1000)
        self.host.wait_for_sidecar("patctl is waiting")

    def heal(self) -> None:
        self.filler.unlink()


class MapFull(Fault):
    """map full"""

    setup = Setup(map_size="1m")
    sidecar_logs = (r"the map is full: use a larger map size",)

    def inject(self) -> None:
        # patctl as the operator runs it has the usual map.
        self.host.operator.lock.acquire()
        self.host.add_many(4000)
        self.host.wait_for_sidecar("the map is full")

    def heal(self) -> None:
        self.host.set_patctl("--map-size", "64m")
        self.host.operator.lock.release()


class ReaderTableFull(Fault):
    """reader table full"""

    stops_service = True
    closes_connections = True
    logs = (r"\[crit\].*the reader table is full",)

    def inject(self) -> None:
        command = [sys.executable, reader_table.__file__, str(self.host.store.folder)]
        self.holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.host.at_end(self.heal)
        assert self.holder.stdout is not None
        self.holder.stdout.readline()
        # The workers have their slots; new ones find none.
        self.host.nginx.reload()

    def heal(self) -> None:
        self.holder.kill()
        self.holder.wait()


class DescriptorsExhausted(Fault):
    """reader table full: EMFILE in workers, which have to open the store again"""

    stops_service = True
    logs = (r"\[crit\].*LMDB failed: Too many open files|\[crit\].*Too many open files",)
    nginx_may_log = (r"accept4\(\) failed \(24: Too many open files\)",)

    def inject(self) -> None:
        self.workers = self.host.workers()
        limits = Path(f"/proc/{self.workers[0]}/limits").read_text()
        self.most = int(re.findall(r"Max open files +(\d+)", limits)[0])
        for pid in self.workers:
            self.limit(pid, 3)
        self.began = self.host.swap()

    def limit(self, pid: int, files: int) -> None:
        """As the worker's user, who may do that in a container, too."""
        as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"] if IS_ROOT else []
        subprocess.run([*as_user, "prlimit", f"--pid={pid}", f"--nofile={files}:"], check=True)

    def heal(self) -> None:
        for pid in self.workers:
            self.limit(pid, self.most)
        self.host.wait_for_replacement(self.began)


class _Disk(Fault):
    setup = Setup(sidecar_shim=True)
    trouble: dict[str, int] = {}

    def inject(self) -> None:
        self.host.sidecar_shim.set(**self.trouble)

    def heal(self) -> None:
        self.host.sidecar_shim.set(**dict.fromkeys(self.trouble, 0))


class SyncFails(_Disk):
    """disk full: fsync fails"""

    trouble = {"sync_error": errno.EIO}
    sidecar_logs = (r"patctl is waiting, nothing is lost", r"patctl has continued")


class WriteFails(_Disk):
    """disk full: pages cannot be written"""

    trouble = {"data_error": errno.ENOSPC}
    sidecar_logs = (r"patctl is waiting, nothing is lost", r"patctl has continued")


class MetaWriteFails(_Disk):
    """disk full: the meta page cannot be written"""

    trouble = {"meta_error": errno.EIO}


class SlowDisk(_Disk):
    """disk full: a disk that takes half a second for each transaction"""

    seconds = 3.0
    trouble = {"sync_microseconds": 500_000}

