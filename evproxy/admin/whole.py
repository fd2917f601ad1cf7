"""
The operations on the proxy as a whole: its status, its settings, and its drain.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import attrs
from attrs import frozen

from evproxy.admin.answers import Answer, Problem, as_json
from evproxy.admin.fields import (
    COUNTS,
    NUMBER,
    TEXT,
    TEXTS,
    WHOLE,
    Field,
    array_of,
    of_object,
    schema_of_fields,
    shown,
)
from evproxy.admin.operations import Asked, Context, Operation
from evproxy.admin.pools import POOL, own_pools, shown_pool
from evproxy.config.declare import declared, setting
from evproxy.config.document import ConfigErrors
from evproxy.config.problems import Path
from evproxy.config.reading import Reading, Rule, Schema
from evproxy.config.rules import YEAR, Seconds
from evproxy.engine.slices import in_slices
from evproxy.errors import SettingsError
from evproxy.settings import PoolSettings

LISTENER = {
    "name": Field(TEXT, lambda each: each.name, "its name in logs"),
    "address": Field(TEXT, lambda each: each.address, "where it listens now; empty: nowhere"),
    "refused": Field(COUNTS, lambda each: dict(each.refused), "clients refused, by the reason"),
}

CERTIFICATE = {
    "path": Field(TEXT, lambda each: each.path, "its file"),
    "names": Field(TEXTS, lambda each: list(each.names), "the hosts that it is for"),
    "expires": Field(NUMBER, lambda each: each.expires, "when it ends, in seconds since 1970"),
    "days_left": Field(NUMBER, lambda each: round(each.days_left, 3), "days until then"),
}

STATUS: Schema = of_object(
    {
        "version": TEXT,
        "pid": WHOLE,
        "state": {"enum": ["running", "draining", "drained"]},
        "sessions": WHOLE,
        "max_sessions": WHOLE,
        "listeners": array_of(schema_of_fields(LISTENER)),
        "pools": array_of(POOL),
        "certificates": array_of(schema_of_fields(CERTIFICATE)),
    }
)


@frozen
class _OrNever(Seconds):
    """A time in seconds, or ``null``."""

    @property
    def expected(self) -> str:
        return f"{super().expected}, or null"

    @property
    def schema(self) -> Schema:
        return {**super().schema, "type": ["number", "null"]}

    def accept(self, value: Any, path: Path, reading: Reading) -> Any:
        return None if value is None else super().accept(value, path, reading)


_RULE: Rule = _OrNever(0, YEAR)

BY_SETTINGS = -1.0
"""Stands for the drain timeout of the settings."""


@frozen
class HowToDrain:
    """How to drain the whole proxy."""

    deadline: float | None = setting(
        _RULE,
        "Seconds after which the remaining sessions are reset; `null`: never. Without it: the "
        "drain timeout of the settings.",
        default=BY_SETTINGS,
        default_shown="the drain timeout",
        checked=False,
    )


async def _status(context: Context, asked: Asked) -> Answer:
    status = context.proxy.overview()
    own = own_pools(context.proxy)
    pools = [await shown_pool(context.reactor, each, own.get(each.name)) for each in status.pools]
    return as_json(
        {
            "version": context.version,
            "pid": os.getpid(),
            "state": status.state,
            "sessions": status.session_count,
            "max_sessions": status.max_sessions,
            "listeners": [shown(LISTENER, each) for each in status.listeners],
            "pools": pools,
            "certificates": [shown(CERTIFICATE, each) for each in status.certificates],
        }
    )


async def _settings(context: Context, asked: Asked) -> Answer:
    pieces = json_pieces(context.proxy.settings)
    found = await in_slices(context.reactor, pieces, lambda piece: piece)
    return Answer("".join(found).encode() + b"\n")


def json_pieces(value: Any) -> Iterator[str]:
    """Yield `value`, a setting or a table of settings, as JSON, in pieces that take little time."""
    if isinstance(value, tuple) and value and attrs.has(type(value[0])):
        named = isinstance(value[0], PoolSettings)
        for number, each in enumerate(value):
            yield ("," if number else "{" if named else "[") + "\n"
            if named:
                yield f"{json.dumps(each.name)}:"
            yield from json_pieces(each)
        yield "}" if named else "]"
    elif attrs.has(type(value)):
        keys = [each.name for each in declared(type(value)) if each.setting.in_file]
        for number, key in enumerate(keys):
            yield ("," if number else "{") + f"{json.dumps(key)}:"
            yield from json_pieces(getattr(value, key))
        yield "}"
    else:
        yield json.dumps(value)


async def _drain(context: Context, asked: Asked) -> Answer:
    deadline = asked.body.deadline
    if deadline == BY_SETTINGS:
        deadline = context.proxy.settings.timeouts.drain
    context.proxy.drain(deadline)
    status = context.proxy.overview()
    return as_json({"state": status.state, "sessions": status.session_count})


async def _reload(context: Context, asked: Asked) -> Answer:
    try:
        changes = await context.proxy.reload()
    except ConfigErrors as error:
        raise Problem(409, str(error), problems=error.problems) from None
    except SettingsError as error:
        raise Problem(409, str(error)) from None
    return as_json({"changes": [str(each) for each in changes.lines]})


OPERATIONS = (
    Operation(
        "GET",
        "/status",
        "status",
        "Shows the state of the proxy: listeners, pools, certificates, and how many sessions.",
        _status,
        STATUS,
    ),
    Operation(
        "GET",
        "/settings",
        "settings",
        "Shows the settings in force, in the form of a configuration file.",
        _settings,
        {"type": "object"},
    ),
    Operation(
        "POST",
        "/reload",
        "reload",
        "Reads the configuration file again, and uses all of it, or nothing if there is a problem.",
        _reload,
        of_object({"changes": TEXTS}),
        problems=(409,),
    ),
    Operation(
        "POST",
        "/drain",
        "drain",
        "Accepts nothing new and lets running sessions finish; evproxy does not end by that.",
        _drain,
        of_object({"state": TEXT, "sessions": WHOLE}),
        body=HowToDrain,
    ),
)
