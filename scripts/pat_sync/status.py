"""`pat-sync status`: whether all is well, on one screen."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from pat_sync.configuration import Settings
from pat_sync.errors import SourceFailed
from pat_sync.log import scrub
from pat_sync.source import Source, Store

# A map this full should be made larger before it is.
_MAP_FULL = 0.9

# So many heartbeats may be missing.
_MISSING_HEARTBEATS = 3


def print_status(settings: Settings, source: Source) -> bool:
    """Whether all is well."""
    problems: list[str] = []
    report: dict[str, Any] = {"store": str(settings.store), "source": settings.source_name}

    stats = _stats(settings, problems)
    report["running"] = is_running = _is_followed(settings.store)
    if not is_running:
        problems.append("no pat-sync is running for this store: systemctl start pat-sync, and see its log")
    if stats is not None:
        for name in ("state", "epoch", "cursor", "heartbeat", "heartbeat_age", "used_size", "map_size"):
            report[name] = stats[name]
        report["tokens"] = stats["meta_tokens"]
        _judge_store(settings, stats, is_running, problems)

        try:
            probe = source.probe(Store(stats["state"], stats["epoch"], stats["cursor"], stats.get("key_id")))
            report["source_answers"] = True
            report["source_text"] = probe.text
            report["is_current"] = probe.is_current
            if not probe.is_current and not is_running:
                problems.append("the store is behind its source")
        except SourceFailed as error:
            report["source_answers"] = False
            report["source_text"] = f"does not answer: {scrub(str(error))}"
            problems.append(f"the source can't be read: {scrub(str(error))}")

    report["problems"] = problems
    if settings.as_json:
        print(json.dumps(report))
    else:
        _print(report)
    return not problems


def _stats(settings: Settings, problems: list[str]) -> dict[str, Any] | None:
    done = subprocess.run(
        [settings.patctl, "stats", "--json", "--store", settings.store], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        problems.append(f"the store can't be read: {' '.join(done.stderr.split())}")
        return None
    stats: dict[str, Any] = json.loads(done.stdout)
    return stats


def _is_followed(store: Path) -> bool:
    """`patctl apply` has a lock on the folder as long as it runs."""
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


def _judge_store(settings: Settings, stats: dict[str, Any], is_running: bool, problems: list[str]) -> None:
    if stats["state"] != "ready":
        problems.append(
            f'the store is "{stats["state"]}": '
            + ("a snapshot is on its way" if is_running else "it needs a complete snapshot, which pat-sync takes")
        )
    age = stats["heartbeat_age"]
    if is_running and stats["state"] == "ready":
        if age is None or age > _MISSING_HEARTBEATS * settings.heartbeat_interval + settings.query_timeout:
            problems.append("the heartbeat is old: see the log of pat-sync for what keeps it from the source")
    if stats["used_size"] > _MAP_FULL * stats["map_size"]:
        problems.append("the map is nearly full: raise map_size for patctl and nginx")


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
            ("heartbeat", "never" if age is None else f"{age} s ago"),
            ("tokens", str(report["tokens"])),
            ("map", f"{used:.1f} % of {report['map_size'] >> 20} MB used"),
        ]
    lines.append(("source", report["source"]))
    if "source_text" in report:
        lines.append(("", report["source_text"]))
    for name, text in lines:
        print(f"{name:11}{text}")
    for problem in report["problems"]:
        print(f"wrong: {problem}")
    if not report["problems"]:
        print("all is well")
