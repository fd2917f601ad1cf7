"""
Servers from DNS: the addresses of a name, or the service records of a name.

A name is asked again when its records' time to live is over, within bounds.  Names are
absolute (the search list is not used), and ``/etc/hosts`` is not read: it knows neither
a time to live nor service records, and who wants a fixed list has the file kind.

A record that cannot be used is left out.  The set is never empty: a name that is gone, has
no record, or none that can be used, is a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from random import Random
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore
from twisted.names import dns

from evproxy.config.addresses import domain_fault, host_and_port
from evproxy.errors import SettingsError
from evproxy.escape import escaped
from evproxy.interfaces import Discovery
from evproxy.model import UpstreamServer
from evproxy.settings import Discover
from evproxy.upstream.discovery.polling import (
    Backoff,
    Look,
    LookFailed,
    PollingDiscovery,
    Servers,
    SoFar,
)
from evproxy.upstream.discovery.records import (
    Addresses,
    Service,
    addresses_in,
    nameserver,
    servers_of,
    services_in,
)
from evproxy.upstream.discovery.resolver import ATTEMPT_TIMEOUTS, Nameserver, Resolver
from evproxy.upstream.reasons import left_out, nothing_left, reason_of

FAMILIES = (dns.A, dns.AAAA)

AT_ONCE = 16
"""Of how many names the addresses of one family are asked for at the same time."""


@frozen
class Found:
    """
    The addresses of one name.

    `problems`: why those of one family are not new, and which are left out.
    """

    addresses: tuple[str, ...]
    ttl: float
    problems: tuple[str, ...] = ()


class AddressBook:
    """
    Addresses of names.  While the look-up of a family fails, its last ones stay.

    A family that failed while the other one was found is asked for only once at a time
    until it is found again: where AAAA is never answered, A should not have to wait for it.
    """

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._last: dict[tuple[str, int], Addresses] = {}
        self._failing: set[tuple[str, int]] = set()
        # A family that is not answered must not hold up the other one.
        self._slots = {kind: DeferredSemaphore(AT_ONCE) for kind in FAMILIES}

    async def find(
        self, servers: Sequence[Nameserver], name: str, known: Callable[[str], None]
    ) -> Found:
        """
        The IPv4 and IPv6 addresses of `name`.

        Calls `known` with `name` once one family is found, and at the end in any case.
        `LookFailed` if there are none, or if neither family's look-up gave any.
        """

        def answered(family: Addresses) -> Addresses:
            if family.addresses:
                known(name)
            return family

        looks = [
            Deferred.fromCoroutine(self._ask(servers, name, kind)).addCallback(answered)
            for kind in FAMILIES
        ]
        results: list[tuple[bool, Any]] = await DeferredList(looks, consumeErrors=True)
        known(name)
        failures = []
        fresh: dict[tuple[str, int], Addresses] = {}
        failing = set()
        for kind, (succeeded, result) in zip(FAMILIES, results, strict=True):
            if succeeded:
                fresh[name, kind] = result
                self._failing.discard((name, kind))
                continue
            if result.check(LookFailed) is None:
                result.raiseException()
            failing.add((name, kind))
            failures.append(reason_of(result))
        faults = [fault for family in fresh.values() for fault in family.faults]
        if not any(family.addresses for family in fresh.values()):
            if faults:
                raise LookFailed(nothing_left(faults))
            raise LookFailed(failures[0] if failures else f"{escaped(name)} has no address")
        self._failing |= failing
        self._last |= fresh
        return Found(
            addresses=self.last(name),
            ttl=min(family.ttl for family in fresh.values()),
            problems=(*failures, *map(left_out, faults)),
        )

    async def _ask(self, servers: Sequence[Nameserver], name: str, kind: int) -> Addresses:
        timeouts = ATTEMPT_TIMEOUTS[:1] if (name, kind) in self._failing else ATTEMPT_TIMEOUTS
        async with self._slots[kind]:
            answer = await self._resolver.ask(servers, name, kind, timeouts)
        found = addresses_in(answer.answers, name, kind)
        # That a family has none any more counts once the other one has some.
        if found.addresses:
            self._last[name, kind] = found
        return found

    def last(self, name: str) -> tuple[str, ...]:
        """The addresses that `name` last had."""
        known = [self._last[name, kind] for kind in FAMILIES if (name, kind) in self._last]
        return tuple(address for family in known for address in family.addresses)

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget all but `names`."""
        kept = set(names)
        self._last = {key: known for key, known in self._last.items() if key[0] in kept}
        self._failing = {key for key in self._failing if key[0] in kept}


