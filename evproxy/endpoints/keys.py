"""
The keys of endpoint strings: settings as text.

A key is the name of a setting, and has its meaning and its rule.  Twisted has removed one level of
backslashes when the text comes here.  The values of a list are separated by commas.  A table is its
kind, if it has one, and its keys: ``latency,latency=0.2,jitter=0.1``; faults are separated by
semicolons, and the values of a list in a table by blanks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from evproxy.config.conflicts import ejection_conflicts, health_check_conflicts
from evproxy.config.declare import keys_of
from evproxy.config.faults import fault_conflicts
from evproxy.config.problems import Path, Problem, did_you_mean, shown, shown_path
from evproxy.config.reading import Reading, Rule, Unfit
from evproxy.config.rules import Many
from evproxy.config.tables import Table
from evproxy.errors import SettingsError
from evproxy.settings import FaultSettings

CONFLICTS: dict[str, Callable[[Path, object], Iterable[Problem]]] = {
    "health_check": health_check_conflicts,
    "ejection": ejection_conflicts,
}
"""What contradicts itself in the tables that a key can have, beside faults."""


def read_keys(
    rules: Mapping[str, Rule], given: Mapping[str, str], table: Path = ()
) -> dict[str, Any]:
    """
    The settings that the text `given` means, by their keys.

    :param rules: the keys that there are.
    :param table: the key of the table that `given` is; empty: the string itself.
    :raises SettingsError: in one line, which names the key.
    """
    place = f"{shown_path(table)}: " if table else ""
    for key in given:
        if key not in rules:
            hint = did_you_mean(key, rules)
            raise SettingsError(f"evproxy: {place}unknown key {shown(key)}{hint}")
    return {key: _read((*table, key), rules[key], text) for key, text in given.items()}


def rules_of(table: type, names: Sequence[str]) -> dict[str, Rule]:
    """The rules of the settings of `table` with the `names`."""
    keys = keys_of(table)
    return {name: keys[name].setting.rule for name in names}


def items(text: str, separator: str = ",") -> list[str]:
    """The values in `text`, without blanks around them; none, if `text` is blank."""
    return [each.strip() for each in text.split(separator)] if text.strip() else []


def _read(path: Path, rule: Rule, text: str) -> Any:
    if path == ("faults",):
        return _faults("faults", rule, text)
    if isinstance(rule, Table):
        return _table_of(str(path[-1]), rule, text)
    if isinstance(rule, Many):
        return _accepted(path, rule, items(text) if len(path) == 1 else text.split())
    try:
        return rule.read(text)
    except Unfit as unfit:
        raise SettingsError(
            f"evproxy: {shown_path(path)}: expected {rule.expected}, got {shown(text)}{unfit}"
        ) from None


def _accepted(path: Path, rule: Rule, value: object) -> Any:
    reading = Reading()
    accepted = reading.value(rule, value, path)
    _refuse(reading.problems)
    return accepted


def _refuse(problems: Iterable[Problem]) -> None:
    for problem in problems:
        raise SettingsError(f"evproxy: {problem}")


def _faults(key: str, rule: Rule, text: str) -> tuple[FaultSettings, ...]:
    tables = [_table(key, FaultSettings, each) for each in items(text, ";")]
    _refuse(fault_conflicts((key,), tables))
    accepted: tuple[FaultSettings, ...] = _accepted((key,), rule, tables)
    return accepted


def _table_of(key: str, rule: Table, text: str) -> Any:
    table = _table(key, rule.table, text)
    _refuse(CONFLICTS[key]((key,), table))
    return _accepted((key,), rule, table)


def _table(name: str, declared: type, text: str) -> dict[str, Any]:
    """The table that `text` means: its kind, if it has one, then its keys and their values."""
    parts = items(text, ",") or [""]
    keys = keys_of(declared)
    table: dict[str, Any] = {"kind": parts.pop(0)} if "kind" in keys else {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals:
            raise SettingsError(f"evproxy: {name}: expected KEY=VALUE, got {shown(part)}")
        table[key] = _value(keys[key].setting.rule, value) if key in keys else value
    return table


def _value(rule: Rule, text: str) -> Any:
    if isinstance(rule, Many):
        return [_value(rule.item, each) for each in text.split()]
    try:
        return rule.read(text)
    except Unfit:
        # The rule of the table refuses it with the path of the key.
        return text
