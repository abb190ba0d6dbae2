"""The source https://…: a feed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pat_sync.errors import ConfigurationError
from pat_sync.sources.source import Kind, Source
from pat_sync.url import is_exposed, redact, split

if TYPE_CHECKING:
    from pat_sync.configuration import Settings
    from pat_sync.metrics import Metrics
    from pat_sync.pulse import Pulse


class Feed(Kind):
    schemes = ("https", "http")
    example = "https://…"

    def check(self, url: str, insecure_http: bool) -> None:
        parts = split(url, "the source")
        if parts.hostname is None:
            raise ConfigurationError("the source has no host")
        if parts.username is not None:
            raise ConfigurationError("the URL of a feed must not contain a credential: use --token-file")
        if is_exposed(parts) and not insecure_http:
            raise ConfigurationError(
                f'"{redact(url)}" is not encrypted: use https://, or --insecure-http if others on the network may read'
                " and change which tokens are valid"
            )

    def make(self, settings: Settings, pulse: Pulse, metrics: Metrics) -> Source:
        from pat_sync.sources.feed.source import FeedSource

        return FeedSource(settings, pulse, metrics)
