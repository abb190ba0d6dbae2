"""Each regular expression of conf.d, and of the documents' examples, takes time that grows with its input, not faster.

What the matcher does is counted: PCRE2 calls back before each item of an expression, and tells how far it has come. The
inputs are made from the expression's own characters: a beginning, something repeated, and an end that may not fit. What
PCRE2 may find out before it begins (a character that is needed and missing) is not relied on.
"""

from __future__ import annotations

import ctypes
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

NEEDS_ROOT = False
ROOT = Path(__file__).resolve().parents[2]

CASELESS, AUTO_CALLOUT, NO_START_OPTIMIZE = 0x00000008, 0x00000004, 0x00010000  # pcre2.h
NO_MATCH, TOO_MUCH = -1, 12345

LENGTH = 600
# What a character may cost: each is looked at by some items of the expression.
MOST = 30

pcre2 = ctypes.CDLL("libpcre2-8.so.0")
pcre2.pcre2_compile_8.restype = ctypes.c_void_p
pcre2.pcre2_match_context_create_8.restype = ctypes.c_void_p
pcre2.pcre2_match_data_create_from_pattern_8.restype = ctypes.c_void_p


class CalloutBlock(ctypes.Structure):
    _fields_ = [
        ("version", ctypes.c_uint32),
        ("callout_number", ctypes.c_uint32),
        ("capture_top", ctypes.c_uint32),
        ("capture_last", ctypes.c_uint32),
        ("offset_vector", ctypes.c_void_p),
        ("mark", ctypes.c_void_p),
        ("subject", ctypes.c_void_p),
        ("subject_length", ctypes.c_size_t),
        ("start_match", ctypes.c_size_t),
        ("current_position", ctypes.c_size_t),
    ]