@frozen
class AddressLook:
    """Every address of `name` is a server, at `port`."""

    resolver: Resolver
    book: AddressBook
    name: str
    port: int
    shortest: float
    longest: float

    async def __call__(self, so_far: SoFar) -> Look:
        """Look once; the addresses of one family are enough for first servers."""
        nameservers = await self.resolver.nameservers()
        found = await self.book.find(nameservers, self.name, lambda name: so_far(self._servers))
        ttl = clamped(found.ttl, self.shortest, self.longest)
        return Look(self._servers(), ttl, found.problems)

    def _servers(self) -> Servers:
        addresses = self.book.last(self.name)
        return tuple(UpstreamServer(host_and_port(each, self.port)) for each in addresses)


@frozen
class ServiceLook:
    """Every address of every target of the service records of `name` is a server."""

    resolver: Resolver
    book: AddressBook
    name: str
    shortest: float
    longest: float

    async def __call__(self, so_far: SoFar) -> Look:
        """Look once; it is enough for first servers when every target has one family or none."""
        nameservers = await self.resolver.nameservers()
        answer = await self.resolver.ask(nameservers, self.name, dns.SRV)
        found = services_in(answer, self.name)
        if not found.services:
            if found.faults:
                raise LookFailed(nothing_left(found.faults))
            raise LookFailed(f"{self.name} has no SRV record")
        targets = sorted({service.target for service in found.services} - {""})
        if not targets:
            raise LookFailed(f"{self.name}: the service is not offered (its target is the root)")
        # With one target missing, the answer may have been cut before any of the others.
        if found.known.keys() >= set(targets):
            known = {name: Found(each.addresses, each.ttl) for name, each in found.known.items()}
        else:
            known = await self._find(
                nameservers,
                targets,
                lambda: so_far(partial(self._servers, found.services, targets)),
            )
        servers = servers_of(
            found.services, {target: each.addresses for target, each in known.items()}
        )
        of_targets = [problem for each in known.values() for problem in each.problems]
        if not servers:
            raise LookFailed(of_targets[0])
        ttl = min([found.ttl, *(each.ttl for each in known.values())])
        problems = (*map(left_out, found.faults), *of_targets)
        return Look(servers, clamped(ttl, self.shortest, self.longest), problems)

    async def _find(
        self, servers: Sequence[Nameserver], targets: list[str], known: Callable[[], None]
    ) -> dict[str, Found]:
        """
        The addresses of `targets`; of one whose look-up fails the last ones, with the reason.

        Calls `known` once each of them has an address, or will have none.
        """
        self.book.keep_only(targets)
        missing = set(targets)

        def found_one(target: str) -> None:
            missing.discard(target)
            if not missing:
                known()

        looks = [
            Deferred.fromCoroutine(self.book.find(servers, target, found_one)) for target in targets
        ]
        found = {}
        results: list[tuple[bool, Any]] = await DeferredList(looks, consumeErrors=True)
        for target, (succeeded, result) in zip(targets, results, strict=True):
            if succeeded:
                found[target] = result
            elif result.check(LookFailed) is None:
                result.raiseException()
            else:
                found[target] = Found(self.book.last(target), self.longest, (reason_of(result),))
        return found

    def _servers(self, services: Sequence[Service], targets: list[str]) -> Servers:
        return servers_of(services, {target: self.book.last(target) for target in targets})


def clamped(seconds: float, shortest: float, longest: float) -> float:
    """`seconds`, but not outside of the bounds."""
    return max(shortest, min(seconds, longest))


def dns_discovery(reactor: Any, settings: Discover, random: Random) -> Discovery:
    """The discovery of kind ``dns`` or ``dns-srv`` that `settings` describe."""
    fault = domain_fault(settings.name)
    if fault is not None:
        raise SettingsError(f"discover.name: {settings.name!r}: {fault}")
    resolver = Resolver(reactor, [_nameserver(text) for text in settings.nameservers])
    book = AddressBook(resolver)
    shortest, longest = settings.min_interval, settings.interval
    look: AddressLook | ServiceLook
    if settings.kind == "dns-srv":
        look = ServiceLook(resolver, book, settings.name, shortest, longest)
    else:
        if not 1 <= settings.port <= 65535:
            raise SettingsError(f"discover.port: expected 1 to 65535, got {settings.port}")
        look = AddressLook(resolver, book, settings.name, settings.port, shortest, longest)
    return PollingDiscovery(
        reactor,
        lambda so_far: Deferred.fromCoroutine(look(so_far)),
        Backoff(shortest, longest, random),
    )


def _nameserver(text: str) -> Nameserver:
    server = nameserver(text)
    if server is None:
        raise SettingsError(f"discover.nameservers: expected ADDRESS or ADDRESS:PORT, got {text!r}")
    return server
