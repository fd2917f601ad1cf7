"""
What a value in the file may be, one `Rule` for each kind of value.

A rule says what it expects in words that fit both an error message and the reference
(``docs/configuration.md`` repeats them, and a test compares the two).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

from attrs import frozen
from cattrs import IterableValidationError, IterableValidationNote

from evproxy.config.problems import did_you_mean, listed, shown
from evproxy.settings import YEAR


class Refused(Exception):
    """A value is refused.  The message is what follows the key's path in a `Problem`."""


class Unfit(Exception):
    """A value is not what a `Rule` expects; the message, if any, says what is wrong with it."""


@frozen
class Rule:
    """
    What one key may be set to.

    `expected` says it in words.  `accept` gives the setting for a value from the file, or
    raises `Unfit`.  `inside` is the type that cattrs structures the accepted value into,
    for tables and arrays of them; ``None`` if `accept` did all.
    """

    expected: str
    accept: Callable[[Any], Any]
    inside: Any = None

    def __call__(self, value: object) -> Any:
        """The setting that `value` stands for.  Raises `Refused`."""
        try:
            return self.accept(value)
        except Unfit as unfit:
            raise Refused(f"expected {self.expected}, got {shown(value)}{unfit}") from None


def whole(low: int, high: int) -> Rule:
    """A TOML integer from `low` to `high`; ``true`` is not 1."""

    def accept(value: object) -> int:
        if type(value) is int and low <= value <= high:
            return value
        raise Unfit

    return Rule(f"a whole number from {low} to {high}", accept)


def seconds(low: float, high: float = YEAR) -> Rule:
    """A time: a TOML integer or float from `low` to `high`, never ``nan`` or ``inf``."""

    def accept(value: object) -> float:
        if type(value) in (int, float) and low <= value <= high:  # type: ignore[operator]
            return float(value)  # type: ignore[arg-type]
        raise Unfit

    return Rule(f"a number of seconds from {low} to {high}", accept)


def flag() -> Rule:
    """A TOML boolean; 1 is not true."""

    def accept(value: object) -> bool:
        if isinstance(value, bool):
            return value
        raise Unfit

    return Rule("true or false", accept)


def choice(*options: str) -> Rule:
    """One of the `options`."""

    def accept(value: object) -> str:
        if not isinstance(value, str):
            raise Unfit
        if value not in options:
            raise Unfit(did_you_mean(value, options))
        return value

    return Rule(f"one of {listed(options, 'or')}", accept)


def text() -> Rule:
    """Any string."""
    return matching("a string", r".*")


def matching(expected: str, pattern: str) -> Rule:
    """A string that `pattern` matches from end to end."""
    compiled = re.compile(pattern, re.DOTALL)

    def accept(value: object) -> str:
        if isinstance(value, str) and compiled.fullmatch(value):
            return value
        raise Unfit

    return Rule(expected, accept)


def judged(expected: str, fault: Callable[[str], str | None]) -> Rule:
    """A string with which `fault` finds no fault; what it finds is told after what it got."""

    def accept(value: object) -> str:
        if not isinstance(value, str):
            raise Unfit
        found = fault(value)
        if found is not None:
            raise Unfit(f": {found}")
        return value

    return Rule(expected, accept)


def regular_expression() -> Rule:
    """A regular expression that can be compiled for bytes, as Python's `re` has them."""
    return judged("a regular expression", _pattern_fault)


def _pattern_fault(pattern: str) -> str | None:
    try:
        with warnings.catch_warnings(action="ignore"):
            re.compile(pattern.encode())
    except re.error as error:
        return error.msg
    except (ValueError, OverflowError) as error:
        return str(error)
    except RecursionError:
        return "it is nested too deeply"
    return None


def table(inside: Any) -> Rule:
    """A TOML table, structured into the type `inside`."""

    def accept(value: object) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        raise Unfit

    return Rule("a table", accept, inside)


def tables(inside: Any) -> Rule:
    """A table of named tables, structured into the mapping type `inside`."""
    return Rule("a table of tables", table(inside).accept, inside)


def array(expected: str, inside: Any) -> Rule:
    """A TOML array, structured into the sequence type `inside`."""

    def accept(value: object) -> list[Any]:
        if isinstance(value, list):
            return value
        raise Unfit

    return Rule(expected, accept, inside)


def many(expected: str, item: Rule) -> Rule:
    """A TOML array, perhaps empty, of values fit for the rule `item`; a tuple of them."""

    def accept(value: object) -> tuple[Any, ...]:
        if isinstance(value, list):
            return _each(value, item)
        raise Unfit

    return Rule(expected, accept)


def some(expected: str, item: Rule) -> Rule:
    """A TOML array of at least one value fit for the rule `item`; a tuple of them."""
    perhaps_empty = many(expected, item)

    def accept(value: object) -> tuple[Any, ...]:
        if value == []:
            raise Unfit(" that is empty")
        accepted: tuple[Any, ...] = perhaps_empty.accept(value)
        return accepted

    return Rule(expected, accept)


def _each(values: list[Any], item: Rule) -> tuple[Any, ...]:
    """What `item` makes of each value; every refusal is raised at once, noted with its index."""
    accepted: list[Any] = []
    refusals: list[Exception] = []
    for index, value in enumerate(values):
        try:
            accepted.append(item(value))
        except Refused as refusal:
            refusal.add_note(IterableValidationNote(f"item {index}", index, tuple))
            refusals.append(refusal)
    if refusals:
        raise IterableValidationError("in an array", refusals, tuple)
    return tuple(accepted)
