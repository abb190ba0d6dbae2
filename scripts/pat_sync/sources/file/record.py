"""Tokens as lines of a file, and as lines for patctl, which validates them (check.py)."""

from __future__ import annotations

import json
import re
from typing import Any

_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


class BadRecord(Exception):
    """A line is not a valid token; the text says why."""


def parse_line(text: bytes) -> dict[str, Any]:
    """Parse a line of JSON. The fields are not validated yet."""
    try:
        fields = json.loads(text.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise BadRecord("not a JSON object")
    return fields


def find_digest(fields: dict[str, Any]) -> bytes | None:
    digest = fields.get("digest")
    return bytes.fromhex(digest) if isinstance(digest, str) and _DIGEST.fullmatch(digest) else None


def put_line(fields: dict[str, Any]) -> bytes:
    """Build the line for patctl from validated fields.

    Numbers are dropped, as a file replaces the whole store. Tokens that the exporting host refused become revoked.
    """
    put: dict[str, Any] = {"op": "put", **fields}
    put.pop("seq", None)
    revoked_there = put.pop("local_revoked_at", None)
    if put.pop("denied", None) and revoked_there is None:
        revoked_there = 1
    if revoked_there is not None and put.get("revoked_at") is None:
        put["revoked_at"] = revoked_there
    return json.dumps(put, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field is given twice")
    return fields
