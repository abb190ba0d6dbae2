"""Finds what can be mutated in a C++ source, and writes the source with all mutants in it, each of them switched off.

Every mutant has a number, and is on in a process that has PAT_MUTANT=number in its environment (pat_mutation.h). So all
mutants are compiled once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from clang.cindex import Cursor, CursorKind, Index, TranslationUnit, TypeKind  # type: ignore

COMPARISONS = {"<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal"}
SHIFTED = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
ARITHMETIC = {"+": ("plus", "-"), "-": ("minus", "+"), "&": ("bit_and", "|"), "|": ("bit_or", "&")}
# Of no use to mutate, as only the compiler evaluates it.
CONSTANT = {
    CursorKind.STATIC_ASSERT,
    CursorKind.MACRO_DEFINITION,
    CursorKind.MACRO_INSTANTIATION,
    CursorKind.TYPE_ALIAS_DECL,
}
DROPPED = {CursorKind.CALL_EXPR, CursorKind.COMPOUND_ASSIGNMENT_OPERATOR, CursorKind.BREAK_STMT, CursorKind.CONTINUE_STMT}
SCALARS = {TypeKind.POINTER, TypeKind.ENUM}
# Classes of which `{}` is a value that can be returned instead.
EMPTY = ("std::optional<", "std::string_view", "std::basic_string_view<", "std::span<")


@dataclass
class Mutant:
    """One change. `text` is the line of the source that it changes."""

    number: int
    file: str
    line: int
    text: str
    change: str


@dataclass
class Site:
    """A piece of the source, and what stands before and behind it, or instead of it, in the mutated source."""

    start: int
    end: int
    line: int
    before: str  # with {n}, the number of the first mutant
    behind: str
    changes: list[str]
    operator: tuple[int, int] | None = None  # the offset and the length of what becomes a comma
    number: int = field(default=-1)


class Finder:
    """Finds the sites of one source file, outer ones first."""

    def __init__(self, path: Path, flags: list[str]) -> None:
        self.source = path.read_bytes()
        self._path = str(path)
        self.sites: list[Site] = []
        unit = Index.create().parse(
            self._path, ["-x", "c++", *flags], options=TranslationUnit.PARSE_DETAILED_PROCESSING_RECORD
        )
        errors = [str(each) for each in unit.diagnostics if each.severity >= 3]
        if errors:
            raise SystemExit(f"mutate: clang does not understand {path}:\n" + "\n".join(errors))
        for cursor in unit.cursor.get_children():
            if cursor.location.file is not None and cursor.location.file.name == self._path:
                self._visit(cursor)

    def _visit(self, cursor: Cursor) -> None:
        if cursor.kind in CONSTANT:
            return
        children = self._evaluated(cursor, list(cursor.get_children()))
        if cursor.kind == CursorKind.COMPOUND_STMT:
            for child in children:
                self._drop(child)
        elif cursor.kind in (CursorKind.IF_STMT, CursorKind.WHILE_STMT, CursorKind.CONDITIONAL_OPERATOR):
            self._negate(condition(children))
        elif cursor.kind == CursorKind.UNARY_OPERATOR and self._text(cursor).startswith("!"):
            self._negate(children[0])
        elif cursor.kind == CursorKind.RETURN_STMT and children:
            self._return(children[0])
        elif cursor.kind in (CursorKind.BINARY_OPERATOR, CursorKind.CALL_EXPR) and len(children) >= 2:
            self._operator(cursor, children[0], children[-1])
        for child in children:
            self._visit(child)

    def _evaluated(self, cursor: Cursor, children: list[Cursor]) -> list[Cursor]:
        """The children that are evaluated at run time, of a cursor that is."""
        if cursor.kind in (CursorKind.VAR_DECL, CursorKind.FIELD_DECL):
            name = cursor.location.offset
            children = [child for child in children if child.extent.start.offset >= name]  # not those of the type
            if b"constexpr" in self.source[cursor.extent.start.offset : name].split():
                return [child for child in children if bare(child).kind == CursorKind.LAMBDA_EXPR]
        elif children and children[-1].kind == CursorKind.COMPOUND_STMT:
            declaration = self.source[cursor.extent.start.offset : children[-1].extent.start.offset]
            return [] if b"consteval" in declaration.split() else children
        return children

    def _text(self, cursor: Cursor) -> str:
        return self.source[cursor.extent.start.offset : cursor.extent.end.offset].decode()

    def _add(self, cursor: Cursor, before: str, behind: str, *changes: str, until: int = 0,
             operator: tuple[int, int] | None = None) -> None:
        start = cursor.extent.start
        end = until or cursor.extent.end.offset
        if start.file is not None and start.file.name == self._path and start.offset < end:
            self.sites.append(Site(start.offset, end, start.line, before, behind, list(changes), operator))

    def _between(self, left: Cursor, right: Cursor) -> tuple[str, int]:
        """The operator between its operands, and where it is. It is empty where a macro has the operator."""
        start = left.extent.end.offset
        text = self.source[start : right.extent.start.offset].decode()
        return text.strip(), start + len(text) - len(text.lstrip())

    def _operator(self, cursor: Cursor, left: Cursor, right: Cursor) -> None:
        operator, offset = self._between(left, right)
        place = (offset, len(operator))
        if operator in COMPARISONS:
            self._add(cursor, f"::pat::mutation::{COMPARISONS[operator]}({{n}}, ", ")",
                      f"{operator} becomes {SHIFTED[operator]}", f"{operator} becomes {OPPOSITE[operator]}",
                      operator=place)
        elif operator in ("==", "!="):
            self._add(cursor, "(::pat::mutation::is_on({n}) != (", "))", f"{operator} becomes {OPPOSITE[operator]}")
        elif operator == "&&":
            for operand in self._operands(operator, left, right):
                self._add(operand, "(::pat::mutation::is_on({n}) || (", "))", f"{self._text(operand)} is taken as true")
        elif operator == "||":
            for operand in self._operands(operator, left, right):
                self._add(operand, "(!::pat::mutation::is_on({n}) && (", "))",
                          f"{self._text(operand)} is taken as false")
        elif operator in ARITHMETIC and is_integer(left) and is_integer(right):
            function, other = ARITHMETIC[operator]
            self._add(cursor, f"::pat::mutation::{function}({{n}}, ", ")", f"{operator} becomes {other}",
                      operator=place)

    def _operands(self, operator: str, *operands: Cursor) -> list[Cursor]:
        """Those that are not made of the same operator, whose operands get mutants of their own."""
        return [each for each in operands if self._operator_of(each) != operator]

    def _operator_of(self, cursor: Cursor) -> str:
        children = list(bare(cursor).get_children())
        return self._between(children[0], children[-1])[0] if len(children) >= 2 else ""

    def _is_negated_already(self, cursor: Cursor) -> bool:
        is_not = bare(cursor).kind == CursorKind.UNARY_OPERATOR and self._text(bare(cursor)).startswith("!")
        return is_not or self._operator_of(cursor) in OPPOSITE

    def _negate(self, cursor: Cursor | None) -> None:
        if cursor is not None and not self._is_negated_already(cursor):
            self._add(cursor, "(::pat::mutation::is_on({n}) != static_cast<bool>(", "))",
                      f"{self._text(cursor)} is negated")

    def _return(self, cursor: Cursor) -> None:
        kind = cursor.type.get_canonical().kind
        spelling = cursor.type.get_canonical().spelling.removeprefix("const ")
        if self._text(cursor).startswith("{") or self._text(cursor) in ("nullptr", "std::nullopt", '""'):
            return
        if kind == TypeKind.BOOL:
            self._negate(cursor)
        change = f"another value than {self._text(cursor)} is returned"
        if kind in SCALARS or is_integer(cursor):
            self._add(cursor, "::pat::mutation::returned({n}, ", ")", change)
        elif spelling.startswith(EMPTY) and "(anonymous" not in spelling:
            # What it is made of, such as the array that a span refers to, must not be copied.
            self._add(cursor, f"::pat::mutation::returned<{spelling}>({{n}}, ", ")", change)

    def _drop(self, cursor: Cursor) -> None:
        statement = bare(cursor)
        children = list(statement.get_children())
        is_assignment = len(children) == 2 and self._between(children[0], children[1])[0] == "="
        is_step = statement.kind == CursorKind.UNARY_OPERATOR and self._text(statement)[:2] in ("++", "--")
        if not (statement.kind in DROPPED or is_assignment or is_step):
            return
        end = cursor.extent.end.offset
        rest = self.source[end:]
        space = len(rest) - len(rest.lstrip())
        if rest[space : space + 1] == b";":
            self._add(cursor, "if (!::pat::mutation::is_on({n})) { ", " }", f"{self._text(cursor)} is dropped",
                      until=end + space + 1)


def bare(cursor: Cursor) -> Cursor:
    """An expression without what the compiler adds around it."""
    while cursor.kind in (CursorKind.UNEXPOSED_EXPR, CursorKind.PAREN_EXPR):
        children = list(cursor.get_children())
        if len(children) != 1:
            break
        cursor = children[0]
    return cursor


def condition(children: list[Cursor]) -> Cursor | None:
    """The condition among the children of a statement, unless it declares a variable that the statement uses."""
    if any(child.kind == CursorKind.VAR_DECL for child in children):
        return None
    return next((child for child in children if child.kind.is_expression()), None)


def is_integer(cursor: Cursor) -> bool:
    kind = cursor.type.get_canonical().kind
    return bool(TypeKind.BOOL.value < kind.value <= TypeKind.INT128.value)


def find(root: Path, file: str, flags: list[str], first: int, excluded: set[tuple[str, int]]) -> tuple[bytes, list[Mutant]]:
    """The mutated source, and its mutants, numbered from `first`. Lines that are excluded keep what they are."""
    finder = Finder(root / file, flags)
    lines = finder.source.decode().splitlines()
    mutants: list[Mutant] = []
    sites = [site for site in finder.sites if (file, site.line) not in excluded]
    for site in sites:
        site.number = first + len(mutants)
        text = lines[site.line - 1].strip()
        for change in site.changes:
            mutants.append(Mutant(first + len(mutants), file, site.line, text, " ".join(change.split())))
    return mutated(finder.source, sites, len(lines)), mutants


def edits(sites: list[Site]) -> Iterator[tuple[int, int, int, int, str]]:
    """(offset, 0 for what closes, order, bytes that go, what comes). Where several meet, what closes comes first: inner
    sites before outer ones; what opens follows: outer sites before inner ones."""
    for order, site in enumerate(sites):
        yield site.end, 0, -order, 0, site.behind
        yield site.start, 1, order, 0, site.before.replace("{n}", str(site.number))
        if site.operator is not None:
            yield site.operator[0], 2, 0, site.operator[1], ","


def mutated(source: bytes, sites: list[Site], lines: int) -> bytes:
    result = []
    done = 0
    for offset, _, _, length, text in sorted(edits(sites)):
        result += [source[done:offset], text.encode()]
        done = offset + length
    result.append(source[done:])
    return b'#include "core/pat_mutation.h"\n#line 1\n' + b"".join(result)