class Expression:
    """An expression as nginx compiles it."""

    def __init__(self, text: str, *, caseless: bool = False) -> None:
        self.text = text
        pattern = text.encode()
        options = AUTO_CALLOUT | NO_START_OPTIMIZE | (CASELESS if caseless else 0)
        error, at = ctypes.c_int(), ctypes.c_size_t()
        self._code = ctypes.c_void_p(pcre2.pcre2_compile_8(
            pattern, ctypes.c_size_t(len(pattern)), ctypes.c_uint32(options), ctypes.byref(error), ctypes.byref(at),
            None))  # fmt: skip
        assert self._code.value, f"{text}: error {error.value} at {at.value}"
        self._data = ctypes.c_void_p(pcre2.pcre2_match_data_create_from_pattern_8(self._code, None))
        self._context = ctypes.c_void_p(pcre2.pcre2_match_context_create_8(None))
        self._most = self._steps = self._position = 0

        def count(block: ctypes._Pointer[CalloutBlock], _: object) -> int:
            position = block.contents.current_position
            self._steps += 1 + max(0, position - self._position)
            self._position = position
            return TOO_MUCH if self._steps > self._most else 0

        self._count = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(CalloutBlock), ctypes.c_void_p)(count)
        pcre2.pcre2_set_callout_8(self._context, self._count, None)

    def steps(self, subject: bytes, most: int) -> int:
        """What matching takes: items that are tried, and characters that are passed; more than `most` is not counted."""
        self._most, self._steps, self._position = most, 0, 0
        result = pcre2.pcre2_match_8(self._code, subject, ctypes.c_size_t(len(subject)), ctypes.c_size_t(0),
                                     ctypes.c_uint32(0), self._data, self._context)  # fmt: skip
        assert result >= NO_MATCH or result == TOO_MUCH, f"{self.text}: error {result} of {subject[:40]!r}"
        return self._steps

    def subjects(self) -> Iterator[bytes]:
        """Strings that the expression goes far into, and that do not fit at last."""
        literal = re.sub(r"\(\?[^)]*?[>:=!]|\\.|[\[\]()*+?{}|^$]", "\0", self.text)
        words = {word for word in literal.split("\0") if word and word.isprintable()}
        parts = [part.encode() for part in sorted({*words, *"".join(words), " ", "\t", "a", "0", "/", ","}, key=len)]
        few = [part for part in parts if part.decode() in words or not part.isalnum()] + [b"a"]
        units = [*parts, *map(b"".join, itertools.product(few, few))]
        for unit, first, last in itertools.product(units, [b"", *few], [b"", b"\x01", *few]):
            yield first + unit * (LENGTH // len(unit)) + last

    def worst(self) -> tuple[int, bytes] | None:
        """An input that takes more than it should."""
        for subject in self.subjects():
            most = MOST * (len(subject) + 10)
            if (steps := self.steps(subject, most)) > most:
                return steps, subject
        return None


TOKEN = re.compile(r""" \# .* | (?P<double> "(?:[^"\\]|\\.)*") | (?P<single> '(?:[^'\\]|\\.)*') | [;{}] | [^\s;{}"']+ """,
                   re.VERBOSE)
ESCAPES = {"t": "\t", "r": "\r", "n": "\n", '"': '"', "'": "'", "\\": "\\"}


def words_of(configuration: str) -> Iterator[tuple[str, bool]]:
    """The words of a configuration, as nginx reads them, and whether each is in quotes."""
    for found in TOKEN.finditer(configuration):
        word = found[0]
        if word.startswith("#"):
            continue
        is_quoted = found["double"] is not None or found["single"] is not None
        if is_quoted:
            word = word[1:-1]
        yield re.sub(r"\\(.)", lambda escape: ESCAPES.get(escape[1], escape[0]), word), is_quoted


def expressions_of(configuration: str) -> Iterator[Expression]:
    """Each word that is an expression: it begins with "~", or follows what says that it is one."""
    before = ""
    for word, is_quoted in words_of(configuration):
        if before.lstrip("!") in ("~", "~*"):
            is_of_if = word.endswith(")") and not is_quoted and word.count(")") > word.count("(")
            yield Expression(word[:-1] if is_of_if else word, caseless=before.endswith("*"))
        elif before in ("rewrite", "fastcgi_split_path_info"):
            yield Expression(word)
        elif word.lstrip("!") not in ("~", "~*"):
            if word.startswith("~"):
                yield Expression(word.lstrip("~").removeprefix("*"), caseless=word.startswith("~*"))
            else:
                assert "~" not in word, f'"{word}": is there an expression in it?'
        before = word


def configurations() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "conf.d").rglob("*.conf")):
        yield str(path.relative_to(ROOT)), path.read_text()
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("conf.d/*.md")]):
        for number, example in enumerate(re.findall(r"^ *```nginx\n(.*?)^ *```", path.read_text(), re.DOTALL | re.MULTILINE)):
            yield f"{path.relative_to(ROOT)} example {number + 1}", example


FOUND = [(name, expression) for name, text in configurations() for expression in expressions_of(text)]


@pytest.mark.parametrize(("name", "expression"), FOUND, ids=[f"{name}: {found.text}" for name, found in FOUND])
def test_it_takes_time_in_proportion_to_its_input(name: str, expression: Expression) -> None:
    worst = expression.worst()
    assert worst is None, f"{name}: {expression.text} takes {worst[0]} steps or more for {worst[1][:60]!r}…"


def test_expressions_are_found() -> None:
    assert len(FOUND) > 8
    text = """map $a $b { "~^x\\t" 1; ~*y 2; } location ~ ^/z { if ($c !~* "w(v)") { rewrite ^/u /t; } } # ~no
              if ($d ~ s(r)) { }"""
    assert [found.text for found in expressions_of(text)] == ["^x\t", "y", "^/z", "w(v)", "^/u", "s(r)"]


@pytest.mark.parametrize("text", [
    "^(?<first>.*?)[ \t]*,[ \t]*bearer[ \t]*,[^,]*$", "^(a+)+$", "a.*b", "^(?:.*,)?[ \t]*,.*x$", "[ \t]+$", "(x|x)*y",
    "^.*/.*/.*z", "^(?:a|ab|b)*;$", "^[^;]*,[^;]*;",
])  # fmt: skip
def test_one_that_takes_more_is_found(text: str) -> None:
    assert Expression(text).worst() is not None
