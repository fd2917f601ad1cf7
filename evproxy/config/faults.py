"""The problems between the keys of `faults`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from evproxy.config.kinds import misplaced
from evproxy.config.problems import Path, Problem, quoted
from evproxy.settings.fault import FAULT_KINDS, FaultSettings


def fault_conflicts(path: Path, faults: object) -> Iterator[Problem]:
    """The problems of `faults`, which are at `path`."""
    names: dict[object, int] = {}
    for index, fault in enumerate(faults if isinstance(faults, list) else ()):
        if not isinstance(fault, dict):
            continue
        where = (*path, index)
        kind, stream = fault.get("kind"), fault.get("stream", "downstream")
        yield from misplaced(where, fault, kind, FaultSettings, FAULT_KINDS)
        yield from _schedule(where, fault)
        name = fault.get("name") or f"{kind}_{stream}"
        if isinstance(name, str) and names.setdefault(name, index) != index:
            why = f"the same as faults[{names[name]}], {quoted(name)}: give each a name"
            yield Problem((*where, "name"), why)


def _schedule(path: Path, fault: dict[str, Any]) -> Iterator[Problem]:
    numbers = {
        key: value
        for key in ("lasts", "every", "after_bytes", "until_bytes")
        if type(value := fault.get(key, 0)) in (int, float)
    }
    every, lasts = numbers.get("every", 0), numbers.get("lasts", 0)
    if every and not lasts:
        yield Problem((*path, "every"), "has no effect without lasts")
    elif every and every <= lasts:
        yield Problem((*path, "every"), f"must be more than lasts, which is {lasts:g}")
    until, after = numbers.get("until_bytes", 0), numbers.get("after_bytes", 0)
    if until and until <= after:
        yield Problem((*path, "until_bytes"), f"must be more than after_bytes, which is {after}")
