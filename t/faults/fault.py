"""A fault, and what is asserted of each: what clients got and the log said, that all workers lived and answered, and
that service came back without a hand."""

from __future__ import annotations

import ctypes
import random
import re
import subprocess
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from basics import temporary_folder, wait_until
from clients import ANSWER_SECONDS
from host import IS_ROOT, Host, Setup
from oracle import NO_ANSWER, UNAVAILABLE, Observation
from runbook import unknown_lines, unknown_lines_of_sidecar

#: A worker that answers an unguarded request later than that hangs.
LATE = 0.1
CALM = 0.5


@dataclass
class Result:
    name: str
    skipped: str = ""
    statuses: Counter[int] = field(default_factory=Counter)
    recovery: float | None = None
    slowest: float = 0.0
    wrong_yes: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unrecovered: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    log: str = ""

    @property
    def verdict(self) -> str:
        if self.skipped:
            return f"SKIPPED: {self.skipped}"
        kinds = ("wrong_yes", "lost", "unrecovered", "failures")
        bad = [f"{kind} {len(getattr(self, kind))}" for kind in kinds if getattr(self, kind)]
        return ", ".join(bad) or "good"


class Fault:
    """The docstring of each quotes the design."""

    #: How long it lasts.
    seconds = 2.0
    setup = Setup()
    mounts = False
    #: Whether good tokens get 503 meanwhile; None is for faults that may be over before anybody asks.
    stops_service: bool | None = False
    #: Whether connections are closed without an answer, as their worker is gone.
    closes_connections = False
    #: Whether a good token may be refused as unknown, as its record or the way to it is damaged.
    may_refuse = False
    #: What nginx logs, as regular expressions; all of them.
    logs: tuple[str, ...] = ()
    #: What pat-sync logs, likewise.
    sidecar_logs: tuple[str, ...] = ()
    #: Severe lines of nginx itself that belong to the fault.
    nginx_may_log: tuple[str, ...] = ()

    def __init__(self, host: Host, chance: random.Random) -> None:
        self.host = host
        self.chance = chance

    @classmethod
    def title(cls) -> str:
        return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()

    @classmethod
    def lacks(cls) -> str:
        """The privilege that this machine lacks for it."""
        return "" if not cls.mounts or can_mount() else "mounting is not permitted here"

    def inject(self) -> None:
        """Its begin, for those that go on by themselves."""

    def last(self) -> None:
        time.sleep(self.seconds)

    def heal(self) -> None:
        """The end of the fault. What breaks and is gone has none: service comes back by itself."""


@cache
def can_mount() -> bool:
    command = "mount -t tmpfs -o size=1m tmpfs /mnt && mount --bind / /mnt && mount -o remount,bind,ro /mnt"
    return IS_ROOT and subprocess.run(["unshare", "--mount", "sh", "-c", command], capture_output=True).returncode == 0


def enter_mount_namespace() -> None:
    """Mounts of this process and its children are theirs alone, and end with them."""
    new_namespace = 0x00020000
    if ctypes.CDLL(None, use_errno=True).unshare(new_namespace) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    mount("--make-rprivate", "/")


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)


def unmount(path: Path) -> None:
    """It may not be mounted."""
    subprocess.run(["umount", "--lazy", path], capture_output=True)


def run(kind: type[Fault], seed: int, keep: Path | None) -> Result:
    """Injects a fault into a host of its own. Runs in a process of its own."""
    result = Result(kind.title(), skipped=kind.lacks())
    if result.skipped:
        return result
    if kind.mounts:
        enter_mount_namespace()
    chance = random.Random(f"{seed} {kind.title()}")
    try:
        with temporary_folder() as folder, ExitStack() as stack:
            if keep is not None:
                copy = ["cp", "-a", str(folder), str(keep / kind.title())]
                stack.callback(lambda: subprocess.run(copy, check=True))
            host = stack.enter_context(Host(folder, chance, kind.setup))
            _observe(kind(host, chance), host, result)
    except Exception as error:
        result.failures.append(f"{type(error).__name__}: {error}")
    return result


def _observe(fault: Fault, host: Host, result: Result) -> None:
    workers = set(host.workers())
    time.sleep(CALM)
    began = time.monotonic_ns()
    fault.inject()
    fault.last()
    healing = time.monotonic()
    recovered = 0
    try:
        fault.heal()
        wait_until(host.serves, "each worker serves")
        host.wait_for_a_change()
        result.recovery = time.monotonic() - healing
        recovered = time.monotonic_ns()
        time.sleep(CALM)
        host.rest()
        host.wait_for_arrival()
        result.lost += host.lost()
        host.store.patctl("verify")
    except (TimeoutError, RuntimeError) as error:
        result.unrecovered.append(str(error))

    result.failures += _judge_service(fault, host.observations(began))
    judgement = host.oracle.judge(host.observations(began))
    result.statuses = judgement.statuses
    result.wrong_yes += judgement.wrong_yes
    if not fault.may_refuse:
        result.failures += judgement.wrong_no
    if recovered:
        late = [seen for seen in host.observations(recovered) if seen.status == UNAVAILABLE and seen.path == "/pat"]
        result.unrecovered += [f"after the recovery, {seen}" for seen in late]

    _judge_workers(fault, host, result, workers)
    _judge_logs(fault, host, result)


def _judge_service(fault: Fault, observations: list[Observation]) -> list[str]:
    """Whether the fault had the effect that it should have."""
    refused = [seen for seen in observations if seen.status == UNAVAILABLE and seen.path == "/pat"]
    closed = [seen for seen in observations if seen.status == NO_ANSWER]
    found = []
    if fault.stops_service and not refused:
        found.append("there was no 503")
    if fault.stops_service is False and refused:
        found.append(f"{len(refused)} times 503, such as {refused[0]}")
    if closed and not fault.closes_connections:
        found.append(f"{len(closed)} times no answer, such as {closed[0]}")
    return found


def _judge_workers(fault: Fault, host: Host, result: Result, workers: set[int]) -> None:
    count, samples = host.probe.stop()
    late = host.late_answers(samples, LATE)
    result.slowest = max((sample.late for sample in host.late_answers(samples, 0)), default=0.0)
    result.failures += [f"worker {one.worker} was {one.late:.3f} s late: {one.doing}" for one in late]
    if count == 0:
        result.failures.append("the probe had no answer")
    if any(seen.received - seen.sent > (ANSWER_SECONDS - 1) * 1e9 for seen in host.observations()):
        result.failures.append("a client waited in vain")
    for pid in re.findall(r"\[alert\].* process (\d+) exited on signal", host.nginx.error_log()):
        if int(pid) not in host.killed:
            result.failures.append(f"worker {pid} died")


def _judge_logs(fault: Fault, host: Host, result: Result) -> None:
    log = host.nginx.error_log()
    sidecar = host.folder / "pat-sync.log"
    result.failures += [f"nginx logged: {line}" for line in unknown_lines(log, fault.nginx_may_log)[:10]]
    result.failures += [f"pat-sync logged: {line}" for line in unknown_lines_of_sidecar(sidecar)[:10]]
    result.failures += [f"nginx did not log: {text}" for text in fault.logs if not re.search(text, log)]
    said = sidecar.read_text(errors="replace")
    result.failures += [f"pat-sync did not log: {text}" for text in fault.sidecar_logs if not re.search(text, said)]
