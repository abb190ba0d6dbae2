"""Namespaces of the kernel."""

from __future__ import annotations

import subprocess

from clients import Connection
from fault import Fault
from oracle import UNAVAILABLE

OTHER_NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


class TwoPidNamespaces(Fault):
    """two readers with one PID (PID namespaces)"""

    @classmethod
    def lacks(cls) -> str:
        permitted = subprocess.run([*OTHER_NAMESPACE, "true"], stderr=subprocess.DEVNULL).returncode == 0
        return "" if permitted else "PID namespaces are not permitted here"

    def inject(self) -> None:
        self.second = self.host.another_nginx("second")
        self.process = subprocess.Popen([*OTHER_NAMESPACE, *self.second.command], stderr=subprocess.DEVNULL)
        self.host.at_end(self.heal)
        self.second.logged(r"\[crit\].*another PID namespace")

    def last(self) -> None:
        super().last()
        connection = Connection(self.second.port)
        for token in (self.host.kept, self.host.gone):
            if connection.status("/pat", token) != UNAVAILABLE:
                raise RuntimeError("nginx in another PID namespace serves the store")

    def heal(self) -> None:
        self.process.kill()
        self.process.wait()
