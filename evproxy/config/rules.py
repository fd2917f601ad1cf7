"""
What a setting may be: a `Rule` for each kind of value.

One rule serves every place that a setting can be given in.  The configuration file and the
library ask it to `accept` a value, the command line to `read` a text; the reference and every
message quote its `expected`, and the JSON Schema of the file is made of its `schema`.
"""

from __future__ import annotations

import posixpath
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from attrs import Factory, field, frozen

from evproxy.config.problems import Path, Problem, did_you_mean, listed, shown

YEAR = 31536000
"""The longest time that can be set, in seconds: far below what an event loop's timer can hold."""

Fault = Callable[[str], str | None]
"""Looks closer at a text: why it is refused, ``None`` if it is not."""

Schema = dict[str, Any]
"""A JSON Schema, draft 2020-12, or a part of one."""


class Unfit(Exception):
    """A value is not what a `Rule` expects; the message, if any, says what is wrong with it."""


class Refused(Exception):
    """A value is refused.  The message is what follows the key's path in a `Problem`."""


@frozen
class Surroundings:
    """
    What the meaning of a value depends on besides the value.

    `directory` is put before the paths that are not absolute; empty: they stay as they are.
    An upstream server's endpoint must satisfy `endpoint_fault` too, and that of a listener
    `listen_fault`, if there is one.
    """

    directory: str = ""
    endpoint_fault: Fault | None = None
    listen_fault: Fault | None = None


@frozen
class Reading:
    """
    One pass over values that belong together: collects every problem instead of the first.

    `surroundings`: what the meaning of the values depends on.  `show`: how a message shows a
    value; by default as a file has it.
    """

    surroundings: Surroundings = Surroundings()
    show: Callable[[Any], str] = shown
    problems: list[Problem] = Factory(list)

    def value(self, rule: Rule, value: object, path: Path) -> Any:
        """The setting that `value` stands for; if there is none, a problem at `path` says why."""
        try:
            return rule.accept(value, path, self)
        except Unfit as unfit:
            self.problem(path, f"expected {rule.expected}, got {self.show(value)}{unfit}")
        except Refused as refused:
            self.problem(path, str(refused))
        return None

    def problem(self, path: Path, message: str) -> None:
        """There is something wrong with the value at `path`."""
        self.problems.append(Problem(path, message))


@frozen
class Rule:
    """What a setting may be; `expected` says it in words."""

    @property
    def expected(self) -> str:
        """What is expected, in words that fit a message and the reference."""
        raise NotImplementedError

    @property
    def schema(self) -> Schema:
        """The same as JSON Schema, as far as that can say it."""
        raise NotImplementedError

    def accept(self, value: Any, path: Path, reading: Reading) -> Any:
        """
        The setting that `value`, from a file or from a program, stands for.

        Problems inside of it are added to `reading`, below `path`.

        :raises Unfit: if it is not what is expected.
        :raises Refused: if something else is wrong with it.
        """
        raise NotImplementedError

    def read(self, text: str) -> Any:
        """
        The setting that `text`, the value of an option, stands for.

        :raises Unfit: if it is not what is expected.
        """
        return self.accept(text, (), Reading())


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
class Seconds(Rule):
    """A time in seconds: a whole number or not, from `low` to `high`, never ``nan`` or ``inf``."""

    low: float
    high: float = YEAR

    @property
    def expected(self) -> str:
        return f"a number of seconds from {self.low:g} to {self.high}"

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
    """A text that `pattern` matches from end to end; `expected` says that in words."""

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
    """A text that `fault` finds nothing wrong with; a message says what it found."""

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
        # An empty one, where it may be, stays so.
        directory = reading.surroundings.directory
        return posixpath.join(directory, accepted) if accepted else accepted


@frozen
class WordOrPath(FilePath):
    """One of the `words`, or the path of a file; none is taken for a word that is misspelt."""

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
    """An array of values fit for the rule `item`, at least `least` of them; `expected` in words."""

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
    A value fit for the rule `item`, or an array of some; a tuple of them either way.

    `fault` looks at all of them: why they cannot be together, ``None`` if they can.
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
    """Why `pattern` is no regular expression for bytes, as Python's `re` has them."""
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
    """A hint where a number, or a string, perhaps with commas, stands for an array of items."""
    if type(value) not in (str, int):
        return ""
    parts = list(map(str.strip, value.split(","))) if isinstance(value, str) else [value]
    trial = Reading(reading.surroundings)
    for part in parts:
        trial.value(item, part, ())
    if trial.problems:
        return ""
    return f", did you mean [{', '.join(map(shown, parts))}]?"
