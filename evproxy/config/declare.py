"""
The declaration of a setting: everything about the setting, in one place.

A table of settings is an attrs class.  `setting` makes each of its fields, and declares the
values that the setting accepts, its default, its meaning, and where a user can give it.  The
configuration file, the command line, the library, the reference and the JSON Schema all read
this one declaration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
from attrs import Attribute, frozen

from evproxy.config.problems import Path
from evproxy.config.reading import Reading, Rule
from evproxy.errors import SettingsError

_KEY = "evproxy.setting"


@frozen
class Setting:
    """
    The declaration of one setting.

    `rule`: which values it accepts.  `meaning`: one or more sentences for the reference, in
    Markdown.  `kinds`: the kinds of its table that have the setting; empty: all.
    `required_for`: the kinds that require it.  `option`: the command-line option that sets it,
    without the dashes; empty: none.  `in_file`: whether the file may have it.
    `default_shown`: the default in the reference, if that is not a value.
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
    """A `Setting` with the `name` of its field, and the `default` if there is one."""

    name: str
    setting: Setting
    default: Any

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is attrs.NOTHING


def check_value(rule: Rule, value: object, called: Path) -> None:
    """
    Return if `rule` accepts `value`, which a program gives.

    :param called: its name in messages.
    :raises SettingsError: if `rule` refuses it.
    """
    reading = Reading(of_program=True)
    reading.value(rule, value, called)
    for problem in reading.problems:
        raise SettingsError(str(problem))


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
    Declare a setting, as a field of an attrs class.

    :param default: the value if the user gives none; without a default, the user must give one.
    :param called: the name in messages when a program gives the value; by default the name of
        the field, after `BELOW` of the class if that says below which key its table is.
    :param checked: whether the class applies `rule`.  False if the code that uses the value
        refuses it with a better message.  The class does not refuse a default that means that
        there is no value, where some kinds require one (`required_for`).
    :param converter: converts a value that a program gives.
    :param more: the other attributes of `Setting`.
    """

    def check(instance: object, attribute: Attribute[Any], value: Any) -> None:
        optional = attribute.default is None or made.required_for
        if optional and value == attribute.default:
            return
        table = (instance.BELOW,) if hasattr(instance, "BELOW") else ()
        check_value(rule, value, called or (*table, attribute.name))

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
