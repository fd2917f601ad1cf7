"""
From a TOML document to settings values, through cattrs, and from what cattrs collects
on the way to `Problem` lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override

from evproxy.config.fields import Fields
from evproxy.config.problems import Path, Problem, did_you_mean, shown
from evproxy.config.rules import Refused, Rule
from evproxy.model import UpstreamServer
from evproxy.settings import PoolSettings, Settings

Hook = Callable[[Any, Any], Any]
"""What cattrs calls with a value and a type to get the value structured."""


class Structure:
    """
    Structures documents by `fields`.

    Made once for many documents: cattrs generates code for each table, which takes several
    milliseconds, where a small document takes some tenths of one.
    """

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._converter = _converter(fields)

    def settings(self, document: dict[str, Any]) -> Settings | list[Problem]:
        """The settings in `document`, or everything that keeps one value from being one."""
        try:
            settings: Settings = self._converter.structure(document, Settings)
        except cattrs.BaseValidationError as errors:
            return list(_problems(errors, (), self._fields))
        return settings


def _converter(fields: Fields) -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    for cls, rules in fields.items():
        overrides: dict[str, Any] = {
            attribute.name: override(
                omit=attribute.name not in rules,
                struct_hook=_hook(converter, rules.get(attribute.name)),
            )
            for attribute in attrs.fields(cls)
        }
        overrides["_cattrs_forbid_extra_keys"] = True
        structure: Hook = make_dict_structure_fn(cls, converter, **overrides)
        converter.register_structure_hook(cls, _in_a_table(structure))
    _accept_plain_endpoints(converter, fields[UpstreamServer]["endpoint"])
    _name_pools(converter)
    return converter


def _hook(converter: cattrs.Converter, rule: Rule | None) -> Hook | None:
    if rule is None:
        return None

    def hook(value: object, _: object) -> Any:
        accepted = rule(value)
        return accepted if rule.inside is None else converter.structure(accepted, rule.inside)

    return hook


def _in_a_table(structure: Hook) -> Hook:
    """`structure`, for tables only: what cattrs makes of anything else would not be understood."""

    def hook(value: object, cls: Any) -> Any:
        if not isinstance(value, dict):
            raise Refused(f"expected a table, got {shown(value)}")
        return structure(value, cls)

    return hook


def _accept_plain_endpoints(converter: cattrs.Converter, endpoint: Rule) -> None:
    """An upstream server that is only a string is its endpoint."""
    from_table = converter.get_structure_hook(UpstreamServer)

    def hook(value: object, cls: Any) -> UpstreamServer:
        if isinstance(value, str):
            return UpstreamServer(endpoint(value))
        if not isinstance(value, dict):
            raise Refused(f"expected {endpoint.expected}, or a table, got {shown(value)}")
        server: UpstreamServer = from_table(value, cls)
        return server

    converter.register_structure_hook(UpstreamServer, hook)


def _name_pools(converter: cattrs.Converter) -> None:
    """The pools are a table by name in the file, and a tuple of named values in the settings."""
    by_name = dict[str, PoolSettings]
    from_table = converter.get_structure_hook(by_name)

    def hook(value: object, cls: Any) -> tuple[PoolSettings, ...]:
        pools = from_table(value, cls)
        return tuple(attrs.evolve(pool, name=name) for name, pool in pools.items())

    converter.register_structure_hook_func(lambda cls: cls == by_name, hook)


def _problems(error: BaseException, above: Path, fields: Fields) -> Iterator[Problem]:
    """What `error` and the errors in it say, each with its path; `above` is where it came up."""
    path = (*above, *_step(error))
    match error:
        case cattrs.BaseValidationError():
            for inner in error.exceptions:
                yield from _problems(inner, path, fields)
        case cattrs.ForbiddenExtraKeysError():
            for key in error.extra_fields:
                yield Problem((*path, key), f"unknown key{did_you_mean(key, fields[error.cl])}")
        case KeyError():
            yield Problem(path, "required, but missing")
        case Refused():
            yield Problem(path, str(error))
        case _:
            raise error


def _step(error: BaseException) -> Path:
    """The key or index at which cattrs noted that `error` came up."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, cattrs.AttributeValidationNote):
            return (note.name,)
        if isinstance(note, cattrs.IterableValidationNote):
            return (note.index,)
    return ()
