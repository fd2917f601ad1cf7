"""
Rules for endpoint descriptions: Twisted's own language, which plugins extend.

These rules refuse only what is wrong for every plugin.  `evproxy.config.reading.Surroundings` has
the functions that know the plugins and check the rest.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from evproxy.config import addresses
from evproxy.config.problems import Path
from evproxy.config.reading import Fault, Reading, Refused, Rule, Schema, Unfit


@frozen
class _Description(Rule):
    @property
    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1}

    def accept(self, value: Any, path: Path, reading: Reading) -> str:
        if not isinstance(value, str):
            raise Unfit
        found = self.fault(value)
        if found is not None:
            raise Unfit(f": {found}")
        description = addresses.below(reading.surroundings.directory, value)
        closer = self.closer_look(reading)
        refusal = closer(description) if closer is not None else None
        if refusal is not None:
            raise Refused(refusal)
        return description

    def fault(self, description: str) -> str | None:
        """Why `description` is wrong for every plugin; ``None`` if it may be right."""
        raise NotImplementedError

    def closer_look(self, reading: Reading) -> Fault | None:
        """The function that knows the plugins and checks the rest, if there is one."""
        raise NotImplementedError


@frozen
class ServerDescription(_Description):
    """A Twisted server endpoint description: where to listen."""

    @property
    def expected(self) -> str:
        return "a server endpoint description"

    def fault(self, description: str) -> str | None:
        return addresses.listen_fault(description)

    def closer_look(self, reading: Reading) -> Fault | None:
        return reading.surroundings.listen_fault


@frozen
class OptionalServerDescription(ServerDescription):
    """A Twisted server endpoint description, or empty: nowhere."""

    @property
    def schema(self) -> Schema:
        return {"type": "string"}

    def accept(self, value: Any, path: Path, reading: Reading) -> str:
        return "" if value == "" else super().accept(value, path, reading)


@frozen
class ClientDescription(_Description):
    """Where to connect: a host and a port, or a Twisted client endpoint description."""

    @property
    def expected(self) -> str:
        return "HOST:PORT, [v6]:PORT or a client endpoint description"

    def fault(self, description: str) -> str | None:
        return addresses.upstream_fault(description)

    def closer_look(self, reading: Reading) -> Fault | None:
        return reading.surroundings.endpoint_fault
