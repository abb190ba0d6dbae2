"""Metrics, and their export to Prometheus."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from pat_sync import VERSION

_COUNTERS = {
    "pat_sync_applied": "Changes written to the store.",
    "pat_sync_older": "Changes skipped because the store had the same version of the token or a newer one.",
    "pat_sync_rejected": "Lines of the source that patctl rejected.",
    "pat_sync_commits": "Commits that are durable in the store.",
    "pat_sync_reconnects": "Retries after a failure of the source.",
    "pat_sync_patctl_restarts": "Restarts of patctl apply after a failure.",
    "pat_sync_snapshots": "Snapshots that are durable in the store.",
    "pat_sync_usage_batches": "Batches of last use that PostgreSQL recorded.",
    "pat_sync_usage_uses": "Uses of tokens that PostgreSQL recorded.",
    "pat_sync_usage_failures": "Failed attempts to report last use; nothing is lost by these.",
}

_GAUGES = {
    "pat_sync_source_up": "Whether the source answered last time.",
    "pat_sync_disk_full": "Whether patctl is waiting for space on the disk of the store.",
    "pat_sync_unacknowledged_commits": "Commits sent to patctl that are not durable yet.",
    "pat_sync_heartbeat_timestamp_seconds": "Heartbeat of the store, as a Unix timestamp: it had everything that the source had at this time.",
}

# Reasons why the heartbeat can stand still although the source answers.
_HOLDS = {
    "unnumbered": "changes without a number, which no edge receives",
    "triggers": "triggers of the source differ from install.sql",
    "unproven": "an answer that is not known to be fresh",
    "removal": "a snapshot that would remove too many tokens",
}


class Metrics(Collector):
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters = dict.fromkeys(_COUNTERS, 0)
        self._gauges = dict.fromkeys(_GAUGES, 0.0)
        self._holds = dict.fromkeys(_HOLDS, False)
        self._snapshot = {"read": 0, "written": 0, "to_write": 0}
        self._lag_changes: int | None = None
        self._last_success: float | None = None
        self._last_usage_success: float | None = None
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def count(self, name: str, number: int = 1) -> None:
        with self._lock:
            self._counters[name] += number

    def set(self, name: str, value: float) -> None:
        self._gauges[name] = value

    def hold(self, reason: str, is_held: bool) -> None:
        """Set whether the heartbeat stands still for a reason in `_HOLDS`."""
        assert reason in _HOLDS
        self._holds[reason] = is_held

    def set_snapshot(self, stage: str, tokens: int) -> None:
        self._snapshot[stage] = tokens

    def set_lag_changes(self, changes: int) -> None:
        self._lag_changes = changes

    def succeeded(self, read_at: float) -> None:
        """Note that the store has everything that the source had at this time."""
        self._last_success = read_at

    def reported_usage(self, read_at: float) -> None:
        """Note that all use up to this time is reported."""
        self._last_usage_success = read_at

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("pat_sync_build", "The version of pat-sync.", value={"version": VERSION})
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(name, text, value=self._counters[name])
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(name, text, value=self._gauges[name])

        held = GaugeMetricFamily(
            "pat_sync_heartbeat_held",
            "Whether the heartbeat stands still for this reason although the source answers.",
            labels=["reason"],
        )
        for reason, is_held in self._holds.items():
            held.add_metric([reason], is_held)
        yield held

        snapshot = GaugeMetricFamily(
            "pat_sync_snapshot_tokens", "Progress of the last snapshot, in tokens.", labels=["stage"]
        )
        for stage, tokens in self._snapshot.items():
            snapshot.add_metric([stage], tokens)
        yield snapshot

        # The metrics below are absent until there is a value.
        lag_changes = GaugeMetricFamily(
            "pat_sync_lag_changes", "Changes that the store lacks. Only for postgresql:// sources."
        )
        if self._lag_changes is not None:
            lag_changes.add_metric([], self._lag_changes)
        yield lag_changes

        last_success = GaugeMetricFamily(
            "pat_sync_last_success_timestamp_seconds", "Unix timestamp at which the store last had everything that the source had."
        )
        lag = GaugeMetricFamily("pat_sync_lag_seconds", "Seconds since the store last had everything that the source had.")
        if self._last_success is not None:
            last_success.add_metric([], self._last_success)
            lag.add_metric([], max(0.0, time.time() - self._last_success))
        yield last_success
        yield lag

        usage = GaugeMetricFamily(
            "pat_sync_usage_last_success_timestamp_seconds", "Unix timestamp up to which all use of tokens is reported."
        )
        if self._last_usage_success is not None:
            usage.add_metric([], self._last_usage_success)
        yield usage

    def serve(self, host: str, port: int) -> None:
        start_http_server(port, host, self._registry)

    def write(self, path: Path) -> None:
        """Write atomically, readable for all whatever the umask, and never into a file that somebody else created."""
        new = path.with_name(f".{path.name}.new")
        new.unlink(missing_ok=True)
        with open(new, "xb") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(generate_latest(self._registry))
        new.replace(path)
