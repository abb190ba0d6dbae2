"""The registry of sources. To add a source, add a package beside these and a line in KINDS."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pat_sync.errors import ConfigurationError
from pat_sync.sources.feed import Feed
from pat_sync.sources.file import File
from pat_sync.sources.postgresql import Postgresql
from pat_sync.sources.source import Kind

KINDS: tuple[Kind, ...] = (
    Postgresql(),
    Feed(),
    File(),
)


def find_kind(url: str) -> Kind:
    scheme, mark, _ = url.partition("://")
    if not mark or not re.fullmatch("[A-Za-z][A-Za-z0-9+.-]*", scheme):
        # Do not quote it: it may be a connection string with a password.
        raise ConfigurationError(f"the source is not a URL like {enumerate_words(kind.example for kind in KINDS)}")
    for kind in KINDS:
        if scheme in kind.schemes:
            return kind
    schemes = enumerate_words(f"{kind.schemes[0]}://" for kind in KINDS)
    raise ConfigurationError(f'the source must be {schemes}, not "{scheme}"')


def enumerate_words(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}"
