"""Logging to standard error as `level: text`, with systemd's priority prefix if that is the journal."""

from __future__ import annotations

import logging
import os
import re
import sys

log = logging.getLogger("pat_sync")

_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}

# A password in a URL extends to the last "@", as an unescaped password may contain one.
_USER_INFO = re.compile(r"(\w://[^:/?#@\s\"']*):[^\s\"']*@")
_PARAMETER = re.compile(r"((?:password|passphrase|secret|token|api_?key|sig(?:nature)?)=)[^&\s\"']+", re.IGNORECASE)
_BEARER = re.compile(r"(Bearer )[^\s\"']+", re.IGNORECASE)

_secrets: set[str] = set()


def hide(secret: str) -> None:
    """Mask this text in all log lines from now on."""
    if secret:
        _secrets.add(secret)


def scrub(text: str) -> str:
    """Mask everything that is or looks like a secret, and escape what cannot be encoded."""
    text = text.encode(errors="backslashreplace").decode()
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    for pattern in (_PARAMETER, _BEARER):
        text = pattern.sub(r"\1***", text)
    return _USER_INFO.sub(r"\1:***@", text)


class _Formatter(logging.Formatter):
    def __init__(self, with_priority: bool) -> None:
        super().__init__()
        self._with_priority = with_priority

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname.lower()
        priority = f"<{_PRIORITIES.get(level, 6)}>" if self._with_priority else ""
        return f"{priority}{level}: {' '.join(scrub(record.getMessage()).split())}"


def _is_journal() -> bool:
    """Whether standard error is the journal stream that systemd opened."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    status = os.fstat(sys.stderr.fileno())
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def start() -> None:
    """Log to standard error, including warnings of libraries."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(_is_journal()))
    logging.getLogger().addHandler(handler)
    # urllib3 logs warnings for errors that it also raises.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    log.setLevel(logging.INFO)
