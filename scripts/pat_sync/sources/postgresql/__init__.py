"""The source postgresql://: a database with the schema pat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pat_sync.sources.source import Kind, Source

if TYPE_CHECKING:
    from pat_sync.configuration import Settings
    from pat_sync.metrics import Metrics
    from pat_sync.pulse import Pulse


class Postgresql(Kind):
    schemes = ("postgresql", "postgres")
    example = "postgresql://user@host/database"
    keeps_usage = True

    def check(self, url: str, insecure_http: bool) -> None:
        """Left to PostgresqlSource, as only libpq can parse its URLs."""

    def make(self, settings: Settings, pulse: Pulse, metrics: Metrics) -> Source:
        from pat_sync.sources.postgresql.source import PostgresqlSource

        return PostgresqlSource(settings, pulse, metrics)
