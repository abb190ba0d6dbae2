"""The source https://…: a feed of lines in patctl's protocol. Its contract is in docs/pat-sync.md."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import requests

from pat_sync import web
from pat_sync.applier import Applier
from pat_sync.configuration import Settings
from pat_sync.errors import SourceFailed
from pat_sync.log import log
from pat_sync.metrics import Metrics
from pat_sync.pulse import Pulse
from pat_sync.sources.feed.freshness import NONCE_FIELD, Freshness, parse_date
from pat_sync.sources.snapshot import SnapshotSender
from pat_sync.sources.source import Probe, Source, Store
from pat_sync.url import redact

# patctl's limits, in bytes.
_LONGEST_LINE = 65536
_LONGEST_EPOCH = 64
_LONGEST_CURSOR = 256

# Changes are kept in memory until their commit.
_MOST_BEFORE_COMMIT = 16 << 20

# The size of a read.
_CHUNK = 1 << 16

# patctl denies the token whose digest it finds like this in a line that is not valid JSON.
_DIGEST = re.compile(rb'"digest"[ \t]*:[ \t]*"([0-9A-Fa-f]{64})"')

# Allowed in a header and a URL.
_PRINTABLE = re.compile(r"[\x20-\x7e]*")

_CONTENT_TYPES = ("application/jsonl", "application/x-ndjson")
_CHARSETS = ("utf-8", "utf8", "us-ascii")

# Limits against endless loops: answers in a row without changes, snapshots with --once, bytes of blank lines.
_MOST_EMPTY = 100
_MOST_SNAPSHOTS = 3
_MOST_BLANK = 1 << 16

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
_LONGEST_RETRY_AFTER = 300.0

# Proxies may time out if this is longer.
_LONGEST_WAIT = 30.0

# The query parameter that makes each request unique. The feed returns its value in the header field NONCE_FIELD.
_NONCE = "nonce"

# A time that never advances the heartbeat; leaving it out would mean "now".
_UNKNOWN = 1.0

# How often a lasting problem is logged.
_REMIND_SECONDS = 60.0

_NOT_FRESH = (
    "the heartbeat stands still: the feed's answer is not known to be fresh: {};"
    " remove any cache in front of the feed, and have it return the nonce of the request"
)


class _NeedsSnapshot(Exception):
    """The feed does not continue from the store's cursor; the text says why."""


@dataclass(frozen=True)
class _Line:
    number: int
    text: bytes
    # Empty if the line is not a JSON object; patctl then denies its token if it finds a digest.
    fields: dict[str, Any]

    @property
    def op(self) -> Any:
        return self.fields.get("op")

    def names_token(self) -> bool:
        """Whether patctl can identify the token, even if the line is not valid JSON."""
        if self.fields:
            # patctl may refuse JSON that Python takes, such as NaN, and then looks for the digest in the text.
            digest = self.fields.get("digest")
            return isinstance(digest, str) and digest.encode(errors="replace") in _DIGEST.findall(self.text)
        found = _DIGEST.search(self.text)
        if found is None:
            return False
        # Ignore a digest in a nested value. A bracket in a string counts as nesting, which errs on the safe side.
        before = self.text[: found.start()].strip().removeprefix(b"{")
        return b"{" not in before and b"[" not in before


