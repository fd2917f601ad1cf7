"""The problems between the keys of `faults`."""

from __future__ import annotations

from collections.abc import Iterator

from evproxy.config.problems import Path, Problem, quoted
from evproxy.settings.fault import default_stream


def fault_conflicts(path: Path, faults: object) -> Iterator[Problem]:
    """The problems of `faults`, which are at `path`; `FaultSettings` finds those within a fault."""
    names: dict[object, int] = {}
    for index, fault in enumerate(faults if isinstance(faults, list) else ()):
        if not isinstance(fault, dict):
            continue
        where = (*path, index)
        kind = fault.get("kind")
        stream = fault.get("stream") or default_stream(kind)
        name = fault.get("name") or f"{kind}_{stream}"
        if isinstance(name, str) and names.setdefault(name, index) != index:
            why = f"the same as faults[{names[name]}], {quoted(name)}: give each a name"
            yield Problem((*where, "name"), why)
