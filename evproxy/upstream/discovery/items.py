"""
The servers in what other programs write: the forms of ``upstreams`` in the configuration file.

Pure.  An item is a string, the endpoint, or a table with the keys of `UpstreamServer`;
the rules, and what is said of a wrong item, are those of `evproxy.config`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen

from evproxy.config.fields import fields
from evproxy.config.problems import Path, Problem, quoted, shown, shown_path
from evproxy.config.structure import Structure
from evproxy.config.syntax import NotToml, read_toml
from evproxy.errors import EvproxyError
from evproxy.model import UpstreamServer
from evproxy.settings import Settings

ValidateEndpoint = Callable[[str], str | None]
"""Looks closer at an endpoint: why it cannot be used, ``None`` if it can."""

_POOL = ("pools", "discovered", "upstreams")


class Unreadable(EvproxyError):
    """A text is not a list of servers.  The message is one line."""


@frozen
class Items:
    """
    What came of some values: for each its server, ``None`` where it is wrong.

    `faults`: what is wrong, by the value's index, each with the path below the value.
    """

    servers: tuple[UpstreamServer | None, ...]
    faults: dict[int, Problem]


@frozen
class Listed:
    """The servers in a file, and `faults`: what is wrong with each item that is none."""

    servers: tuple[UpstreamServer, ...]
    faults: tuple[str, ...] = ()


class ItemReader:
    """
    Reads lists of servers.  Made once, when a discovery is: see `Structure`.

    :param validate: looks closer at each endpoint.
    """

    def __init__(self, validate: ValidateEndpoint | None = None) -> None:
        self._structure = Structure(fields("", validate))
        # What cattrs makes at the first use, it makes now.
        self.items([])

    def items(self, values: Sequence[object]) -> Items:
        """The servers that `values` stand for.  Two of one name are one too many."""
        faults: dict[int, Problem] = {}
        good = dict(enumerate(values))
        while True:
            found = self._structure.settings(_document(list(good.values())))
            if isinstance(found, Settings):
                break
            indices = list(good)
            for problem in found:
                place = problem.path[len(_POOL)]
                assert isinstance(place, int)
                fault = Problem(problem.path[len(_POOL) + 1 :], problem.message)
                faults.setdefault(indices[place], fault)
            good = {index: value for index, value in good.items() if index not in faults}
        servers = dict(zip(good, found.pools[0].upstreams, strict=True))
        _refuse_repeated(servers, faults)
        return Items(tuple(servers.get(index) for index in range(len(values))), faults)

    def toml_file(self, data: bytes) -> Listed:
        """The servers in a TOML file: the array ``upstreams`` and nothing else."""
        try:
            return self._document(read_toml(data.decode()))
        except (UnicodeDecodeError, NotToml) as error:
            raise Unreadable(f"not TOML: {error}") from None

    def json_file(self, data: bytes) -> Listed:
        """The servers in a JSON file: an object with the array ``upstreams`` and nothing else."""
        return self._document(read_json(data))

    def _document(self, document: object) -> Listed:
        if not isinstance(document, dict):
            raise Unreadable(f"expected an object with upstreams, got {shown(document)}")
        for key in document:
            if key != "upstreams":
                raise Unreadable(f"{shown_path((key,))}: unknown key, expected upstreams alone")
        values = document.get("upstreams")
        if not isinstance(values, list):
            raise Unreadable("upstreams: expected an array of upstream servers")
        items = self.items(values)
        return Listed(
            tuple(server for server in items.servers if server is not None),
            tuple(
                shown_fault(("upstreams", index), items.faults[index])
                for index in sorted(items.faults)
            ),
        )


def _document(values: list[object]) -> dict[str, Any]:
    return {_POOL[0]: {_POOL[1]: {_POOL[2]: values}}}


def _refuse_repeated(servers: dict[int, UpstreamServer], faults: dict[int, Problem]) -> None:
    first: dict[str, int] = {}
    for index, server in list(servers.items()):
        if first.setdefault(server.name, index) != index:
            faults[index] = Problem((), f"{quoted(server.endpoint)} is there twice")
            del servers[index]


def read_json(data: bytes) -> Any:
    """The value that the JSON text `data` (UTF-8, a byte order mark is passed over) stands for."""
    try:
        return json.loads(data.decode("utf-8-sig"))
    except RecursionError:
        raise Unreadable("not JSON: it is nested too deeply") from None
    except ValueError as error:
        raise Unreadable(f"not JSON: {error}") from None


def shown_fault(above: Path, fault: Problem) -> str:
    """`fault` in one line, with its whole path below `above`."""
    return str(Problem((*above, *fault.path), fault.message))
