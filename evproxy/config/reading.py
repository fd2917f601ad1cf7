"""
A rule: which values a setting accepts, in words, as a schema, and as code.

One rule serves every place that can give a setting.  The configuration file and the library call
`accept` with a value, the command line calls `read` with a text; the reference and every message
quote `expected`, and the JSON Schema of the file contains `schema`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import Factory, frozen

from evproxy.config.problems import Path, Problem, shown

Fault = Callable[[str], str | None]
"""Checks a text: returns the reason to refuse it, ``None`` if there is none."""

Schema = dict[str, Any]
"""A JSON Schema, draft 2020-12, or a part of one."""


class Unfit(Exception):
    """A value is not what a `Rule` expects; the message, if any, gives the reason."""


class Refused(Exception):
    """A rule refuses a value.  The message of the `Problem` is the message of this exception."""


@frozen
class Surroundings:
    """
    What the meaning of a value depends on besides the value.

    `directory`: goes before relative paths; empty: they stay unchanged.  `endpoint_fault` and
    `listen_fault`: further checks of the endpoint of an upstream server and of a listener.
    """

    directory: str = ""
    endpoint_fault: Fault | None = None
    listen_fault: Fault | None = None


@frozen
class Reading:
    """
    One pass over values that belong together: collects every problem instead of the first.

    `surroundings`: what the meaning of the values depends on.  `of_program`: whether a program
    gives the values, which has objects where a file has tables.
    """

    surroundings: Surroundings = Surroundings()
    of_program: bool = False
    problems: list[Problem] = Factory(list)

    def value(self, rule: Rule, value: object, path: Path) -> Any:
        """The setting for `value`; ``None``, and a problem at `path`, if `rule` refuses `value`."""
        try:
            return rule.accept(value, path, self)
        except Unfit as unfit:
            self.problem(path, f"expected {rule.expected}, got {self._shown(value)}{unfit}")
        except Refused as refused:
            self.problem(path, str(refused))
        return None

    def _shown(self, value: object) -> str:
        return repr(value) if self.of_program else shown(value)

    def problem(self, path: Path, message: str) -> None:
        """Add a problem of the value at `path`."""
        self.problems.append(Problem(path, message))


@frozen
class Rule:
    """The values that a setting accepts; `expected` describes them in words."""

    @property
    def expected(self) -> str:
        """The accepted values, in words that fit a message and the reference."""
        raise NotImplementedError

    @property
    def schema(self) -> Schema:
        """The accepted values as JSON Schema, as far as JSON Schema can describe them."""
        raise NotImplementedError

    def accept(self, value: Any, path: Path, reading: Reading) -> Any:
        """
        The setting for `value`, which comes from a file or from a program.

        Adds the problems inside `value` to `reading`, below `path`.

        :raises Unfit: if `value` is not as expected.
        :raises Refused: if something else is wrong with `value`.
        """
        raise NotImplementedError

    def read(self, text: str) -> Any:
        """
        The setting for `text`, the value of an option.

        :raises Unfit: if `text` is not as expected.
        """
        return self.accept(text, (), Reading())
