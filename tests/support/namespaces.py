"""Two network namespaces, joined by a cable that can be cut without notice to either end."""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from attrs import frozen

from tests.support.programs import requires_program

NEAR, FAR = "192.0.2.1", "192.0.2.2"
"""The addresses of the two ends (TEST-NET-1, RFC 5737)."""

_FAR_CARD, _NOBODY = "02:00:00:00:00:02", "02:00:00:00:00:99"
_numbers = itertools.count()


@frozen
class Cable:
    """The names of the namespaces at the two ends; no other process uses these names."""

    near: str
    far: str

    @classmethod
    def laid(cls) -> Cable:
        """Return a new cable; skip the test if namespaces cannot be made."""
        name = f"evproxy-{os.getpid()}-{next(_numbers)}"
        cable = cls(f"{name}-near", f"{name}-far")
        if os.geteuid() != 0:
            pytest.skip("only root can make network namespaces")
        for end in (cable.near, cable.far):
            ip(f"netns add {end}")
            ip(f"-n {end} link set lo up")
        ip(f"-n {cable.near} link add cable type veth peer name cable netns {cable.far}")
        ip(f"-n {cable.far} link set cable address {_FAR_CARD}")
        for end, address in ((cable.near, NEAR), (cable.far, FAR)):
            ip(f"-n {end} addr add {address}/30 dev cable")
            ip(f"-n {end} link set cable up")
        cable.mend()
        return cable

    def cut(self) -> None:
        """From now on, discard what the near end sends, without an error."""
        self._neighbour(_NOBODY)

    def mend(self) -> None:
        """Deliver everything again."""
        self._neighbour(_FAR_CARD)

    def remove(self) -> None:
        """Remove the names; each namespace ends with its last process."""
        for end in (self.near, self.far):
            ip(f"netns del {end}")

    def _neighbour(self, card: str) -> None:
        ip(f"-n {self.near} neigh replace {FAR} lladdr {card} dev cable nud permanent")


def inside(namespace: str, arguments: Sequence[str]) -> list[str]:
    """Return the command that runs `arguments` in a namespace."""
    return [requires_program("ip"), "netns", "exec", namespace, *arguments]


def ip(arguments: str) -> None:
    """Run ip(8)."""
    subprocess.run([requires_program("ip"), *arguments.split()], check=True)


_NEW_NETWORK = 0x40000000
"""``CLONE_NEWNET`` of unshare(2) and setns(2)."""


@contextmanager
def network_of_its_own() -> Iterator[None]:
    """
    Within the block, new sockets are in a network with only a loopback interface.

    Skip the test if this is impossible.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can make network namespaces")
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(_NEW_NETWORK):
            pytest.skip(f"unshare: {os.strerror(ctypes.get_errno())}")
        try:
            ip("link set lo up")
            yield
        finally:
            assert libc.setns(before, _NEW_NETWORK) == 0
    finally:
        os.close(before)


def few_local_ports(count: int, first: int = 40001) -> None:
    """Leave only so many local ports for connects in the network of this thread."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as file:
        file.write(f"{first} {first + count - 1}")
