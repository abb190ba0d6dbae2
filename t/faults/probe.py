"""Whether all workers answer at once, all the time: a process that asks a location that no module guards.

On a busy machine an answer is late for want of a processor, too. So the time for which the kernel had the worker wait
for one although it could run (/proc/…/schedstat) does not count, and little of that for which the probe did not run.
"""

from __future__ import annotations

import json
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_PAUSE = 0.02
_INTERVAL = 0.05
_LOOK_FOR_WORKERS = 0.2
# More connections than workers, as each of them is any worker's.
_MOST = 6
_REQUEST = b"GET /worker HTTP/1.1\r\nHost: probe\r\n\r\n"


class Sample(NamedTuple):
    """Times are monotonic, in seconds."""

    worker: int
    sent: float
    received: float
    late: float
    #: What the worker was seen to do meanwhile.
    doing: str


def _waited(process: int | str) -> float:
    """The seconds that it was ready to run and had no processor."""
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


class _Asking:
    """A connection, to one worker."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 5)
        self.worker = 0
        self.next = 0.0
        self.send()

    def send(self) -> None:
        self.sent = self._looked = time.monotonic()
        self._waited = _waited(self.worker)
        # For how long it was seen to have no answer.
        self._unanswered = 0.0
        self._doing = ""
        self.socket.sendall(_REQUEST)

    def look(self, now: float) -> None:
        """There is no answer yet. If the probe did not get to look for a while, nor may the worker have got to work."""
        self._unanswered += min(now - self._looked, 2 * _PAUSE)
        self._looked = now
        if self._unanswered > 2 * _PAUSE and not self._doing:
            with suppress(OSError):
                state = Path(f"/proc/{self.worker}/stat").read_text().rpartition(")")[2].split()[0]
                self._doing = f"state {state}, in {Path(f'/proc/{self.worker}/wchan').read_text()}"

    def sample(self, received: float) -> Sample:
        # The kernel tells of a wait once it is over.
        waited = max(_waited(self.worker) - self._waited, 0)
        late = max(min(received - self.sent, self._unanswered + _PAUSE) - waited, 0)
        return Sample(self.worker, self.sent, received, late, self._doing)

    def receive(self) -> Sample | None:
        """None is for the first answer, which says whose connection this is."""
        answer = self.socket.recv(4096)
        received = time.monotonic()
        if not answer:
            raise ConnectionError
        before, self.worker = self.worker, int(answer.split(b"\r\n\r\n")[1])
        sample = self.sample(received)
        self.next = received + _INTERVAL
        self.sent = 0.0
        return sample if before else None


def _ask(port: int) -> None:
    """Until the end of the input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    open_ones: list[_Asking] = []
    samples: list[Sample] = []
    count = 0
    next_look = 0.0
    while True:
        now = time.monotonic()
        if now >= next_look and len(open_ones) < _MOST:
            next_look = now + _LOOK_FOR_WORKERS
            with suppress(OSError):
                open_ones.append(_Asking(port))
        ready = select.select([sys.stdin, *(one.socket for one in open_ones)], [], [], _PAUSE)[0]
        if sys.stdin in ready:
            break
        for one in list(open_ones):
            try:
                if one.socket in ready:
                    sample = one.receive()
                    if sample is not None:
                        count += 1
                        samples.append(sample)
                elif one.sent:
                    one.look(now)
                elif now >= one.next:
                    one.send()
            except (OSError, IndexError):
                one.socket.close()
                open_ones.remove(one)
        samples = sorted(samples, key=lambda one: -one.late)[:100]
    # An answer that is due is as late as it is by now.
    due = [one.sample(time.monotonic()) for one in open_ones if one.sent]
    print(json.dumps([count, samples + due]))


class Probe:
    def __init__(self, port: int) -> None:
        command = [sys.executable, __file__, str(port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def stop(self) -> tuple[int, list[Sample]]:
        """How many answers there were, and the latest ones."""
        count, samples = json.loads(self._process.communicate()[0])
        return count, [Sample(*sample) for sample in samples]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


if __name__ == "__main__":
    _ask(int(sys.argv[1]))
