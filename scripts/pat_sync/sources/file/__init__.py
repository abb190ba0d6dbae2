"""The source file:///…: a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pat_sync.errors import ConfigurationError
from pat_sync.sources.source import Kind, Source
from pat_sync.url import split

if TYPE_CHECKING:
    from pat_sync.configuration import Settings
    from pat_sync.metrics import Metrics
    from pat_sync.pulse import Pulse


class File(Kind):
    schemes = ("file",)
    example = "file:///…"

    def check(self, url: str, insecure_http: bool) -> None:
        parts = split(url, "the source")
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ConfigurationError(f'"{url}" is not of the form file:///path')

    def make(self, settings: Settings, pulse: Pulse, metrics: Metrics) -> Source:
        from pat_sync.sources.file.source import FileSource

        return FileSource(settings, pulse, metrics)
