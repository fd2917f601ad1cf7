"""
Settings as arguments of the library's classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import Parameter, signature

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
    return (value,) if isinstance(value, str) else tuple(value)
