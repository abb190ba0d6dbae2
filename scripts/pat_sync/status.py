"""`pat-sync status`: the state of store, source and last use, on one screen."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pat_sync.configuration import Settings
from pat_sync.errors import SourceFailed, UsageFailed
from pat_sync.log import scrub
from pat_sync.sources.source import Probe, Source, Store

if TYPE_CHECKING:
    from pat_sync.usage import Usage

# Warn when the map is this full.
_MAP_FULL = 0.9

# How many heartbeats may be missing.
_MISSING_HEARTBEATS = 3

# How long the store may lag: recent changes are still on their way.
_PATIENCE = 2.0

# The store's heartbeat if it only had snapshots of unknown age.
_UNKNOWN = 1

# Tolerance for a heartbeat in the future, in seconds: a heartbeat has whole seconds.
_AHEAD = 2


def print_status(settings: Settings, source: Source, usage: Usage | None) -> bool:
    """Print the status and return whether there are no problems."""
    problems: list[str] = []
    report: dict[str, Any] = {"store": str(settings.store), "source": settings.source_name}

    stats = read_stats(settings, problems)
    report["running"] = is_running = _is_followed(settings.store)
    if not is_running:
        problems.append("no pat-sync is running for this store: run systemctl start pat-sync, and see its log")
    if stats is not None:
        is_standby = False
        try:
            probe = _probe(settings, source, stats, is_running)
            is_standby = probe.is_standby
            report["source_answers"] = True
            report["source_text"] = probe.text
            report["is_current"] = probe.is_current
            if not probe.is_current:
                problems.append("the store is behind its source")
            problems += probe.problems
        except SourceFailed as error:
            report["source_answers"] = False
            report["source_text"] = f"does not answer: {scrub(str(error))}"
            problems.append(f"cannot read the source: {scrub(str(error))}")
        # Changes may have arrived in the meantime.
        stats = read_stats(settings, []) or stats
        for name in ("state", "epoch", "cursor", "heartbeat", "heartbeat_age", "used_size", "map_size"):
            report[name] = stats[name]
        report["tokens"] = stats["meta_tokens"]
        _judge_store(settings, stats, is_running, is_standby, problems)
    if usage is not None:
        try:
            report["usage"] = usage.probe()
            report["usage_answers"] = True
        except UsageFailed as error:
            report["usage"] = f"cannot be reported: {scrub(str(error))}"
            report["usage_answers"] = False

    report["problems"] = problems
    if settings.as_json:
        print(json.dumps(report))
    else:
        _print(report)
    return not problems


def _probe(settings: Settings, source: Source, stats: dict[str, Any], is_running: bool) -> Probe:
    """Probe the source until the store has caught up with where the source was at first, for a limited time."""
    first = probe = source.probe(_store(stats))
    deadline = time.monotonic() + _PATIENCE + source.settles_for
    while is_running and not probe.is_current and time.monotonic() < deadline:
        time.sleep(0.25)
        again = read_stats(settings, [])
        if again is None:
            break
        probe = source.probe(_store(again))
        if probe.reached is not None and first.position is not None and probe.reached >= first.position:
            text = "answers; the store has what it had a moment ago, and keeps up"
            return replace(probe, text=text, is_current=True)
    return probe


def _store(stats: dict[str, Any]) -> Store:
    return Store(stats["state"], stats["epoch"], stats["cursor"], stats.get("key_id"))


def read_stats(settings: Settings, problems: list[str]) -> dict[str, Any] | None:
    """Return the output of `patctl stats`, or add to `problems`."""
    done = subprocess.run(
        [settings.patctl, "stats", "--json", "--store", settings.store], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        problems.append(f"cannot read the store: {' '.join(done.stderr.split())}")
        return None
    stats: dict[str, Any] = json.loads(done.stdout)
    return stats


def _is_followed(store: Path) -> bool:
    """Whether `patctl apply` runs, which keeps a lock on the folder."""
    try:
        folder = os.open(store, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(folder)


def _judge_store(
    settings: Settings, stats: dict[str, Any], is_running: bool, is_standby: bool, problems: list[str]
) -> None:
    held = stats.get("held_snapshot")
    if held is not None and not held["accepted"]:
        problems.append(_describe_held(held))
    elif stats["state"] != "ready":
        problems.append(
            f'the store is "{stats["state"]}": '
            + ("a snapshot is under way" if is_running else "it needs a complete snapshot: start pat-sync")
        )
    age = stats["heartbeat_age"]
    if is_running and stats["state"] == "ready":
        # A standby's data is known to be replayed only some polls later.
        looks = _MISSING_HEARTBEATS * settings.poll_interval if is_standby else 0
        if age is None or age > _MISSING_HEARTBEATS * settings.heartbeat_interval + settings.query_timeout + looks:
            problems.append(
                "the heartbeat is old: the source is a standby that has received nothing from its primary since; is the"
                " primary idle, or is the standby cut off from it?"
                if is_standby
                else "the heartbeat is old: the log of pat-sync has the cause"
            )
    if age is not None and age < -_AHEAD:
        problems.append(f"the heartbeat is {-age} s in the future: the clock is wrong, or was wrong then")
    if stats["used_size"] > _MAP_FULL * stats["map_size"]:
        problems.append("the map is nearly full: raise map_size for patctl and nginx")


def _describe_held(held: dict[str, Any]) -> str:
    command = 'if that is intended, run "patctl accept-snapshot"'
    if held["first"]:
        return (
            f"the store holds {held['tokens']} tokens that came from no source, and the source's first snapshot would"
            f" remove those that the source lacks: {command}"
        )
    return (
        f"the snapshot of the source is held back, as it has {held['received']} tokens and would remove"
        f" {held['removed']} of {held['tokens']}; revocations are applied, and the heartbeat stands still: {command}"
    )


def _print(report: dict[str, Any]) -> None:
    lines = [
        ("pat-sync", "is running" if report["running"] else "is not running"),
        ("store", report["store"]),
    ]
    if "state" in report:
        age = report["heartbeat_age"]
        used = 100 * report["used_size"] / report["map_size"]
        lines += [
            ("state", report["state"]),
            ("epoch", report["epoch"] or "-"),
            ("cursor", report["cursor"] or "-"),
            ("heartbeat", "never" if age is None or report["heartbeat"] <= _UNKNOWN else f"{age} s ago"),
            ("tokens", str(report["tokens"])),
            ("map", f"{used:.1f} % of {report['map_size'] >> 20} MB used"),
        ]
    lines.append(("source", report["source"]))
    if "source_text" in report:
        lines.append(("", report["source_text"]))
    if "usage" in report:
        lines.append(("usage", report["usage"]))
    for name, text in lines:
        print(f"{name:11}{text}")
    for problem in report["problems"]:
        print(f"wrong: {problem}")
    if not report["problems"]:
        print("all is well" if report.get("usage_answers", True) else "all is well, except for last use")
