"""The escaping of text from outside before it is logged."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evproxy.escape import escaped, printable

TROUBLE = [
    ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
    ("\x1b]8;;http://a\x1b\\link", r"\x1b]8;;http://a\x1b\link"),
    ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
    ("\x9b2J\x90\x9d\x85", r"\x9b2J\x90\x9d\x85"),
    ("a\nb\r\tc\0\x7f", r"a\nb\r\tc\x00\x7f"),
    ("\u202agood\u202e\u202c", r"\u202agood\u202e\u202c"),
    ("\u2066a\u2067b\u2068c\u2069", r"\u2066a\u2067b\u2068c\u2069"),
    ("\u200e\u200f\u061c", r"\u200e\u200f\u061c"),
    ("a\u2028b\u2029", r"a\u2028b\u2029"),
    ("a\u200b\u200c\u200d\u2060\ufeff\xad", r"a\u200b\u200c\u200d\u2060\ufeff\xad"),
    ("a\u034f\ufe0f\u3164\u115f", r"a\u034f\ufe0f\u3164\u115f"),
    ("\udc80\ud800", r"\udc80\ud800"),
    ("\U000e0041\U000e0100", r"\U000e0041\U000e0100"),
    ("\xa0\u3000\ue000\uffff", r"\xa0\u3000\ue000\uffff"),
]


@pytest.mark.parametrize(("text", "expected"), TROUBLE)
def test_trouble(text: str, expected: str) -> None:
    """Control characters never reach a terminal, alone or within a line."""
    assert escaped(text) == printable(text) == expected


@pytest.mark.parametrize(
    "text", ["", "10.0.0.1:80", "bücher.example", "東京 ☃", r"tcp:8080:interface=\:\:1", "a\\"]
)
def test_plain_text(text: str) -> None:
    """Printable text stays unchanged."""
    assert escaped(text) == printable(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\x1b[31m", r"\\x1b[31m"),
        (r"a\nb", r"a\\nb"),
        (r"\\:", r"\\\:"),
        ("\\\x1b", r"\\\x1b"),
        (r"C:\dir\new", r"C:\dir\\new"),
    ],
)
def test_backslashes(text: str, expected: str) -> None:
    """Text that looks escaped already is escaped again, so it stays unambiguous."""
    assert escaped(text) == expected


def unescaped(text: str) -> str:
    """Return the text from which `escaped` made `text`."""

    def meant(found: re.Match[str]) -> str:
        return "\\" if found[0] == r"\\" else found[0].encode().decode("unicode_escape")

    return re.sub(r"\\(?:[\\nrt]|x..|u.{4}|U.{8})", meant, text)


ANY = st.text(
    st.characters() | st.sampled_from("\\nrtxuU0123456789abcdef\x1b\x9b\u202e\ud800\ufe0f")
)


@given(ANY)
@example("\\")
@example("\\\\\x1b\\x1b")
def test_nothing_is_lost(text: str) -> None:
    """Whatever the text, the result is printable, and the text can be recovered from it."""
    assert escaped(text).isprintable()
    assert unescaped(escaped(text)) == text


@given(ANY)
def test_a_printable_line_stays(text: str) -> None:
    """`printable` leaves a printable line unchanged, however often it is called."""
    line = printable(text)
    assert line.isprintable()
    assert printable(line) == line
    assert printable(escaped(text)) == escaped(text)
