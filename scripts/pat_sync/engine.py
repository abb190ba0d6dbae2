"""The main loop: follows the source, feeds patctl, and retries failures."""

from __future__ import annotations

from pat_sync.applier import Applier
from pat_sync.backoff import Backoff
from pat_sync.configuration import Settings
from pat_sync.errors import ApplierFailed, CommitRejected, SnapshotRejected, SourceFailed, describe
from pat_sync.log import log
from pat_sync.metrics import Metrics
from pat_sync.pulse import Pulse
from pat_sync.service import Service
from pat_sync.sources.source import Source

# With --once: retry a rejection with a snapshot, but only once.
_MOST_REJECTIONS = 2


class Engine:
    def __init__(self, settings: Settings, source: Source, pulse: Pulse, metrics: Metrics, service: Service) -> None:
        self._settings = settings
        self._source = source
        self._pulse = pulse
        self._metrics = metrics
        self._service = service
        self._source_backoff = Backoff()
        self._applier_backoff = Backoff()
        self._rejections = 0

    def run(self) -> bool:
        """Return whether --once succeeded; without --once, run until Stopped is raised."""
        while True:
            try:
                applier = Applier(self._settings, self._pulse, self._metrics, self._caught_up)
                try:
                    return self._follow(applier)
                finally:
                    applier.close()
            except SourceFailed as error:
                # Raised only with --once. Logged here, after patctl has ended, to be the last line.
                log.error('source "%s" failed: %s', self._settings.source_name, error)
                return False
            except ApplierFailed as error:
                if self._settings.once and not self._may_repeat(error):
                    log.error("patctl failed: %s", error)
                    return False
                self._metrics.count("pat_sync_patctl_restarts")
                seconds = self._applier_backoff.failed()
                log.warning("patctl failed, trying again in %.1f s: %s", seconds, error)
                self._service.status(f"patctl failed: {error}")
                if isinstance(error, (CommitRejected, SnapshotRejected)):
                    self._source.want_snapshot(str(error), isinstance(error, SnapshotRejected))
                self._pulse.sleep(seconds)

    def _may_repeat(self, error: ApplierFailed) -> bool:
        self._rejections += 1
        return isinstance(error, (CommitRejected, SnapshotRejected)) and self._rejections < _MOST_REJECTIONS

    def _follow(self, applier: Applier) -> bool:
        opened = applier.opened
        log.info(
            'store "%s" is %s, epoch "%s", cursor "%s"', self._settings.store, opened.state, opened.epoch, opened.cursor
        )
        self._applier_backoff.succeeded()
        self._service.ready()
        self._service.status("reading the source")
        while True:
            try:
                self._source.follow(applier, self._settings.once)
                if applier.rejected > 0:
                    log.warning("rejected lines: %d; each is logged above", applier.rejected)
                return True
            except SourceFailed as error:
                self._metrics.set("pat_sync_source_up", 0)
                if self._settings.once:
                    raise
                self._metrics.count("pat_sync_reconnects")
                seconds = self._source_backoff.failed()
                if error.retry_after is not None:
                    seconds = max(seconds, error.retry_after)
                name = self._settings.source_name
                log.warning('source "%s" failed, trying again in %.1f s: %s', name, seconds, error)
                self._service.status(f"the source failed: {describe(error)}")
                self._pulse.sleep(seconds)

    def _caught_up(self, has_everything: bool) -> None:
        self._metrics.set("pat_sync_source_up", 1)
        self._service.status(
            "the store has everything"
            if has_everything
            else "the store has everything that the source shows; see pat-sync status for its age"
        )
        failed_for = self._source_backoff.succeeded()
        if failed_for is not None:
            log.info('source "%s" is back after %.1f s', self._settings.source_name, failed_for)
