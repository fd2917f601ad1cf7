"""
Settings as arguments of the library's classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

from evproxy.config.problems import instance_of
from evproxy.errors import SettingsError


def refuse_beside_settings(
    what: type, arguments: Mapping[str, object], allowed: Sequence[str]
) -> None:
    """
    Refuse `arguments` of `what` that its argument ``settings`` has already.

    :raises SettingsError: if one that is not `allowed` differs from its default.
    """
    for name, parameter in signature(what).parameters.items():
        free = name in (*allowed, "settings") or parameter.default is Parameter.empty
        if not free and arguments[name] != parameter.default:
            raise SettingsError(f"{name}: cannot be given together with settings, which has it")


def in_a_tuple(value: str | Sequence[str]) -> tuple[str, ...]:
    """The addresses that a program gave: one string, or a sequence of strings."""
    if isinstance(value, str):
        return (value,)
    # The rule of the setting refuses anything else.
    return tuple(value) if isinstance(value, Iterable) else value


def refuse_other(argument: str, value: object, kind: type) -> None:
    """Raise `SettingsError` if `value` is not an object of the class `kind`."""
    if not isinstance(value, kind):
        raise SettingsError(f"{argument}: expected {instance_of(kind)}, got {value!r}")


def several(argument: str, values: Any) -> tuple[Any, ...]:
    """The objects that a program gave in a sequence, or anything else to iterate over."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise SettingsError(f"{argument}: expected a sequence, got {values!r}")
    return tuple(values)
