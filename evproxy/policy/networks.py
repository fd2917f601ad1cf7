"""IPv4 and IPv6 networks as text, and a set of them."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network

from evproxy.config.problems import quoted
from evproxy.policy.address_number import IPV6, address_number
from evproxy.policy.intervals import Intervals

_LENGTHS = {str(number): number for number in range(129)}
_MAPPED_LENGTH = 96


def network_interval(text: str) -> tuple[int, int] | None:
    """
    The numbers of the addresses in the network `text`: the first, and the one after the last.

    ``None`` if `text` has a fault, see `network_fault`.
    """
    address, slash, prefix = text.partition("/")
    first = address_number(address)
    if first is None or "%" in address:
        return None
    if not slash:
        return first, first + 1
    length = _LENGTHS.get(prefix, -1)
    width = 128
    if first < IPV6:
        width = 32
        if ":" in address:
            length -= _MAPPED_LENGTH
    if not 0 <= length <= width:
        return None
    size = 1 << (width - length)
    return (first, first + size) if first & (size - 1) == 0 else None


def network_fault(text: str) -> str | None:
    """
    Why `text` is not a network that an access list accepts; ``None`` if it is one.

    Accepted are IPv4 and IPv6 addresses without a zone, alone or with ``/`` and the length of
    the prefix (RFC 4632, 3.1; RFC 4291, 2.3).  The address must be the first of the network:
    ``10.0.0.1/8`` could mean one address or 16 million.
    """
    if network_interval(text) is not None:
        return None
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return "it is not an IP address or a network"
    return "it has a zone" if "%" in text else f"did you mean {network}?"


class Networks:
    """
    A set of networks.

    A network of mapped IPv4 addresses (``::ffff:10.0.0.0/104``) counts as the IPv4 network, so
    ``::/0`` is all of IPv6 and nothing of IPv4.

    A look-up of a random address takes 0.24 µs in 10 networks; in 100,000 it takes 0.38 µs for
    IPv4 and 0.58 µs for IPv6.  100,000 networks take 9 to 13 MB, and 0.45 s to build.

    :param texts: networks and single addresses, see `network_fault`; they may overlap.
    :raises ValueError: if a text has a fault; the message has the text and the reason.
    """

    __slots__ = ("_ipv4", "_ipv6")

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._set(map(_interval, texts))

    @classmethod
    def of_intervals(cls, intervals: Iterable[tuple[int, int]]) -> Networks:
        """The networks with these results of `network_interval`."""
        networks = cls()
        networks._set(intervals)
        return networks

    def _set(self, intervals: Iterable[tuple[int, int]]) -> None:
        ipv4: list[tuple[int, int]] = []
        ipv6: list[tuple[int, int]] = []
        for each in intervals:
            (ipv4 if each[0] < IPV6 else ipv6).append(each)
        self._ipv4, self._ipv6 = Intervals(ipv4), Intervals(ipv6)

    def __contains__(self, number: int) -> bool:
        """Whether a network has the address with this `address_number`."""
        return number in (self._ipv4 if number < IPV6 else self._ipv6)

    def __or__(self, other: Networks) -> Networks:
        """The networks of both."""
        parts = (self._ipv4, self._ipv6, other._ipv4, other._ipv6)
        return Networks.of_intervals(each for part in parts for each in part)

    def __len__(self) -> int:
        """How many networks are left after adjacent and overlapping ones are merged."""
        return len(self._ipv4) + len(self._ipv6)


def _interval(text: str) -> tuple[int, int]:
    interval = network_interval(text)
    if interval is None:
        raise ValueError(f"{quoted(text)}: {network_fault(text)}")
    return interval
