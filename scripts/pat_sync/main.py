"""The command line: starts the threads, watches them, and stops them."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING

from pat_sync import log as logging
from pat_sync.configuration import EXIT_BROKEN, EXIT_FAILED, EXIT_OK, EXIT_USAGE, Settings, read
from pat_sync.engine import Engine
from pat_sync.errors import ConfigurationError, NotReady, Stopped, describe_bug
from pat_sync.log import log
from pat_sync.metrics import Metrics
from pat_sync.pulse import Pulse
from pat_sync.service import Service
from pat_sync.sources import find_kind
from pat_sync.status import print_status

if TYPE_CHECKING:
    from pat_sync.usage import Usage

# The worker reports progress more often than this, unless it hangs in a call that cannot be interrupted, such as a DNS
# lookup.
_STUCK_SECONDS = 90.0

_TEXTFILE_INTERVAL = 5.0

# Stop within a second, including the time that the signal took.
_LAST_SECONDS = 0.7


def main(arguments: list[str]) -> int:
    logging.start()
    try:
        settings = read(arguments)
        pulse = Pulse()
        metrics = Metrics()
        source = find_kind(settings.source).make(settings, pulse, metrics)
        usage = _make_usage(settings, pulse, metrics)
        if settings.command == "status":
            return EXIT_OK if print_status(settings, source, usage) else EXIT_FAILED
        if settings.command == "compare":
            from pat_sync.compare import print_comparison

            return EXIT_OK if print_comparison(settings, source) else EXIT_FAILED
        if settings.metrics_listen is not None:
            try:
                metrics.serve(*settings.metrics_listen)
            except OSError as error:
                raise NotReady(f"--metrics-listen: {error.strerror or error}") from None
    except ConfigurationError as error:
        print(f"pat-sync: {logging.scrub(str(error))}", file=sys.stderr)
        return EXIT_BROKEN if isinstance(error, NotReady) else EXIT_USAGE
    service = Service()
    return _Main(settings, Engine(settings, source, pulse, metrics, service), usage, pulse, metrics, service).run()


def _make_usage(settings: Settings, pulse: Pulse, metrics: Metrics) -> Usage | None:
    if settings.usage_url is None:
        return None
    from pat_sync.usage import Usage

    # Its own thread is not watched, so it gets its own pulse.
    return Usage(settings, settings.usage_url, pulse if settings.once else Pulse(), metrics)


class _Main:
    """Waits for signals and for the worker thread, and checks that the worker makes progress.

    A third thread reports last use if --usage-url is set. Its failures do not affect the others.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        usage: Usage | None,
        pulse: Pulse,
        metrics: Metrics,
        service: Service,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._usage = usage
        self._pulse = pulse
        self._metrics = metrics
        self._service = service
        self._wake = threading.Event()
        self._stop_signal: str | None = None
        self._result: int | None = None
        self._next_textfile = 0.0

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._take_signal)
        threads = [threading.Thread(target=self._work, name="worker", daemon=True)]
        if self._usage is not None and not self._settings.once:
            threads.append(threading.Thread(target=self._report_usage, args=(self._usage,), name="usage", daemon=True))
        for thread in threads:
            thread.start()

        while self._result is None and self._stop_signal is None:
            if self._pulse.age > _STUCK_SECONDS:
                log.error("no progress for %.0f s: exiting, so that the supervisor restarts pat-sync", self._pulse.age)
                return EXIT_BROKEN
            self._service.alive()
            self._write_textfile()
            self._wake.wait(1)

        if self._stop_signal is not None:
            self._service.stopping()
            log.info("stopping: %s", self._stop_signal)
            self._pulse.stop()
            if self._usage is not None:
                self._usage.stop()
            end = time.monotonic() + _LAST_SECONDS
            for thread in threads:
                thread.join(max(0.0, end - time.monotonic()))
        self._write_textfile(is_last=True)
        if self._result is None:
            # Stopped before --once was done.
            return EXIT_FAILED if self._settings.once else EXIT_OK
        return self._result

    def _take_signal(self, number: int, _: FrameType | None) -> None:
        self._stop_signal = signal.Signals(number).name
        self._wake.set()

    def _work(self) -> None:
        try:
            succeeded = self._engine.run()
            if succeeded and self._usage is not None:
                self._usage.run_once()
            self._result = EXIT_OK if succeeded else EXIT_FAILED
        except Stopped:
            pass
        except Exception as error:
            log.critical("%s", describe_bug(error))
            self._result = EXIT_BROKEN
        self._wake.set()

    def _report_usage(self, usage: Usage) -> None:
        with contextlib.suppress(Stopped):
            usage.run()

    def _write_textfile(self, is_last: bool = False) -> None:
        path = self._settings.metrics_textfile
        if path is None or (time.monotonic() < self._next_textfile and not is_last):
            return
        self._next_textfile = time.monotonic() + _TEXTFILE_INTERVAL
        try:
            self._metrics.write(path)
        except OSError as error:
            log.warning('cannot write metrics to "%s": %s', path, error.strerror)
