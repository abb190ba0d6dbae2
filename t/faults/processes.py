"""Processes, also such as are not children of this one by birth."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from basics import wait_until
from nginx import Nginx


def children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def is_alive(pid: int) -> bool:
    """A zombie is not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def open_files(pid: int) -> set[tuple[int, int]]:
    """Device and number of each."""
    found = set()
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                info = os.stat(f"/proc/{pid}/fd/{name}")
                found.add((info.st_dev, info.st_ino))
    return found


def become_subreaper() -> None:
    """Processes below this one whose parent ends become its children."""
    set_child_subreaper = 36
    if ctypes.CDLL(None, use_errno=True).prctl(set_child_subreaper, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


class Adopted(subprocess.Popen[bytes]):
    """A child that another process has started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode = None

    def __del__(self) -> None:
        pass

    def poll(self) -> int | None:
        if self.returncode is None:
            with suppress(ChildProcessError):  # the other process is still its parent
                os.waitpid(self.pid, os.WNOHANG)
            if is_alive(self.pid):
                return None
            self.returncode = 0
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = time.monotonic() + (timeout or 1e9)
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("adopted", timeout or 0)
            time.sleep(0.005)
        return 0

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class UpgradableNginx(Nginx):
    """One whose parent is gone: as long as it has one, nginx takes no SIGUSR2."""

    def start(self) -> None:
        become_subreaper()  # for the new master, too, whose parent leaves
        script = '"$@" > /dev/null 2>&1 < /dev/null & echo $! && read -r _'
        command = ["sh", "-c", script, "sh", *self.command]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
            assert parent.stdout is not None
            self.process = Adopted(int(parent.stdout.readline()))
            try:
                wait_until(self.listens, "nginx listens")
            except BaseException:
                self.kill()
                raise
