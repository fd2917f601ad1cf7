"""
Host names of upstream servers, resolved once and reused.

The reactor's own resolver is asked (by default getaddrinfo in a thread, so that
``/etc/hosts``, search domains and NSS count), never more than once at a time for a
name, however many sessions want it.  That resolver does not tell how long an answer
lives, so `LIFETIME` says it.  After that the name is asked again while sessions go on
with the addresses known; an answer that does not come leaves them in use.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from zope.interface import implementer

LIFETIME = 30.0
"""Seconds for which an answer is reused before the name is asked again."""


MOST = 10_000
"""How many names are remembered; the one that was asked for first makes room for another."""


@define
class _Name:
    """What is known of one name."""

    addresses: tuple[str, ...] = ()
    expires: float = 0.0
    asking: bool = False
    waiting: list[Deferred[tuple[str, ...]]] = field(factory=list)


@implementer(IResolutionReceiver)
class _Answer:
    """Collects the addresses of one look-up, each once and in order."""

    def __init__(self, names: Names, name: str) -> None:
        self._names = names
        self._name = name
        self._addresses: dict[str, None] = {}

    def resolutionBegan(self, resolution: IHostResolution) -> None:
        """Nothing is needed of it."""

    def addressResolved(self, address: IAddress) -> None:
        if isinstance(address, IPv4Address | IPv6Address):
            self._addresses[address.host] = None

    def resolutionComplete(self) -> None:
        self._names.answered(self._name, tuple(self._addresses))


class Names:
    """
    The names that one pool knows.

    :param reactor: has the resolver (``nameResolver``) and tells the time.
    :param lifetime: seconds for which an answer is reused.
    """

    def __init__(self, reactor: Any, lifetime: float = LIFETIME) -> None:
        self._reactor = reactor
        self._lifetime = lifetime
        self._names: dict[str, _Name] = {}

    def known(self, name: str) -> tuple[str, ...]:
        """The addresses of `name` if they are known already, else nothing; asks again in time."""
        entry = self._names.get(name)
        if entry is None:
            return ()
        if entry.expires <= self._reactor.seconds():
            self._ask(name, entry)
        return entry.addresses

    def resolve(self, name: str) -> Deferred[tuple[str, ...]]:
        """
        Ask for the addresses of `name`, at least one.

        Fails with `DNSLookupError` if there are none.  Cancelling affects only the caller.
        """
        entry = self._names.get(name)
        if entry is None:
            entry = self._remember(name)
        deferred: Deferred[tuple[str, ...]] = Deferred(entry.waiting.remove)
        entry.waiting.append(deferred)
        self._ask(name, entry)
        return deferred

    def answered(self, name: str, addresses: tuple[str, ...]) -> None:
        """The answer for `name` has come; empty if there is none."""
        entry = self._names.get(name)
        if entry is None:
            return
        entry.asking = False
        entry.expires = self._reactor.seconds() + self._lifetime
        entry.addresses = addresses or entry.addresses
        waiting, entry.waiting = entry.waiting, []
        for deferred in waiting:
            if entry.addresses:
                deferred.callback(entry.addresses)
            else:
                deferred.errback(DNSLookupError(f"no address found for {name!r}"))

    def _remember(self, name: str) -> _Name:
        if len(self._names) >= MOST:
            first = next((each for each in self._names if not self._names[each].asking), None)
            if first is not None:
                del self._names[first]
        entry = self._names[name] = _Name()
        return entry

    def _ask(self, name: str, entry: _Name) -> None:
        if not entry.asking:
            entry.asking = True
            self._reactor.nameResolver.resolveHostName(
                _Answer(self, name), name, 0, (IPv4Address, IPv6Address)
            )
