"""The command line: what is started, watched and ended."""

from __future__ import annotations

import signal
import sys
import threading
import time
import traceback
from types import FrameType

from pat_sync import log as logging
from pat_sync.configuration import EXIT_BROKEN, EXIT_FAILED, EXIT_OK, EXIT_USAGE, Settings, read
from pat_sync.engine import Engine, make_source
from pat_sync.errors import ConfigurationError, NotReady, Stopped, describe
from pat_sync.log import log
from pat_sync.metrics import Metrics
from pat_sync.pulse import Pulse
from pat_sync.service import Service
from pat_sync.status import print_status

# The worker never waits for longer than this without progress, except where nothing can interrupt it, as in a name
# server that does not answer.
_STUCK_SECONDS = 90.0

_TEXTFILE_INTERVAL = 5.0

# What is left of a second to end in.
_LAST_SECONDS = 0.7


def main(arguments: list[str]) -> int:
    logging.start()
    try:
        settings = read(arguments)
        pulse = Pulse()
        metrics = Metrics()
        source = make_source(settings, pulse, metrics)
        if settings.command == "status":
            return EXIT_OK if print_status(settings, source) else EXIT_FAILED
        if settings.metrics_listen is not None:
            try:
                metrics.serve(*settings.metrics_listen)
            except OSError as error:
                raise NotReady(f"--metrics-listen: {error.strerror or error}") from None
    except ConfigurationError as error:
        print(f"pat-sync: {logging.scrub(str(error))}", file=sys.stderr)
        return EXIT_BROKEN if isinstance(error, NotReady) else EXIT_USAGE
    service = Service()
    return _Main(settings, Engine(settings, source, pulse, metrics, service), pulse, metrics, service).run()


class _Main:
    """One thread does the work. This one waits for it and for signals, and watches that it makes progress."""

    def __init__(self, settings: Settings, engine: Engine, pulse: Pulse, metrics: Metrics, service: Service) -> None:
        self._settings = settings
        self._engine = engine
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
        worker = threading.Thread(target=self._work, name="worker", daemon=True)
        worker.start()

        while self._result is None and self._stop_signal is None:
            if self._pulse.age > _STUCK_SECONDS:
                log.error("no progress for %.0f s: ending, so that a supervisor starts it again", self._pulse.age)
                return EXIT_BROKEN
            self._service.alive()
            self._write_textfile()
            self._wake.wait(1)

        if self._stop_signal is not None:
            self._service.stopping()
            log.info("stopping: %s", self._stop_signal)
            self._pulse.stop()
            worker.join(_LAST_SECONDS)
        self._write_textfile(is_last=True)
        return EXIT_OK if self._result is None else self._result

    def _take_signal(self, number: int, _: FrameType | None) -> None:
        self._stop_signal = signal.Signals(number).name
        self._wake.set()

    def _work(self) -> None:
        try:
            self._result = EXIT_OK if self._engine.run() else EXIT_FAILED
        except Stopped:
            pass
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            kind = type(error).__name__
            log.critical('this is a bug: %s at "%s", line %s: %s', kind, at.filename, at.lineno, describe(error))
            self._result = EXIT_BROKEN
        self._wake.set()

    def _write_textfile(self, is_last: bool = False) -> None:
        path = self._settings.metrics_textfile
        if path is None or (time.monotonic() < self._next_textfile and not is_last):
            return
        self._next_textfile = time.monotonic() + _TEXTFILE_INTERVAL
        try:
            self._metrics.write(path)
        except OSError as error:
            log.warning('metrics can\'t be written to "%s": %s', path, error.strerror)
