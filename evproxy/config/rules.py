"""The values that a setting accepts: a `Rule` for each kind of value."""

from __future__ import annotations

import posixpath
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from attrs import field, frozen

from evproxy.config.problems import Path, did_you_mean, listed, shown
from evproxy.config.reading import Fault, Reading, Refused, Rule, Schema, Unfit

YEAR = 31536000
"""The longest time that can be set, in seconds: far below what an event loop's timer can hold."""

MOST_SESSIONS = 1_000_000_000
"""The highest bound on sessions that can be set."""

HIGHEST_PORT = 65535

AUTO = "auto"
"""A number that follows from the machine."""


@frozen
class Whole(Rule):
    """A whole number from `low` to `high`; ``true`` is not 1."""

    low: int
    high: int

    @property
    def expected(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    @property
    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}

    def accept(self, value: Any, path: Path, reading: Reading) -> int:
        if type(value) is int and self.low <= value <= self.high:
            return value
        raise Unfit

    def read(self, text: str) -> Any:
        # `int` refuses thousands of digits with an error of its own.
        if re.fullmatch(r"-?\d{1,19}", text, re.ASCII) is None:
            raise Unfit
        return super().read(int(text))  # type: ignore[arg-type]


@frozen
class WholeOrAuto(Rule):
    """A whole number from `low` to `high`, or ``auto``."""

    low: int
    high: int

    @property
    def expected(self) -> str:
        return f'a whole number from {self.low} to {self.high}, or "{AUTO}"'

    @property
    def schema(self) -> Schema:
        return {"anyOf": [Whole(self.low, self.high).schema, {"const": AUTO}]}

    def accept(self, value: Any, path: Path, reading: Reading) -> int | str:
        if value == AUTO:
            return AUTO
        return Whole(self.low, self.high).accept(value, path, reading)

    def read(self, text: str) -> Any:
        return AUTO if text == AUTO else Whole(self.low, self.high).read(text)


@frozen
class Number(Rule):
    """A number, whole or not, from `low` to `high`, never ``nan`` or ``inf``."""

    low: float
    high: float

    @property
    def expected(self) -> str:
        return f"a number from {self.low:g} to {self.high}"

    @property
    def schema(self) -> Schema:
        return {"type": "number", "minimum": self.low, "maximum": self.high}

    def accept(self, value: Any, path: Path, reading: Reading) -> float:
        if type(value) in (int, float) and self.low <= value <= self.high:
            return float(value)
        raise Unfit

    def read(self, text: str) -> Any:
        try:
            number = float(text)
        except ValueError:
            raise Unfit from None
        return super().read(number)  # type: ignore[arg-type]


@frozen
class Seconds(Number):
    """A time in seconds."""

    high: float = YEAR

    @property
    def expected(self) -> str:
        return f"a number of seconds from {self.low:g} to {self.high}"


@frozen
class SecondsOrZero(Seconds):
    """A time in seconds from `low` on, or 0 for none."""

    @property
    def expected(self) -> str:
        return f"0, or {super().expected}"

    @property
    def schema(self) -> Schema:
        return {"anyOf": [{"const": 0}, super().schema]}

    def accept(self, value: Any, path: Path, reading: Reading) -> float:
        if type(value) in (int, float) and value == 0:
            return 0.0
        return super().accept(value, path, reading)


@frozen
class Flag(Rule):
    """True or false; 1 is not true."""

    @property
    def expected(self) -> str:
        return "true or false"

    @property
    def schema(self) -> Schema:
        return {"type": "boolean"}

    def accept(self, value: Any, path: Path, reading: Reading) -> bool:
        if isinstance(value, bool):
            return value
        raise Unfit


@frozen
class Choice(Rule):
    """One of the `options`."""

    options: Sequence[str]

    @property
    def expected(self) -> str:
        return f"one of {listed(self.options, 'or')}"

    @property
    def schema(self) -> Schema:
        return {"enum": list(self.options)}

    def accept(self, value: Any, path: Path, reading: Reading) -> str:
        if not isinstance(value, str):
            raise Unfit
        if value not in self.options:
            raise Unfit(did_you_mean(value, self.options))
        return value


