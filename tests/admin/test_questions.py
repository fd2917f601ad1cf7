"""What a request asks is read, or refused with one line that names what is wrong."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from evproxy.admin.answers import Problem
from evproxy.admin.operations import MOST_ID, Operation, find
from evproxy.admin.questions import read_body, read_query
from evproxy.config.declare import setting
from evproxy.config.reading import Surroundings
from evproxy.config.rules import Choice, Seconds, Text, Whole

JSON = "application/json"


@frozen
class Question:
    """A question with a required field."""

    kind: str = setting(Choice(("a", "b")), "A choice.")
    most: int = setting(Whole(0, 10), "A number.", default=3)
    within: float = setting(Seconds(0), "A time.", default=0.0)
    name: str = setting(Text(), "A text.", default="")


def query(text: str) -> Question:
    found = read_query(Question, text)
    assert isinstance(found, Question)
    return found


def body(data: bytes, content_type: str = JSON) -> Question:
    found = read_body(Question, data, content_type, Surroundings())
    assert isinstance(found, Question)
    return found


def test_a_query() -> None:
    """Each parameter has the value that is said, or its default."""
    assert query("kind=a&most=7&name=x%20y%2Fz") == Question("a", 7, 0.0, "x y/z")
    assert query("kind=b&within=2.5") == Question("b", 3, 2.5)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "kind: required, but missing"),
        ("kind=c", 'kind: expected one of "a" or "b", got "c"'),
        ("kind=a&most=x", 'most: expected a whole number from 0 to 10, got "x"'),
        ("kind=a&most=", 'most: expected a whole number from 0 to 10, got ""'),
        ("kind=a&mots=1", '"mots": unknown parameter, did you mean "most"?'),
        ("kind=a&kind=a", "kind: given twice"),
        ("kind=%ff", "the query is not UTF-8"),
        ("&".join(f"p{n}=1" for n in range(33)), "the query has more than 32 parameters"),
    ],
)
def test_a_wrong_query(text: str, line: str) -> None:
    """The line names the parameter."""
    with pytest.raises(Problem) as raised:
        query(text)
    assert (raised.value.code, str(raised.value)) == (400, line)


def test_a_body() -> None:
    """Whole numbers are whole in any spelling, as in JSON Schema."""
    assert body(b'{"kind": "a", "most": 7}') == Question("a", 7)
    assert body(b'{"kind": "a", "most": 7.0}', f"{JSON}; charset=utf-8") == Question("a", 7)


@pytest.mark.parametrize(
    ("data", "content_type", "code", "line"),
    [
        (b"", JSON, 400, "kind: required, but missing"),
        (b"{", JSON, 400, "the body is not JSON in UTF-8"),
        (b"\xff\xff", JSON, 400, "the body is not JSON in UTF-8"),
        (b'{"most": NaN}', JSON, 400, "the body is not JSON in UTF-8"),
        (b'{"most": 1e999}', JSON, 400, "the body is not JSON in UTF-8"),
        (b"[" * 50_000, JSON, 400, "the body is not JSON in UTF-8"),
        (b"[1]", JSON, 400, "the body: expected a JSON object"),
        (b'{"kind": 1}', JSON, 400, 'kind: expected one of "a" or "b", got 1'),
        (
            b'{"kind": "a", "most": true, "x": 1}',
            JSON,
            400,
            "x: unknown key (and 1 more)",
        ),
        (b"kind=a", "application/x-www-form-urlencoded", 415, None),
        (b'{"kind": "a"}', "text/plain", 415, None),
        (b'{"kind": "a"}', "", 415, None),
    ],
)
def test_a_wrong_body(data: bytes, content_type: str, code: int, line: str | None) -> None:
    """The line names the key; a form of a page of another site is never JSON."""
    with pytest.raises(Problem) as raised:
        body(data, content_type)
    assert raised.value.code == code
    expected = "Content-Type: expected application/json for the body" if line is None else line
    assert str(raised.value) == expected


def test_nothing_expected() -> None:
    """Where nothing is expected, an empty body or object is right, and anything else is not."""
    assert read_query(None, "") is None
    assert read_body(None, b"", "", Surroundings()) is None
    assert read_body(None, b"{}", JSON, Surroundings()) is None
    with pytest.raises(Problem, match="nothing is expected in the body"):
        read_body(None, b'{"x": 1}', JSON, Surroundings())
    with pytest.raises(Problem, match="unknown parameter"):
        read_query(None, "x=1")


@given(st.text(), st.binary())
def test_any_input(text: str, data: bytes) -> None:
    """Any query and any body are read, or refused with one line."""
    for read in (lambda: query(text), lambda: body(data)):
        try:
            read()
        except Problem as problem:
            refused = problem
        else:
            continue
        assert refused.code in (400, 415)
        assert str(refused).isprintable()


@given(st.sampled_from("ab"), st.integers(0, 10), st.text(st.characters(codec="utf-8")))
def test_any_right_query(kind: str, most: int, name: str) -> None:
    """What is encoded as a query is read as it was."""
    text = urlencode({"kind": kind, "most": most, "name": name})
    assert query(text) == Question(kind, most, 0.0, name)


def operation(method: str, path: str) -> Operation:
    return Operation(method, path, "name", "Does it.", lambda context, asked: None)  # type: ignore[arg-type,return-value]


ONE, OTHER = operation("GET", "/sessions/{id}"), operation("POST", "/sessions/{id}")


def test_the_operation_of_a_path() -> None:
    """The method and the parts of the path decide; HEAD is GET without the body."""
    assert find([ONE, OTHER], "GET", ["sessions", "7"]) == (ONE, {"id": 7})
    assert find([ONE, OTHER], "HEAD", ["sessions", "7"]) == (ONE, {"id": 7})
    assert find([ONE, OTHER], "POST", ["sessions", "7"]) == (OTHER, {"id": 7})


@pytest.mark.parametrize(
    ("method", "parts", "code", "line"),
    [
        ("GET", ["x"], 404, "there is nothing at /x: /openapi.json says what there is"),
        ("GET", ["a/b\n"], 404, "there is nothing at /a%2Fb%0A: /openapi.json says what there is"),
        ("DELETE", ["sessions", "7"], 405, "DELETE is not possible here, only GET, HEAD, POST"),
        (
            "GET",
            ["sessions", "0"],
            400,
            f'id: expected a whole number from 1 to {MOST_ID}, got "0"',
        ),
        (
            "GET",
            ["sessions", "9" * 5000],
            400,
            f'id: expected a whole number from 1 to {MOST_ID}, got "{"9" * 60}…"',
        ),
    ],
)
def test_no_operation(method: str, parts: list[str], code: int, line: str) -> None:
    """The line says what is possible instead."""
    with pytest.raises(Problem) as raised:
        find([ONE, OTHER], method, parts)
    assert (raised.value.code, str(raised.value)) == (code, line)