class FeedSource(Source):
    def __init__(self, settings: Settings, pulse: Pulse, metrics: Metrics) -> None:
        self._url = settings.source
        self._pulse = pulse
        self._metrics = metrics
        self._wait = min(settings.heartbeat_interval, _LONGEST_WAIT)
        self._poll_interval = settings.poll_interval
        self._timeout = settings.query_timeout
        self._wanted: str | None = None
        # The feed has not continued from its own snapshot yet.
        self._has_only_snapshot = False
        # How many answers in a row had no changes and still promised more.
        self._empty = 0
        self._freshness = Freshness()
        self._is_held = False
        self._next_reminder = 0.0

        self._patience = web.Patience(pulse)
        self._session = web.Session(self._patience, "application/jsonl", settings.ca_file)
        if settings.token is not None:
            self._session.headers["Authorization"] = f"Bearer {settings.token}"
        if settings.client_cert is not None:
            self._session.cert = (str(settings.client_cert), str(settings.client_key))

    def want_snapshot(self, reason: str, is_too_old: bool) -> None:
        if is_too_old:
            log.error("the feed's snapshot is older than the store: a feed whose history goes back must change its epoch")
        self._wanted = reason

    def probe(self, store: Store) -> Probe:
        if not _belongs_to_feed(store.epoch, store.cursor):
            return Probe("is not queried: the store does not come from a feed, and a snapshot is due", False)
        with web.failures(), closing(self._ask_changes(store.epoch, store.cursor, 0)) as answer:
            doubt = self._freshness.doubt
            problems = () if doubt is None else (_NOT_FRESH.format(doubt),)
            match answer.status_code:
                case 204 | 304 if "ETag" not in answer.headers or _epoch(answer) == store.epoch:
                    return Probe("answers; the store has everything", True, problems=problems)
                case 200 if _epoch(answer) == store.epoch:
                    return Probe("answers; it has changes that the store lacks", False, problems=problems)
                case 200 | 204 | 304 | 410 | 412:
                    return Probe("answers; it does not continue what the store holds, and a snapshot is due", False)
            raise _refusal(answer)

    def follow(self, applier: Applier, once: bool) -> None:
        wait = 0.0
        snapshots = 0
        self._empty = 0
        # The cursors seen since the store was last current.
        passed: set[str] = set()
        while True:
            applier.check()
            self._pulse.beat()
            reason = self._why_snapshot(applier)
            if reason is not None:
                snapshots += 1
                if once and snapshots > _MOST_SNAPSHOTS:
                    raise SourceFailed(f"{reason}, and {_MOST_SNAPSHOTS} snapshots did not help")
                passed.clear()
                with web.failures():
                    self._take_snapshot(applier, reason)
                wait = 0.0
                continue

            read_at = time.time()
            asked = time.monotonic()
            cursor = applier.cursor
            passed.add(cursor)
            try:
                with web.failures():
                    is_all = self._read(applier, wait)
            except _NeedsSnapshot as needs:
                self._wanted = str(needs)
                if self._has_only_snapshot:
                    raise SourceFailed(f"{needs}, and a snapshot did not help") from None
                continue
            self._has_only_snapshot = False

            self._hold()
            if is_all:
                applier.current(read_at if self._freshness.is_proven else None, even_if_early=once)
                if once:
                    applier.settle()
                    self._end_once()
                    return
            if is_all:
                passed.clear()
            elif applier.cursor in passed:
                raise SourceFailed(f'its cursors go round in circles: "{applier.cursor}" is repeated, and there is still more')
            if self._empty > _MOST_EMPTY:
                raise SourceFailed(f"{_MOST_EMPTY} answers in a row have no changes, and promise more")
            if (applier.cursor == cursor and wait > 0) or self._empty > 0:
                # Do not poll more often than this a feed that answers without waiting.
                self._pulse.sleep(self._poll_interval - (time.monotonic() - asked))
            wait = self._wait if is_all or applier.cursor == cursor else 0.0

    def _hold(self) -> None:
        """Log an answer that is not known to be fresh, and the first one that is again."""
        doubt = self._freshness.doubt
        if doubt is not None:
            self._is_held = True
            if time.monotonic() >= self._next_reminder:
                self._next_reminder = time.monotonic() + _REMIND_SECONDS
                log.error("%s", _NOT_FRESH.format(doubt))
        elif self._freshness.is_proven and self._is_held:
            self._is_held = False
            self._next_reminder = 0.0
            log.info("the feed's answers are fresh again")
        self._metrics.hold("unproven", self._is_held)

    def _end_once(self) -> None:
        if self._freshness.doubt is not None:
            raise SourceFailed(_NOT_FRESH.format(self._freshness.doubt))
        if not self._freshness.is_proven:
            log.info("no heartbeat yet: without %s, only the feed's next answer can be known to be fresh", NONCE_FIELD)

    def _why_snapshot(self, applier: Applier) -> str | None:
        if not applier.epoch or not applier.cursor:
            return "the store is new"
        if not _belongs_to_feed(applier.epoch, applier.cursor):
            return "the store does not come from a feed"
        if not applier.ready:
            return "the last snapshot was interrupted"
        return self._wanted

    # --- changes ---

    def _read(self, applier: Applier, wait: float) -> bool:
        """Send the feed's changes. Return whether these are known to be all."""
        with closing(self._ask_changes(applier.epoch, applier.cursor, wait)) as answer:
            match answer.status_code:
                case 200:
                    return self._pass_on(applier, answer)
                case 204 | 304:
                    # Read the empty body, so that the connection can be reused.
                    answer.content
                    # A feed may ignore If-Match and still send its epoch.
                    if "ETag" in answer.headers and (epoch := _epoch(answer)) != applier.epoch:
                        raise _NeedsSnapshot(
                            f'the feed has another epoch than the store, "{applier.epoch}", if "{epoch}" is its epoch: this'
                            f" is the ETag of an answer with status {answer.status_code}, to which a proxy may have added it"
                        )
                    return True
                case 410:
                    raise _NeedsSnapshot(f'the feed no longer knows the cursor "{applier.cursor}"')
                case 412:
                    raise _NeedsSnapshot(
                        f'the feed has another epoch than the store, "{applier.epoch}"'
                        if answer.headers.get("ETag") != f'"{applier.epoch}"'
                        else f'the feed answers 412 and has the epoch of the store, "{applier.epoch}": does a caching'
                        " proxy remove If-Match?"
                    )
            raise _refusal(answer)

    def _pass_on(self, applier: Applier, answer: requests.Response) -> bool:
        epoch = _epoch(answer)
        if epoch != applier.epoch:
            raise _NeedsSnapshot(f'the feed has another epoch, "{epoch}"')

        is_all: bool | None = None
        asked_with = applier.cursor
        # The feed's cursor. The store's cursor stops at the first line that does not identify its token, as it may be a
        # revocation. The snapshot that follows removes the tokens that it lacks.
        cursor = asked_with
        unnamed: int | None = None
        changes: list[bytes] = []
        size = 0
        is_empty = True
        has_changes = False
        for line in self._lines(answer):
            is_empty = False
            if line.op == "commit":
                after = _text(line, "after", _LONGEST_CURSOR) if "after" in line.fields else cursor
                if after != cursor:
                    raise _NeedsSnapshot(f'the feed continues from "{after}", and the store is at "{cursor}"')
                cursor = _text(line, "cursor", _LONGEST_CURSOR)
                more = line.fields.get("more", True)
                if not isinstance(more, bool):
                    raise SourceFailed(f"line {line.number} of the answer: more is not a boolean")
                applier.commit(b"".join(changes), cursor if unnamed is None else applier.cursor)
                is_all = not more
                has_changes = has_changes or bool(changes)
                changes.clear()
                size = 0
            elif _may_be(line, "put", "revoke", "delete"):
                if unnamed is None and not line.names_token():
                    unnamed = line.number
                changes.append(line.text)
                size += len(line.text)
                if size > _MOST_BEFORE_COMMIT:
                    raise SourceFailed(f"more than {_MOST_BEFORE_COMMIT >> 20} MB of changes come without a commit")
            else:
                raise SourceFailed(f'line {line.number} of the answer: "{line.op}" is not allowed among changes')
        if is_empty:
            raise SourceFailed("its answer with status 200 is empty: without changes, the status must be 204")
        if changes or is_all is None:
            raise SourceFailed("the answer ends without a commit")
        if unnamed is not None:
            raise _NeedsSnapshot(f"line {unnamed} of the answer does not identify its token")
        if cursor == asked_with and not is_all:
            raise SourceFailed(f'its answer makes no progress: the cursor is still "{asked_with}", and there is more')
        self._empty = 0 if has_changes or is_all else self._empty + 1
        return is_all

    # --- snapshots ---

    def _take_snapshot(self, applier: Applier, reason: str) -> None:
        log.info("taking a snapshot of the source: %s", reason)
        read_at = time.time()
        with closing(self._get({}, {}, self._timeout)) as answer:
            if answer.status_code != 200:
                raise _refusal(answer)
            lines = self._lines(answer)
            first = next(lines, None)
            if first is None or first.op != "snapshot_begin":
                raise SourceFailed("the snapshot does not begin with snapshot_begin")
            epoch = _text(first, "epoch", _LONGEST_EPOCH)
            if epoch != _epoch(answer):
                raise SourceFailed(f'the snapshot has the epoch "{epoch}", and the ETag "{_epoch(answer)}"')
            seq = first.fields.get("seq")
            if type(seq) is not int or not 0 <= seq < 1 << 63:
                raise SourceFailed("snapshot_begin has no seq from 0 to 9223372036854775807")

            self._hold()
            if self._freshness.seems_kept and applier.epoch not in ("", epoch):
                # Numbers of two epochs are not compared, so it could be older than what the store has.
                raise SourceFailed(f"its snapshot has another epoch, and may be old: {self._freshness.doubt}")
            sender = SnapshotSender(applier, self._metrics, epoch, seq)
            _send_snapshot(sender, lines, read_at if self._freshness.is_proven else _UNKNOWN)
        self._wanted = None
        self._has_only_snapshot = True

    # --- HTTP ---

    def _ask_changes(self, epoch: str, cursor: str, wait: float) -> requests.Response:
        return self._get({"after": cursor, "wait": f"{wait:g}"}, {"If-Match": f'"{epoch}"'}, wait + self._timeout)

    def _get(self, query: dict[str, str], headers: dict[str, str], timeout: float) -> requests.Response:
        nonce = secrets.token_hex(16)
        url = web.add_query(self._url, {**query, _NONCE: nonce})
        connect_timeout = min(self._timeout, web.LONGEST_CONNECT)
        for _ in range(_MOST_REDIRECTS + 1):
            # Includes connecting, which has its own timeout.
            self._patience.begin(connect_timeout + timeout)
            answer = self._session.get(
                url, headers=headers, stream=True, allow_redirects=False, timeout=(connect_timeout, timeout)
            )
            self._pulse.beat()
            if answer.status_code not in _REDIRECTS:
                web.check_encoding(answer)
                if answer.status_code == 200:
                    _check_type(answer)
                if answer.status_code in (200, 204, 304):
                    self._freshness.judge(answer, nonce)
                return answer
            answer.close()
            try:
                url = urljoin(url, answer.headers.get("Location", ""))
                is_same = _origin(url) == _origin(self._url)
            except ValueError:
                raise SourceFailed("it redirects to an invalid URL") from None
            if not is_same:
                raise SourceFailed(f'it redirects to another server, "{redact(url)}"')
            if _NONCE not in parse_qs(urlsplit(url).query):
                url = web.add_query(url, {_NONCE: nonce})
        raise SourceFailed(f"more than {_MOST_REDIRECTS} redirects")

    def _lines(self, answer: requests.Response) -> Iterator[_Line]:
        """Iterate over the lines that are not blank."""
        number = 0
        blank = 0
        rest = b""
        left = 0
        self._patience.begin(self._timeout)
        for chunk in answer.iter_content(_CHUNK):
            self._pulse.beat()
            came_at = time.monotonic()
            left -= len(chunk)
            *whole, rest = (rest + chunk).split(b"\n")
            for text in whole:
                number += 1
                if len(text) > _LONGEST_LINE:
                    break
                if text.strip():
                    yield _Line(number, text + b"\n", _fields(text))
                    continue
                blank += len(text) + 1
                if blank > _MOST_BLANK:
                    raise SourceFailed(f"the answer has more than {_MOST_BLANK} bytes of blank lines")
            else:
                text = rest
            if len(text) > _LONGEST_LINE:
                raise SourceFailed(f"line {number} of the answer is longer than {_LONGEST_LINE} bytes")
            if left <= 0:
                left = _CHUNK
                self._patience.begin(self._timeout)
            else:
                # Do not count the time that patctl took.
                self._patience.deadline += time.monotonic() - came_at
        if rest:
            raise SourceFailed(f"the answer ends in the middle of line {number + 1}")


