"""Lists in a CSV cell: separated by spaces, or in PostgreSQL's array syntax."""

from __future__ import annotations

import re

from pat_sync.sources.file.record import BadRecord

_SPACE = " \t\n\r\v\f"
_BOUNDS = re.compile(r"\[([+-]?\d{1,10}):([+-]?\d{1,10})\]\s*=\s*", re.ASCII)

_HINT = "separate the elements by spaces, or write a PostgreSQL array such as {a,b}"


def parse_list(cell: str) -> list[str]:
    """Parse a cell. Raises BadRecord for other kinds of list, which would become a single element."""
    text = cell.strip(_SPACE)
    if text.startswith("{") or _BOUNDS.match(text):
        return _parse_array(text)
    if any(character in text for character in ',;|"') or text.startswith("["):
        raise BadRecord(f'"{text}" looks like a list of another kind: {_HINT}')
    return re.split(r"[ \t\n\r\v\f]+", text) if text else []


def _parse_array(text: str) -> list[str]:
    """Follow array_in() for one dimension: https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO."""
    bounds = _BOUNDS.match(text)
    offset = bounds.end() if bounds else 0
    if not text[offset:].startswith("{"):
        raise BadRecord(f'"{text}" is not an array: {_HINT}')
    offset = _skip_space(text, offset + 1)

    elements: list[str] = []
    if text[offset : offset + 1] == "}":
        offset += 1
    else:
        while True:
            element, offset = _parse_element(text, offset)
            elements.append(element)
            delimiter = text[offset : offset + 1]
            offset += 1
            if delimiter == "}":
                break
            if delimiter != ",":
                raise BadRecord(f'"{text}" is an array that does not end, or has something after a quoted element')
            offset = _skip_space(text, offset)
    if offset != len(text):
        raise BadRecord(f'"{text}" goes on behind the end of its array')
    if bounds and int(bounds[2]) - int(bounds[1]) + 1 != len(elements):
        raise BadRecord(f'"{text}" has a different number of elements than its bounds say')
    return elements


def _parse_element(text: str, offset: int) -> tuple[str, int]:
    """Parse the element at `offset`; return it with the offset of its delimiter."""
    if text[offset : offset + 1] == "{":
        raise BadRecord(f'"{text}" is an array of arrays, where a list is expected')
    if text[offset : offset + 1] == '"':
        found = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL).match(text, offset)
        if found is None:
            raise BadRecord(f'"{text}" has an unclosed quotation mark')
        return re.sub(r"(?s)\\(.)", r"\1", found[1]), _skip_space(text, found.end())

    found = re.compile(r'(?:[^",{}\\]|\\.)*', re.DOTALL).match(text, offset)
    assert found is not None
    end = found.end()
    if text[end : end + 1] in ('"', "{"):
        raise BadRecord(f'"{text}" has a quotation mark or a brace in an unquoted element')
    # Space at the end counts if a backslash protects it.
    raw = _without_trailing_space(found[0])
    if not raw:
        raise BadRecord(f'"{text}" has an empty element')
    if raw.lower() == "null":
        raise BadRecord(f'"{text}" contains a NULL')
    return re.sub(r"(?s)\\(.)", r"\1", raw), end


def _without_trailing_space(raw: str) -> str:
    text = raw.rstrip(_SPACE)
    backslashes = len(text) - len(text.rstrip("\\"))
    return raw[: len(text) + backslashes % 2]


def _skip_space(text: str, offset: int) -> int:
    while text[offset : offset + 1] and text[offset] in _SPACE:
        offset += 1
    return offset
