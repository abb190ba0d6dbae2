"""A terminal of so many columns, for programs that behave differently there."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager

from basics import DEADLINE


class Terminal:
    def __init__(self, columns: int) -> None:
        self._master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.output = ""

    def close(self) -> None:
        os.close(self._master)
        os.close(self.slave)

    @property
    def shows_input(self) -> bool:
        return bool(termios.tcgetattr(self.slave)[3] & termios.ECHO)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def read(self) -> bool:
        """Reads what there is; false if there is nothing."""
        if not select.select([self._master], [], [], 0)[0]:
            return False
        self.output += os.read(self._master, 65536).decode().replace("\r\n", "\n")
        return True

    def read_until(self, text: str, times: int = 1) -> None:
        while self.output.count(text) < times:
            assert select.select([self._master], [], [], DEADLINE)[0], f"no {text!r}: {self.output!r}"
            self.read()

    def read_rest(self) -> str:
        """All that programs have written that ended before."""
        while self.read():
            pass
        return self.output


@contextmanager
def a_terminal(columns: int = 80) -> Iterator[Terminal]:
    made = Terminal(columns)
    try:
        yield made
    finally:
        made.close()
