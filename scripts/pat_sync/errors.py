"""What can go wrong, by what is done about it."""

from __future__ import annotations

import traceback


class Stopped(Exception):
    """pat-sync was asked to end."""


class ConfigurationError(Exception):
    """It can't work like this; the text says what to change."""


class NotReady(ConfigurationError):
    """What it needs is not there yet: it may be when it is started again."""


class SourceFailed(Exception):
    """The source can't be read now. It is tried again, after `retry_after` seconds if the source said so."""

    def __init__(self, cause: str, retry_after: float | None = None) -> None:
        super().__init__(cause)
        self.retry_after = retry_after


class UsageFailed(Exception):
    """What was used can't be reported now. It is tried again, and nothing is lost."""


class ApplierFailed(Exception):
    """`patctl apply` has ended, or does not do its part. It is started again, and begins at the store's cursor."""


class CommitRejected(ApplierFailed):
    """Something is missing before a commit: only a snapshot helps."""


class SnapshotRejected(ApplierFailed):
    """A snapshot is older than the store, or can't be one."""


class SnapshotHeld(ApplierFailed):
    """A snapshot would remove what only an operator may give away."""


def describe(error: BaseException) -> str:
    """The text of an error on one line, or its kind if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def describe_bug(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f'this is a bug: {type(error).__name__} at "{frame.filename}", line {frame.lineno}: {describe(error)}'
