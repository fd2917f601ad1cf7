"""
The fuzz contract of the configuration file: any text gives settings, or the one documented
error with one line for each problem.
"""

from __future__ import annotations

import copy
import datetime
import json
import math
import tomllib
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from evproxy.config.document import ConfigErrors, parse
from evproxy.config.reading import Surroundings
from evproxy.settings import Settings
from tests.support.configs import EVERYTHING, SOUND

FRAGMENTS = st.sampled_from(
    [
        *("listeners", "pools", "web", "timeouts", "name", "listen", "upstreams", "weight", "kind"),
        *("[[", "]]", "[", "]", "{", "}", "=", ".", ",", "\n", '"', "'", "'''", '"""', "#", "\\"),
        *("true", "nan", "-inf", "1", "1e9", "0xff", "1979-05-27", "\r\n", "\ud800", "\u2028"),
    ]
)
TOML_LIKE = st.lists(FRAGMENTS | st.text(max_size=5), max_size=40).map("".join)

KEYS = st.text(max_size=8) | st.sampled_from(
    ["name", "pool", "listen", "upstreams", "endpoint", "weight", "kind", "path", "discover", "tls"]
)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(),
    st.sampled_from([0, 1, 2**63, -(2**63), 10**400]),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["http", "dns", "tcp", "send-expect", "web", "a:1", "tcp:0", "unix:x", "::1"]),
    st.dates(),
    st.datetimes(),
    st.times(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


def check(text: str) -> None:
    """`text` keeps the contract."""
    outcome = parsed(text)
    if isinstance(outcome, Settings):
        names = {pool.name for pool in outcome.pools}
        assert {listener.pool for listener in outcome.listeners} <= names
    else:
        assert outcome.problems
        assert all(line.isprintable() for line in (*outcome.problems, str(outcome)))


def parsed(text: str) -> Settings | ConfigErrors:
    try:
        return parse(text, Surroundings("/etc/evproxy"))
    except ConfigErrors as errors:
        return errors


def toml(value: Any) -> str:
    """`value` as it is written in TOML, tables inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return str(value)


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in `value` with each of its keys or indices."""
    if isinstance(value, dict):
        steps: list[Any] = list(value)
    elif isinstance(value, list):
        steps = list(range(len(value)))
    else:
        return []
    return [place for step in steps for place in [(value, step), *places(value[step])]]


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A good document with some values replaced, removed, renamed or added."""
    document = copy.deepcopy(tomllib.loads(draw(st.sampled_from([SOUND, EVERYTHING]))))
    for _ in range(draw(st.integers(1, 4))):
        container, step = draw(st.sampled_from(places(document) or [(document, "x")]))
        change = draw(st.sampled_from(["replace", "remove", "rename", "add", "borrow"]))
        if change == "replace":
            container[step] = draw(VALUES)
        elif change == "borrow":
            lender, other = draw(st.sampled_from(places(document) or [({"x": 1}, "x")]))
            container[step] = copy.deepcopy(lender[other])
        elif change == "remove" and step in (container if isinstance(container, dict) else [step]):
            del container[step]
        elif isinstance(container, list):
            container.append(draw(VALUES))
        elif change == "rename" and step in container:
            container[draw(KEYS)] = container.pop(step)
        else:
            container[draw(KEYS)] = draw(VALUES)
    return document


@given(st.text() | TOML_LIKE)
@example("a = " + "[" * 3000)
@example("a = " + "{a=" * 3000)
@example("a." * 300 + "a = 1")
@example("a = " + "1" * 5000)
def test_any_text(text: str) -> None:
    """Any text gives settings or the error."""
    check(text)


@given(TOML_LIKE, st.integers(0, len(EVERYTHING)), st.integers(0, 30))
def test_any_edit(inserted: str, place: int, removed: int) -> None:
    """A good file with some text replaced gives settings or the error."""
    check(EVERYTHING[:place] + inserted + EVERYTHING[place + removed :])


@given(mutated())
def test_any_document(document: dict[str, Any]) -> None:
    """A good file with some values replaced is still TOML, and gives settings or the error."""
    text = "".join(f"{quoted(key)} = {toml(value)}\n" for key, value in document.items())
    tomllib.loads(text)
    check(text)


@given(st.text(max_size=30))
def test_any_pattern(pattern: str) -> None:
    """Any text as a regular expression gives settings or the error."""
    value = quoted(pattern)
    check(f'{SOUND}health_check = {{kind = "send-expect", expect_pattern = {value}}}\n')
