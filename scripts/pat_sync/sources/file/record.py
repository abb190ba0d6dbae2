"""The rules for a token in a file, as docs/patctl.md has them under RECORDS AS JSON LINES."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

_LONGEST_RECORD = 4096
_FIXED_PART = 64
_LATEST_TIME = 253402300799  # the end of the year 9999

_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_ID = re.compile(r"[A-Za-z0-9._:@-]{1,64}")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_CLAIM_NAME = re.compile(r"[a-z0-9_]{1,64}")
_BLANKS = " \t"
# What goes from the ends of a name.
_WHITE_SPACE = " \t\n\v\f\r"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class BadRecord(Exception):
    """A line is not a token; the text says why."""


def parse_line(text: bytes) -> dict[str, Any]:
    """The fields of a line of JSON, which are not checked yet."""
    try:
        fields = json.loads(text.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise BadRecord("not a JSON object")
    return fields


def to_put(fields: dict[str, Any]) -> tuple[bytes, bytes]:
    """The digest, and the line for patctl; raises BadRecord."""
    put: dict[str, Any] = {"op": "put"}
    size = _FIXED_PART
    for name, value in fields.items():
        if name not in _CHECKS:
            raise BadRecord(f'unknown field "{name}"')
        if value is None and name not in ("digest", "id", "subject"):
            continue
        if name == "name" and isinstance(value, str):
            value = value.strip(_WHITE_SPACE)
        try:
            size += _CHECKS[name](value)
        except BadRecord as error:
            raise BadRecord(f"{name}: {error}") from None
        put[name] = value
    for name in ("digest", "id", "subject"):
        if name not in put:
            raise BadRecord(f'no field "{name}"')
    if size > _LONGEST_RECORD:
        raise BadRecord(f"a record of {size} bytes, where {_LONGEST_RECORD} are the most")

    # The file is the whole truth, and its numbers order nothing. What the host that it came from refuses, for whatever
    # reason, is refused here.
    put.pop("seq", None)
    revoked_there = put.pop("local_revoked_at", None)
    if put.pop("denied", False) and revoked_there is None:
        revoked_there = 1
    if revoked_there is not None:
        put.setdefault("revoked_at", revoked_there)
    line = json.dumps(put, ensure_ascii=False, separators=(",", ":")) + "\n"
    return bytes.fromhex(put["digest"]), line.encode()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field is given twice")
    return fields


# --- checks of values, which return how many bytes of the record's variable part they take ---


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise BadRecord("not a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRecord("not valid Unicode") from None
    if _CONTROL.search(value):
        raise BadRecord("has control characters")
    return value


def _matches(pattern: re.Pattern[str], rule: str, takes_room: bool = True) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise BadRecord(rule)
        return len(value) if takes_room else 0

    return check


def _header(value: Any) -> str:
    """A text that goes into a header, from which an upstream strips blanks."""
    text = _text(value)
    if text.strip(_BLANKS) != text:
        raise BadRecord("begins or ends with a blank, which an upstream would strip from its header")
    return text


def _subject(value: Any) -> int:
    return _of_length(1, 255)(_header(value))


def _of_length(least: int, most: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        length = len(_text(value).encode())
        if not least <= length <= most:
            raise BadRecord(f"not {least} to {most} bytes long")
        return length

    return check


def _time(value: Any) -> int:
    if isinstance(value, str):
        value = int(value) if re.fullmatch(r"-?[0-9]{1,18}", value) else _rfc3339(value)
    if type(value) is not int:
        raise BadRecord("neither Unix seconds nor a string with a date and time")
    if not 0 < value <= _LATEST_TIME:
        raise BadRecord("not later than 1970-01-01T00:00:00Z and at most in the year 9999")
    return 0


def _rfc3339(text: str) -> int:
    found = _RFC3339.fullmatch(text)
    if not found:
        raise BadRecord("neither Unix seconds nor a string with a date and time")
    day, hours, zone = found.groups()
    is_leap = hours.endswith(":60")
    try:
        before = datetime.fromisoformat(
            f"{day}T{hours[:-2] + '59' if is_leap else hours}{'+00:00' if zone in 'Zz' else zone}"
        )
        seconds = int(before.timestamp()) + is_leap
    except (ValueError, OverflowError):
        raise BadRecord(f'there is no time "{text}"') from None
    if is_leap and seconds % 86400 != 0:
        raise BadRecord("a leap second comes last of a day in UTC")
    return seconds


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise BadRecord("not an array")
    return value


def _scopes(value: Any) -> int:
    size = 0
    for scope in _list(value):
        if not isinstance(scope, str) or not _SCOPE.fullmatch(scope):
            raise BadRecord("a scope has printable ASCII characters, and no space, quotation mark or backslash")
        size += len(scope) + 1
    return max(0, size - 1)


def _cidrs(value: Any) -> int:
    size = 0
    for text in _list(value):
        if not isinstance(text, str) or not re.fullmatch(r"[0-9A-Fa-f.:]+(/[0-9]{1,3})?", text):
            raise BadRecord("not an address or a range such as 192.0.2.0/24 or 2001:db8::/32")
        try:
            size += 2 + len(ipaddress.ip_network(text).network_address.packed)
        except ValueError as error:
            raise BadRecord(str(error)) from None
    return size


def _claims(value: Any) -> int:
    if not isinstance(value, dict):
        raise BadRecord("not an object")
    size = 0
    for name, text in value.items():
        if not _CLAIM_NAME.fullmatch(name):
            raise BadRecord("the name of a claim has 1 to 64 lower-case letters, digits and _")
        size += 3 + len(name) + len(_header(text).encode())
    return size


def _sequence(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise BadRecord("not a whole number from 0 to 9223372036854775807")
    return 0


def _truth(value: Any) -> int:
    if not isinstance(value, bool):
        raise BadRecord("neither true nor false")
    return 0


_CHECKS: dict[str, Callable[[Any], int]] = {
    "digest": _matches(_DIGEST, "a digest has 64 hexadecimal digits", takes_room=False),
    "id": _matches(_ID, "an id has 1 to 64 letters, digits and any of ._:@-"),
    "subject": _subject,
    "name": _of_length(0, 255),
    "scopes": _scopes,
    "cidrs": _cidrs,
    "claims": _claims,
    "issued_at": _time,
    "not_before": _time,
    "expires_at": _time,
    "revoked_at": _time,
    "local_revoked_at": _time,
    "denied": _truth,
    "seq": _sequence,
}
