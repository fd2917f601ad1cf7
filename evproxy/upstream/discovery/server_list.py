"""
Reads lists of servers that other programs write, in the form of the key ``upstreams``.

Pure.  An item is an endpoint as a string, or a table with the keys of `UpstreamServer`.  The
rules and the messages are those of `evproxy.config`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen

from evproxy.config.document import read_server
from evproxy.config.problems import Path, Problem, quoted, shown, shown_path
from evproxy.config.reading import Surroundings
from evproxy.config.toml import NotToml, read_toml
from evproxy.errors import EvproxyError
from evproxy.model import UpstreamServer

ValidateEndpoint = Callable[[str], str | None]
"""Checks an endpoint: returns why it cannot be used, ``None`` if it can."""


class Unreadable(EvproxyError):
    """The text is not a list of servers.  The message is one line."""


@frozen
class Items:
    """
    The servers in a list of values: ``None`` for each value that is wrong.

    `faults` has the problem of each wrong value by its index, with the path below the value.
    """

    servers: tuple[UpstreamServer | None, ...]
    faults: dict[int, Problem]


@frozen
class Listed:
    """The servers in a file, and the `faults` of all wrong items."""

    servers: tuple[UpstreamServer, ...]
    faults: tuple[str, ...] = ()


class ItemReader:
    """
    Reads lists of servers.

    :param validate: checks each endpoint.
    """

    def __init__(self, validate: ValidateEndpoint | None = None) -> None:
        self._surroundings = Surroundings(endpoint_fault=validate)

    def items(self, values: Sequence[object]) -> Items:
        """Read the servers in `values`.  A second server of the same name is a fault."""
        faults: dict[int, Problem] = {}
        servers: dict[int, UpstreamServer] = {}
        for index, value in enumerate(values):
            server, problems = read_server(value, self._surroundings)
            if server is None:
                faults[index] = problems[0]
            else:
                servers[index] = server
        _refuse_repeated(servers, faults)
        return Items(tuple(servers.get(index) for index in range(len(values))), faults)

    def toml_file(self, data: bytes) -> Listed:
        """Read a TOML file, which must have the array ``upstreams`` and nothing else."""
        try:
            return self._document(read_toml(data.decode()))
        except (UnicodeDecodeError, NotToml) as error:
            raise Unreadable(f"not TOML: {error}") from None

    def json_file(self, data: bytes) -> Listed:
        """Read a JSON file: an object with the array ``upstreams`` and nothing else."""
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


def _refuse_repeated(servers: dict[int, UpstreamServer], faults: dict[int, Problem]) -> None:
    first: dict[str, int] = {}
    for index, server in list(servers.items()):
        if first.setdefault(server.name, index) != index:
            faults[index] = Problem((), f"{quoted(server.endpoint)} is listed twice")
            del servers[index]


def read_json(data: bytes) -> Any:
    """Parse the JSON text `data`: UTF-8, perhaps with a byte order mark."""
    try:
        return json.loads(data.decode("utf-8-sig"))
    except RecursionError:
        raise Unreadable("not JSON: it is nested too deeply") from None
    except ValueError as error:
        raise Unreadable(f"not JSON: {error}") from None


def shown_fault(above: Path, fault: Problem) -> str:
    """`fault` in one line, with its complete path below `above`."""
    return str(Problem((*above, *fault.path), fault.message))
