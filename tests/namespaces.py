"""Two network namespaces joined by a cable that can be cut without either end noticing."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Sequence

import pytest
from attrs import frozen

from tests.programs import requires_program

NEAR, FAR = "192.0.2.1", "192.0.2.2"
"""The addresses of the two ends (TEST-NET-1, RFC 5737)."""

_FAR_CARD, _NOBODY = "02:00:00:00:00:02", "02:00:00:00:00:99"
_numbers = itertools.count()


@frozen
class Cable:
    """The names of the namespaces at the two ends, which no other process uses."""

    near: str
    far: str

    @classmethod
    def laid(cls) -> Cable:
        """A new cable; skips the test where namespaces cannot be made."""
        name = f"evproxy-{os.getpid()}-{next(_numbers)}"
        cable = cls(f"{name}-near", f"{name}-far")
        if os.geteuid() != 0:
            pytest.skip("only root can make network namespaces")
        for end in (cable.near, cable.far):
            _ip(f"netns add {end}")
            _ip(f"-n {end} link set lo up")
        _ip(f"-n {cable.near} link add cable type veth peer name cable netns {cable.far}")
        _ip(f"-n {cable.far} link set cable address {_FAR_CARD}")
        for end, address in ((cable.near, NEAR), (cable.far, FAR)):
            _ip(f"-n {end} addr add {address}/30 dev cable")
            _ip(f"-n {end} link set cable up")
        cable.mend()
        return cable

    def cut(self) -> None:
        """From now on what the near end sends reaches nobody, and no error comes back."""
        self._neighbour(_NOBODY)

    def mend(self) -> None:
        """Everything arrives again."""
        self._neighbour(_FAR_CARD)

    def remove(self) -> None:
        """The namespaces are gone once the last process in them is."""
        for end in (self.near, self.far):
            _ip(f"netns del {end}")

    def _neighbour(self, card: str) -> None:
        _ip(f"-n {self.near} neigh replace {FAR} lladdr {card} dev cable nud permanent")


def inside(namespace: str, arguments: Sequence[str]) -> list[str]:
    """The command that runs `arguments` in a namespace."""
    return [requires_program("ip"), "netns", "exec", namespace, *arguments]


def _ip(arguments: str) -> None:
    subprocess.run([requires_program("ip"), *arguments.split()], check=True)
