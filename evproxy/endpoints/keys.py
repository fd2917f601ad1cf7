"""
The keys of endpoint strings: settings as text.

A key is the name of a setting, and has its meaning and its rule.  Twisted has removed one level of
backslashes when the text comes here.  The values of a list are separated by commas; faults are
separated by semicolons, and each is a kind and its keys: ``latency,latency=0.2,jitter=0.1``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evproxy.config.declare import keys_of
from evproxy.config.faults import fault_conflicts
from evproxy.config.problems import did_you_mean, shown
from evproxy.config.reading import Reading, Rule, Unfit
from evproxy.config.rules import Many
from evproxy.errors import SettingsError
from evproxy.settings import FaultSettings


def read_keys(rules: Mapping[str, Rule], given: Mapping[str, str]) -> dict[str, Any]:
    """
    The settings that the text `given` means, by their keys.

    :param rules: the keys that there are.
    :raises SettingsError: in one line, which names the key.
    """
    for key in given:
        if key not in rules:
            raise SettingsError(f"evproxy: unknown key {shown(key)}{did_you_mean(key, rules)}")
    return {key: _read(key, rules[key], text) for key, text in given.items()}


def rules_of(table: type, names: Sequence[str]) -> dict[str, Rule]:
    """The rules of the settings of `table` with the `names`."""
    keys = keys_of(table)
    return {name: keys[name].setting.rule for name in names}


def items(text: str, separator: str = ",") -> list[str]:
    """The values in `text`, without blanks around them; none, if `text` is blank."""
    return [each.strip() for each in text.split(separator)] if text.strip() else []


def _read(key: str, rule: Rule, text: str) -> Any:
    if key == "faults":
        return _faults(key, rule, text)
    if isinstance(rule, Many):
        return _accepted(key, rule, items(text))
    try:
        return rule.read(text)
    except Unfit as unfit:
        raise SettingsError(
            f"evproxy: {key}: expected {rule.expected}, got {shown(text)}{unfit}"
        ) from None


def _accepted(key: str, rule: Rule, value: object) -> Any:
    reading = Reading()
    accepted = reading.value(rule, value, (key,))
    for problem in reading.problems:
        raise SettingsError(f"evproxy: {problem}")
    return accepted


def _faults(key: str, rule: Rule, text: str) -> tuple[FaultSettings, ...]:
    tables = [_fault(each) for each in items(text, ";")]
    for problem in fault_conflicts((key,), tables):
        raise SettingsError(f"evproxy: {problem}")
    accepted: tuple[FaultSettings, ...] = _accepted(key, rule, tables)
    return accepted


def _fault(text: str) -> dict[str, Any]:
    kind, *parts = items(text, ",") or [""]
    table: dict[str, Any] = {"kind": kind}
    keys = keys_of(FaultSettings)
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals:
            raise SettingsError(f"evproxy: faults: expected KEY=VALUE, got {shown(part)}")
        try:
            table[key] = keys[key].setting.rule.read(value) if key in keys else value
        except Unfit:
            # The rule of all faults refuses it with the path of the key.
            table[key] = value
    return table
