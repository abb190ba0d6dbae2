"""Whether the documents have each line that was logged."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from basics import ROOT

_LINE = re.compile(r"^\S+ \S+ \[(\w+)\] \d+#\d+: (?:\*\d+ )?(.*)$")
# What nginx says behind a message.
_CONTEXT = re.compile(r"(?: while (?:reading|sending|logging|waiting|closing)\b[^,]*)?(?:, client: .*)?$")
_STORE = re.compile(r'(?:auth_pat )?store "[^"]*": (.*)')
_SEVERE = ("error", "crit", "alert", "emerg")


def _matcher(texts: list[str]) -> re.Pattern[str]:
    words = (".*?".join(map(re.escape, text.replace("\\|", "|").split("…"))) for text in texts if len(text) > 3)
    return re.compile("|".join(f"(?:{word})" for word in words), re.DOTALL)


def _spans(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


@cache
def _runbook() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """All lines, but not that which only says that a store has a fault; and the faults of stores."""
    text = (ROOT / "docs" / "runbook.md").read_text()
    faults = text.split("\n## Faults of a store\n")[1].split("\n## ")[0].split("\nThese causes follow")[0]
    rows = [row.split("|")[1] for row in faults.splitlines() if row.startswith("| `")]
    general = [span for span in _spans(text) if span != 'auth_pat store "…": …']
    return _matcher(general), _matcher([span for row in rows for span in _spans(row)])


@cache
def _sidecar() -> re.Pattern[str]:
    log = (ROOT / "docs" / "pat-sync.md").read_text().split("\n## Log\n")[1].split("\n## ")[0]
    return _matcher([row.split("|")[1].strip() for row in log.splitlines() if row.startswith("| ")][1:])


def is_in_runbook(message: str) -> bool:
    """A message of the module or of patctl."""
    general, faults = _runbook()
    if general.fullmatch(message):
        return True
    store = _STORE.fullmatch(message)
    # Behind a fault may be its cause.
    return store is not None and any(
        faults.fullmatch(store[1][:end]) for end in [*(at.start() for at in re.finditer(": ", store[1])), len(store[1])]
    )


def unknown_lines(nginx_log: str, allowed: tuple[str, ...]) -> list[str]:
    """Severe lines of nginx's error log that the runbook lacks, or that are of nginx itself and not to be expected."""
    found = []
    for line in nginx_log.splitlines():
        matched = _LINE.match(line)
        if matched is None or matched[1] not in _SEVERE:
            continue
        message = _CONTEXT.sub("", matched[2])
        if "auth_pat" in message:
            known = is_in_runbook(message) or is_in_runbook(re.sub(r" \(\d+: [^)]*\)$", "", message))
        else:
            known = any(re.search(pattern, message) for pattern in allowed)
        if not known:
            found.append(line)
    return found


def unknown_lines_of_sidecar(log: Path) -> list[str]:
    """Warnings and errors of pat-sync, and what it passes on of patctl."""
    found = []
    for line in log.read_text(errors="replace").splitlines():
        level, _, text = line.partition(": ")
        if level not in ("warning", "error", "critical"):
            continue
        if text.startswith("patctl: "):
            known = is_in_runbook(text.removeprefix("patctl: "))
        else:
            known = _sidecar().fullmatch(text) is not None
        if not known:
            found.append(line)
    return found