def _send_snapshot(sender: SnapshotSender, lines: Iterator[_Line], read_at: float) -> None:
    for line in lines:
        if line.op == "snapshot_end":
            cursor = _text(line, "cursor", _LONGEST_CURSOR)
            for more in lines:
                raise SourceFailed(f"line {more.number} of the answer comes after snapshot_end")
            sender.end(cursor, read_at)
            return
        if not _may_be(line, "put"):
            raise SourceFailed(f'line {line.number} of the answer: "{line.op}" is not allowed in a snapshot')
        sender.put(line.text)
    raise SourceFailed("the answer ends without snapshot_end")


def _fields(text: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(text.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _check_type(answer: requests.Response) -> None:
    """Check the Content-Type, if there is one; without it, the lines are the test."""
    content_type, _, parameters = answer.headers.get("Content-Type", _CONTENT_TYPES[0]).partition(";")
    charset = re.search(r'charset\s*=\s*"?([^";\s]*)', parameters, re.IGNORECASE)
    if content_type.strip().lower() not in _CONTENT_TYPES:
        answer.close()
        raise SourceFailed(f'its Content-Type is "{content_type.strip()}", not {_CONTENT_TYPES[0]}: is the URL right?')
    if charset is not None and charset[1].lower() not in _CHARSETS:
        answer.close()
        raise SourceFailed(f'its answer is in "{charset[1]}", not in UTF-8')


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse duplicate names, of which patctl might use the other value: treat the line as not understood."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError
    return fields


def _may_be(line: _Line, *ops: str) -> bool:
    """Whether a line has one of these operations, or none that is readable."""
    return line.op is None or line.op in ops


def _text(line: _Line, name: str, longest: int) -> str:
    value = line.fields.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= longest or not _PRINTABLE.fullmatch(value):
        raise SourceFailed(
            f"line {line.number} of the answer: {name} is not a string of 1 to {longest} printable ASCII characters"
        )
    return value


def _belongs_to_feed(epoch: str, cursor: str) -> bool:
    """Whether a feed can have given these, and can be queried with them."""
    return _PRINTABLE.fullmatch(epoch + cursor) is not None and '"' not in epoch


def _epoch(answer: requests.Response) -> str:
    tag = answer.headers.get("ETag", "").removeprefix("W/")
    if len(tag) < 3 or tag[0] != '"' or tag[-1] != '"':
        raise SourceFailed("the answer has no ETag with the epoch in quotation marks")
    if not _PRINTABLE.fullmatch(tag) or '"' in tag[1:-1]:
        raise SourceFailed("the ETag of the answer has a quotation mark in it, or a character that is not printable ASCII")
    return tag[1:-1]


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def _refusal(answer: requests.Response) -> SourceFailed:
    help_text = {
        401: ": is the token in --token-file right?",
        403: ": may the token in --token-file read the feed?",
        404: ": is the URL right?",
    }.get(answer.status_code, "")
    wait = answer.headers.get("Retry-After", "")
    seconds: float | None = None
    if answer.status_code in (429, 503) and wait:
        if re.fullmatch("[0-9]+", wait):
            seconds = float(wait)
        elif (date := parse_date(wait)) is not None:
            seconds = max(0.0, date - time.time())
    return SourceFailed(
        f"it answers {answer.status_code} {answer.reason}{help_text}",
        None if seconds is None else min(seconds, _LONGEST_RETRY_AFTER),
    )
