"""Processes that are killed, stopped and replaced."""

from __future__ import annotations

import signal
import time

from basics import wait_until
from fault import Fault
from fault_files import FolderSwapped
from host import Setup
from reader_table import readers

#: What nginx's master says of a worker that was killed.
KILLED = (r"process \d+ exited on signal 9",)


class ReaderKilledInTransaction(Fault):
    """killed reader holding a transaction"""

    closes_connections = True
    setup = Setup(nginx_shim=True)
    seconds = 0.0
    nginx_may_log = KILLED

    def inject(self) -> None:
        for _ in range(3):
            self.host.killed.update(self.host.nginx.workers())
            self.host.nginx_shim.set(kill_in_lookup=1)
            wait_until(lambda: self.host.nginx_shim.get("kill_in_lookup") == 0, "a worker dies in a transaction")
            wait_until(lambda: len(self.host.workers()) == self.setup.workers, "the master has started another")

    def heal(self) -> None:
        # Their slots, which would keep pages from being used again, are free once there was a commit.
        self.host.wait_for_a_change()
        dead = self.host.killed - set(self.host.workers())
        wait_until(lambda: not dead & readers(self.host.store.folder), "the slots of the dead are free")


class WorkersKilled(Fault):
    """killed reader holding a transaction: all workers, at any moment"""

    closes_connections = True
    seconds = 0.0
    nginx_may_log = KILLED

    def inject(self) -> None:
        for _ in range(4):
            for worker in self.host.workers():
                self.host.send(worker, signal.SIGKILL)
            time.sleep(self.chance.uniform(0, 0.3))


class WorkerStopped(Fault):
    """killed reader holding a transaction: one that stands still, and goes on"""

    def last(self) -> None:
        with self.host.stop(self.host.workers()[0]):
            time.sleep(self.seconds)


class MasterStopped(Fault):
    """50 reloads under load: a master that stands still, and starts nobody in place of a worker that was killed"""

    closes_connections = True
    nginx_may_log = KILLED

    def last(self) -> None:
        with self.host.stop(self.host.nginx.process.pid):
            self.host.send(self.host.workers()[0], signal.SIGKILL)
            time.sleep(self.seconds)


class MasterKilled(Fault):
    """50 reloads under load: a master that is gone; its workers go on until a supervisor ends them and starts nginx"""

    closes_connections = True
    nginx_may_log = KILLED

    def inject(self) -> None:
        self.orphans = self.host.workers()
        self.host.send(self.host.nginx.process.pid, signal.SIGKILL)
        self.host.nginx.process.wait()

    def last(self) -> None:
        super().last()
        # They honour what is revoked, whoever is their parent.
        token = self.host.source.put()
        self.wait_for(token, 200)
        self.host.source.refuse(token)
        self.wait_for(token, 401)

    def wait_for(self, token: str, status: int) -> None:
        connection = self.host.connection()
        wait_until(lambda: connection.status("/pat", token) == status, f"a worker without a master answers {status}")
        connection.close()

    def heal(self) -> None:
        for orphan in self.orphans:
            self.host.send(orphan, signal.SIGKILL)
        self.host.nginx.start()


class _WriterKilled(Fault):
    setup = Setup(sidecar_shim=True)
    seconds = 0.0
    sidecar_logs = (r"patctl failed.*signal 9|patctl failed.*status 137",)

    def kill(self, moment: str) -> None:
        for _ in range(3):
            self.host.sidecar_shim.set(**{moment: 1})
            wait_until(lambda: self.host.sidecar_shim.get(moment) == 0, "patctl dies")


class WriterKilledInTransaction(_WriterKilled):
    """writer killed in a transaction"""

    def inject(self) -> None:
        self.kill("kill_in_transaction")


class WriterKilledBeforePublishing(_WriterKilled):
    """writer killed between meta write and publish"""

    stops_service = None

    def inject(self) -> None:
        self.kill("kill_unpublished")


class WriterKilled(Fault):
    """writer killed in a transaction, and between meta write and publish: at any moment"""

    seconds = 0.0
    sidecar_logs = (r"patctl failed",)

    def inject(self) -> None:
        for _ in range(5):
            wait_until(lambda: self.host.sidecar.send_to_patctl(signal.SIGKILL), "patctl is killed")
            time.sleep(self.chance.uniform(0, 0.3))


class WriterStopped(Fault):
    """sidecar stopped with SIGSTOP: its patctl"""

    setup = Setup(sidecar_shim=True)
    seconds = 3.0

    def last(self) -> None:
        wait_until(lambda: self.host.sidecar.send_to_patctl(signal.SIGSTOP), "patctl is stopped")
        time.sleep(self.seconds)
        self.host.sidecar.send_to_patctl(signal.SIGCONT)


class WriterStoppedInTransaction(WriterStopped):
    """sidecar stopped with SIGSTOP: its patctl, in a transaction, so that nobody else can write either"""

    def inject(self) -> None:
        # Most of the time it waits for its disk.
        self.host.sidecar_shim.set(sync_microseconds=500_000)
        self.host.wait_for_a_change()

    def heal(self) -> None:
        self.host.sidecar_shim.set(sync_microseconds=0)


class SidecarStopped(Fault):
    """sidecar stopped with SIGSTOP"""

    def last(self) -> None:
        self.host.stale_during(lambda: self.host.stop(self.host.sidecar_pid()))


class SidecarKilled(Fault):
    """sidecar stopped with SIGSTOP: killed, and started again by its supervisor"""

    seconds = 0.0
    def inject(self) -> None:
        for _ in range(3):
            self.host.sidecar.send(signal.SIGKILL)
            time.sleep(self.chance.uniform(0.1, 0.8))


class FiftyReloads(Fault):
    """50 reloads under load"""

    closes_connections = True
    seconds = 0.0

    def inject(self) -> None:
        for _ in range(50):
            self.host.nginx.reload()


class BinaryUpgrade(Fault):
    """binary upgrade"""

    closes_connections = True
    setup = Setup(upgradable=True)
    seconds = 0.0

    def inject(self) -> None:
        self.host.upgrade(pause=1.0)


class SingleProcess(FolderSwapped):
    """single-process mode: the folder is swapped under it"""

    setup = Setup(workers=0)
