"""Lists in CSV cells."""

from __future__ import annotations

import pytest
from pat_sync.sources.file.lists import parse_list
from pat_sync.sources.file.record import BadRecord


@pytest.mark.parametrize(
    "cell, elements",
    [
        ("", []),
        ("  ", []),
        ("api:read  csv:write", ["api:read", "csv:write"]),
        ("orders[1]", ["orders[1]"]),
        ("{api:read,csv:write}", ["api:read", "csv:write"]),
        (" { a , b c } ", ["a", "b c"]),
        ("{}", []),
        ("{ }", []),
        (r'{"a,b","c}","d\"\\",e\,f}', ["a,b", "c}", 'd"\\', "e,f"]),
        ('{"null","","x "}', ["null", "", "x "]),
        (r"{n\ull}", ["null"]),
        (r"{a\ }", ["a "]),
        (r"{a\\ }", ["a\\"]),
        ("[1:2]={a,b}", ["a", "b"]),
        ("[-1:-1]={a}", ["a"]),
        ("{192.0.2.0/24,2001:db8::/32}", ["192.0.2.0/24", "2001:db8::/32"]),
    ],
)
def test_what_postgresql_writes_is_what_it_meant(cell: str, elements: list[str]) -> None:
    assert parse_list(cell) == elements


@pytest.mark.parametrize(
    "cell, cause",
    [
        ("api:read,csv:write", "looks like a list of another kind"),
        ("api:read, csv:write", "separate the elements by spaces"),
        ("a;b", "looks like"),
        ("a|b", "looks like"),
        ('["a","b"]', "looks like"),
        ("[a b]", "looks like"),
        ('"a" "b"', "looks like"),
        ("{a,NULL}", "NULL"),
        ("{null}", "NULL"),
        ("{{a},{b}}", "array of arrays"),
        ("{a,{b}}", "array of arrays"),
        ("[1:2][1:1]={{a},{b}}", "looks like"),
        ("{a", "does not end"),
        (r"{a\}", "does not end"),
        ('{"a}', "unclosed"),
        ("{a,}", "empty"),
        ("{,a}", "empty"),
        ("{a,,b}", "empty"),
        ("{a}b", "behind the end"),
        ("{a}}", "behind the end"),
        ("{a}{b}", "behind the end"),
        ('{"a"b}', "after a quoted element"),
        ('{a"b"}', "in an unquoted element"),
        ("{a{b}", "in an unquoted element"),
        ("[1:3]={a,b}", "bounds"),
        ("[1:2]=a", "not an array"),
        pytest.param("[1:" + 5000 * "9" + "]={a}", "looks like", id="a bound without end"),
    ],
)
def test_any_other_list_is_refused(cell: str, cause: str) -> None:
    with pytest.raises(BadRecord, match=cause):
        parse_list(cell)


def test_a_long_cell_takes_no_time_to_refuse() -> None:
    with pytest.raises(BadRecord):
        parse_list("{a" + " " * 60000 + '"}')
    assert parse_list("{a" + " " * 60000 + "}") == ["a"]
