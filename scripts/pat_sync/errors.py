"""Exceptions, one for each way of handling a failure."""

from __future__ import annotations

import traceback


class Stopped(Exception):
    """pat-sync was asked to end."""


class ConfigurationError(Exception):
    """The options do not work; the text says what to change."""


class NotReady(ConfigurationError):
    """A prerequisite is missing, and may be there at the next start."""


class SourceFailed(Exception):
    """Reading the source failed. Retry, after `retry_after` seconds if the source said so."""

    def __init__(self, cause: str, retry_after: float | None = None) -> None:
        super().__init__(cause)
        self.retry_after = retry_after


class UsageFailed(Exception):
    """Reporting last use failed. Retry; nothing is lost."""


class ApplierFailed(Exception):
    """`patctl apply` ended or misbehaved. Start it again; it continues at the store's cursor."""


class CommitRejected(ApplierFailed):
    """Changes before a commit are missing. Take a snapshot."""


class SnapshotRejected(ApplierFailed):
    """A snapshot is older than the store, or invalid."""


class SnapshotHeld(ApplierFailed):
    """A snapshot would remove more tokens than allowed without an operator's consent."""


def describe(error: BaseException) -> str:
    """The text of an error on one line, or its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def describe_bug(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f'this is a bug: {type(error).__name__} at "{frame.filename}", line {frame.lineno}: {describe(error)}'
