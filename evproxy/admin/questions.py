"""
Reads what a request asks: the query in its URL, and the JSON in its body.
"""

from __future__ import annotations

import json
from math import isinf
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from evproxy.admin.answers import Problem
from evproxy.config.declare import keys_of
from evproxy.config.problems import Problem as Fault
from evproxy.config.problems import did_you_mean, quoted, shown_path
from evproxy.config.reading import Reading, Refused, Surroundings, Unfit
from evproxy.config.rules import Many
from evproxy.config.tables import read_table
from evproxy.errors import SettingsError

MOST_PARAMETERS = 32
"""The most parameters in a query."""


def read_query(table: type | None, text: str) -> Any:
    """
    Return an instance of `table` for the query `text`; ``None`` if there is no `table`.

    :raises Problem: with the name of the first parameter that is wrong.
    """
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=MOST_PARAMETERS
        )
    except UnicodeDecodeError:
        raise Problem(400, "the query is not UTF-8") from None
    except ValueError:
        raise Problem(400, f"the query has more than {MOST_PARAMETERS} parameters") from None
    keys = {} if table is None else keys_of(table)
    given: dict[str, Any] = {}
    for name, value in pairs:
        if name not in keys:
            raise Problem(400, f"{quoted(name)}: unknown parameter{did_you_mean(name, keys)}")
        rule = keys[name].setting.rule
        several = isinstance(rule, Many)
        if name in given and not several:
            raise Problem(400, f"{name}: given twice")
        if isinstance(rule, Many):
            rule = rule.item
        try:
            read = rule.read(value)
            given[name] = (*given.get(name, ()), read) if several else read
        except Unfit as unfit:
            raise Problem(
                400, f"{name}: expected {rule.expected}, got {quoted(value)}{unfit}"
            ) from None
        except Refused as refused:
            raise Problem(400, f"{name}: {refused}") from None
    for name, each in keys.items():
        if each.required and name not in given:
            raise Problem(400, f"{name}: required, but missing")
    return None if table is None else table(**given)


def read_body(
    table: type | None, data: bytes, content_type: str, surroundings: Surroundings
) -> Any:
    """
    Return an instance of `table` for the JSON in `data`, which may be empty.

    :raises Problem: with the path of the first key that is wrong.
    """
    values: Any = {}
    if data.strip():
        if content_type.partition(";")[0].strip().lower() != "application/json":
            raise Problem(415, "Content-Type: expected application/json for the body")
        try:
            values = json.loads(data, parse_float=_number, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise Problem(400, "the body is not JSON in UTF-8") from None
        if not isinstance(values, dict):
            raise Problem(400, "the body: expected a JSON object")
    if table is None:
        if values:
            raise Problem(400, f"{quoted(next(iter(values)))}: nothing is expected in the body")
        return None
    reading = Reading(surroundings)
    try:
        read = read_table(table, values, (), reading)
    except SettingsError as error:
        raise Problem(400, str(error)) from None
    if reading.problems:
        raise Problem(400, _line(reading.problems))
    return read


def _number(text: str) -> float | int:
    """The number in `text`; whole ones are whole, as in JSON Schema, however they are written."""
    number = float(text)
    if isinf(number):
        raise ValueError(f"{text} is out of range")
    return int(number) if number.is_integer() else number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _line(faults: list[Fault]) -> str:
    first, more = faults[0], len(faults) - 1
    line = f"{shown_path(first.path)}: {first.message}"
    return f"{line} (and {more} more)" if more else line