@frozen
class Matching(Rule):
    """A text that `pattern` matches from end to end."""

    expected: str = field()
    pattern: str

    @property
    def schema(self) -> Schema:
        return {"type": "string", "pattern": f"^(?:{self.pattern})$"}

    def accept(self, value: Any, path: Path, reading: Reading) -> str:
        if isinstance(value, str) and re.fullmatch(self.pattern, value, re.DOTALL):
            return value
        raise Unfit


@frozen
class Text(Rule):
    """Any text."""

    @property
    def expected(self) -> str:
        return "a string"

    @property
    def schema(self) -> Schema:
        return {"type": "string"}

    def accept(self, value: Any, path: Path, reading: Reading) -> str:
        if isinstance(value, str):
            return value
        raise Unfit


@frozen
class Judged(Rule):
    """A text that `fault` accepts; a message has the reason of `fault`."""

    expected: str = field()
    fault: Fault

    @property
    def schema(self) -> Schema:
        return {"type": "string"}

    def accept(self, value: Any, path: Path, reading: Reading) -> str:
        if not isinstance(value, str):
            raise Unfit
        found = self.fault(value)
        if found is not None:
            raise Unfit(f": {found}")
        return value


@frozen
class FilePath(Matching):
    """The path of a file, relative to the directory of the configuration file."""

    def accept(self, value: Any, path: Path, reading: Reading) -> str:
        accepted = super().accept(value, path, reading)
        if "\0" in accepted:
            raise Unfit
        # An empty path stands for "none", so it stays empty.
        directory = reading.surroundings.directory
        return posixpath.join(directory, accepted) if accepted else accepted


@frozen
class WordOrPath(FilePath):
    """One of the `words`, or the path of a file; a misspelt word does not count as a path."""

    words: Sequence[str]

    @classmethod
    def of(cls, *words: str) -> WordOrPath:
        """The rule for `words` and paths."""
        expected = f'one of {listed(words, "or")}, or a path with a "/" or a "." in it'
        pattern = "|".join([*map(re.escape, words), r".*[/.].*"])
        return cls(expected, pattern, words)

    def accept(self, value: Any, path: Path, reading: Reading) -> str:
        if value in self.words:
            return str(value)
        try:
            return super().accept(value, path, reading)
        except Unfit:
            raise Unfit(did_you_mean(value, self.words) if isinstance(value, str) else "") from None


@frozen
class Many(Rule):
    """An array of at least `least` values that the rule `item` accepts."""

    expected: str = field()
    item: Rule
    least: int = 0

    @property
    def schema(self) -> Schema:
        return {"type": "array", "items": self.item.schema, "minItems": self.least}

    def accept(self, value: Any, path: Path, reading: Reading) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise Unfit(_did_you_mean_array(value, self.item, reading))
        if len(value) < self.least:
            raise Unfit(" that is empty")
        return tuple(
            reading.value(self.item, each, (*path, index)) for index, each in enumerate(value)
        )


@frozen
class OneOrMany(Rule):
    """
    A value that the rule `item` accepts, or an array of such values; a tuple either way.

    `fault` checks all values together: the reason to refuse them, ``None`` if there is none.
    """

    expected: str = field()
    item: Rule
    fault: Callable[[Sequence[Any]], str | None]

    @property
    def schema(self) -> Schema:
        return {"anyOf": [self.item.schema, {"type": "array", "items": self.item.schema}]}

    def accept(self, value: Any, path: Path, reading: Reading) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            return (self.item.accept(value, path, reading),)
        before = len(reading.problems)
        accepted = tuple(
            reading.value(self.item, each, (*path, index)) for index, each in enumerate(value)
        )
        found = self.fault(accepted) if len(reading.problems) == before else None
        if found is not None:
            raise Refused(found)
        return accepted


def pattern_fault(pattern: str) -> str | None:
    """Why `pattern` is not a regular expression of Python's `re` for bytes; ``None`` if it is."""
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


def _did_you_mean_array(value: object, item: Rule, reading: Reading) -> str:
    """A hint for a number or a string, perhaps with commas, that should be an array of items."""
    if type(value) not in (str, int):
        return ""
    parts = list(map(str.strip, value.split(","))) if isinstance(value, str) else [value]
    trial = Reading(reading.surroundings)
    for part in parts:
        trial.value(item, part, ())
    if trial.problems:
        return ""
    return f", did you mean [{', '.join(map(shown, parts))}]?"
