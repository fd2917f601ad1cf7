"""
The declaration of a setting: everything about it, in one place.

A table of settings is an attrs class.  Each of its fields is made by `setting`, and says what
the value may be, what it is by default, what it means, and where else it can be given: the
configuration file, the command line, the library, the reference and the JSON Schema all read
this one declaration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Protocol

import attrs
from attrs import Attribute, frozen

from evproxy.config.problems import Path
from evproxy.config.rules import Reading, Rule
from evproxy.errors import SettingsError

_KEY = "evproxy.setting"


class Table(Protocol):
    """A class whose fields are settings."""

    __attrs_attrs__: ClassVar[Any]


@frozen
class Setting:
    """
    What is declared of one setting.

    `rule`: what it may be.  `meaning`: a sentence or more for the reference, in Markdown.
    `kinds`: the kinds of its table that it belongs to; empty: all.  `required_for`: those of
    them that cannot do without it.  `option`: the command-line option that sets it, without the
    dashes; empty: none does.  `in_file`: whether the file may have it.  `default_shown`: what
    the reference shows as its default where that is no value.
    """

    rule: Rule
    meaning: str
    kinds: Sequence[str] = ()
    required_for: Sequence[str] = ()
    option: str = ""
    in_file: bool = True
    default_shown: str = ""


@frozen
class Declared:
    """A `Setting` with what its field says: its `name`, and its `default` if it has one."""

    name: str
    setting: Setting
    default: Any

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is attrs.NOTHING


def setting(
    rule: Rule,
    meaning: str,
    *,
    default: Any = attrs.NOTHING,
    called: Path = (),
    checked: bool = True,
    converter: Callable[[Any], Any] | None = None,
    **more: Any,
) -> Any:
    """
    A field of an attrs class that is the setting so declared.

    :param default: its value where it is not given; none: it has to be.
    :param called: what a message calls it where a program gives it; by default its name.
    :param checked: whether the class refuses what the rule does.  Not where whoever uses the
        value refuses it with a better message.  A default that stands for nothing, where some
        kinds have to be given a value (`required_for`), is not refused here.
    :param converter: what the class makes of a value that a program gives.
    :param more: the other attributes of `Setting`.
    """

    def check(instance: object, attribute: Attribute[Any], value: Any) -> None:
        optional = attribute.default is None or made.required_for
        if optional and value == attribute.default:
            return
        reading = Reading(show=repr)
        reading.value(rule, value, called or (attribute.name,))
        for problem in reading.problems:
            raise SettingsError(str(problem))

    made = Setting(rule, meaning, **more)
    return attrs.field(
        default=default,
        validator=check if checked else None,
        converter=converter,
        metadata={_KEY: made},
    )


def declared(table: type) -> Iterator[Declared]:
    """The settings of `table`, in the order of their declaration."""
    for attribute in attrs.fields(table):
        found = attribute.metadata.get(_KEY)
        if found is not None:
            yield Declared(attribute.name, found, attribute.default)


def keys_of(table: type) -> dict[str, Declared]:
    """The settings of `table` that a file may have, by their keys."""
    return {each.name: each for each in declared(table) if each.setting.in_file}
