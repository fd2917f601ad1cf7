"""
Servers from DNS: the addresses of a name, or the service records of a name.

The next look-up of a name comes when the time to live of its records is over, within bounds.
Names are absolute: the search list is not used.  ``/etc/hosts`` is not read, because it has no
time to live and no service records; for a fixed list, use the file kind.

Unusable records are left out.  The set is never empty: if a name does not exist, or has no
usable record, the look-up fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from random import Random
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore
from twisted.names import dns

from evproxy.config.addresses import parse_nameserver
from evproxy.config.canonical import host_and_port
from evproxy.escape import escaped
from evproxy.interfaces import Discovery
from evproxy.model import UpstreamServer
from evproxy.settings import Discover
from evproxy.upstream.discovery.polling import (
    Backoff,
    LookUpFailed,
    LookUpResult,
    PollingDiscovery,
    ReportPartial,
    Servers,
)
from evproxy.upstream.discovery.records import (
    Addresses,
    Service,
    addresses_in,
    servers_of,
    services_in,
)
from evproxy.upstream.discovery.resolver import ATTEMPT_TIMEOUTS, Nameserver, Resolver
from evproxy.upstream.reasons import left_out, nothing_left, reason_of

FAMILIES = (dns.A, dns.AAAA)

AT_ONCE = 16
"""The most look-ups of addresses of one family at the same time."""


@frozen
class Found:
    """
    The addresses of one name.

    `problems` says which family could not be looked up, and which addresses are left out.
    """

    addresses: tuple[str, ...]
    ttl: float
    problems: tuple[str, ...] = ()


class AddressCache:
    """
    The addresses of names.  While the look-up of a family fails, its last addresses stay.

    If the look-up of only one family failed, later look-ups of this family have no retries
    until one succeeds.  So if a server never answers AAAA, A does not have to wait long for it.
    """

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._last: dict[tuple[str, int], Addresses] = {}
        self._failing: set[tuple[str, int]] = set()
        # A family without answers must not use up the slots of the other family.
        self._slots = {kind: DeferredSemaphore(AT_ONCE) for kind in FAMILIES}

    async def find(
        self, servers: Sequence[Nameserver], name: str, known: Callable[[str], None]
    ) -> Found:
        """
        Look up the IPv4 and IPv6 addresses of `name`.

        :param known: called with `name` when one family is found, and at the end in any case.
        :raises LookUpFailed: if neither family gave an address.
        """

        def answered(family: Addresses) -> Addresses:
            if family.addresses:
                known(name)
            return family

        look_ups = [
            Deferred.fromCoroutine(self._ask(servers, name, kind)).addCallback(answered)
            for kind in FAMILIES
        ]
        results: list[tuple[bool, Any]] = await DeferredList(look_ups, consumeErrors=True)
        known(name)
        failures = []
        fresh: dict[tuple[str, int], Addresses] = {}
        failing = set()
        for kind, (succeeded, result) in zip(FAMILIES, results, strict=True):
            if succeeded:
                fresh[name, kind] = result
                self._failing.discard((name, kind))
                continue
            if result.check(LookUpFailed) is None:
                result.raiseException()
            failing.add((name, kind))
            failures.append(reason_of(result))
        faults = [fault for family in fresh.values() for fault in family.faults]
        if not any(family.addresses for family in fresh.values()):
            if faults:
                raise LookUpFailed(nothing_left(faults))
            raise LookUpFailed(failures[0] if failures else f"{escaped(name)} has no address")
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
        # An empty family replaces the last addresses only if the other family has some.
        if found.addresses:
            self._last[name, kind] = found
        return found

    def last(self, name: str) -> tuple[str, ...]:
        """The last known addresses of `name`."""
        known = [self._last[name, kind] for kind in FAMILIES if (name, kind) in self._last]
        return tuple(address for family in known for address in family.addresses)

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget all names except `names`."""
        kept = set(names)
        self._last = {key: known for key, known in self._last.items() if key[0] in kept}
        self._failing = {key for key in self._failing if key[0] in kept}


@frozen
class AddressLookUp:
    """Looks up the addresses of `name`: each address is a server at `port`."""

    resolver: Resolver
    cache: AddressCache
    name: str
    port: int
    shortest: float
    longest: float

    async def __call__(self, report_partial: ReportPartial) -> LookUpResult:
        """Look up once; the addresses of one family are enough for a partial result."""
        nameservers = await self.resolver.nameservers()
        found = await self.cache.find(
            nameservers, self.name, lambda name: report_partial(self._servers)
        )
        ttl = clamped(found.ttl, self.shortest, self.longest)
        return LookUpResult(self._servers(), ttl, found.problems)

    def _servers(self) -> Servers:
        addresses = self.cache.last(self.name)
        return tuple(UpstreamServer(host_and_port(each, self.port)) for each in addresses)


@frozen
class ServiceLookUp:
    """Looks up the service records of `name`: each address of each target is a server."""

    resolver: Resolver
    cache: AddressCache
    name: str
    shortest: float
    longest: float

    async def __call__(self, report_partial: ReportPartial) -> LookUpResult:
        """Look up once; one family of each target, or its failure, makes a partial result."""
        nameservers = await self.resolver.nameservers()
        answer = await self.resolver.ask(nameservers, self.name, dns.SRV)
        found = services_in(answer, self.name)
        if not found.services:
            if found.faults:
                raise LookUpFailed(nothing_left(found.faults))
            raise LookUpFailed(f"{self.name} has no SRV record")
        targets = sorted({service.target for service in found.services} - {""})
        if not targets:
            raise LookUpFailed(
                f"{self.name}: the service is not available (the target is the root)"
            )
        # If the answer lacks one target, it may be cut off, and lack addresses of others too.
        if found.known.keys() >= set(targets):
            known = {name: Found(each.addresses, each.ttl) for name, each in found.known.items()}
        else:
            known = await self._find(
                nameservers,
                targets,
                lambda: report_partial(partial(self._servers, found.services, targets)),
            )
        servers = servers_of(
            found.services, {target: each.addresses for target, each in known.items()}
        )
        of_targets = [problem for each in known.values() for problem in each.problems]
        if not servers:
            raise LookUpFailed(of_targets[0])
        ttl = min([found.ttl, *(each.ttl for each in known.values())])
        problems = (*map(left_out, found.faults), *of_targets)
        return LookUpResult(servers, clamped(ttl, self.shortest, self.longest), problems)

    async def _find(
        self, servers: Sequence[Nameserver], targets: list[str], known: Callable[[], None]
    ) -> dict[str, Found]:
        """
        Look up the addresses of `targets`.

        If the look-up of a target fails, the result has its last addresses and the reason.

        :param known: called when each target has an address, or its look-up has failed.
        """
        self.cache.keep_only(targets)
        missing = set(targets)

        def found_one(target: str) -> None:
            missing.discard(target)
            if not missing:
                known()

        look_ups = [
            Deferred.fromCoroutine(self.cache.find(servers, target, found_one))
            for target in targets
        ]
        found = {}
        results: list[tuple[bool, Any]] = await DeferredList(look_ups, consumeErrors=True)
        for target, (succeeded, result) in zip(targets, results, strict=True):
            if succeeded:
                found[target] = result
            elif result.check(LookUpFailed) is None:
                result.raiseException()
            else:
                found[target] = Found(self.cache.last(target), self.longest, (reason_of(result),))
        return found

    def _servers(self, services: Sequence[Service], targets: list[str]) -> Servers:
        return servers_of(services, {target: self.cache.last(target) for target in targets})


def clamped(seconds: float, shortest: float, longest: float) -> float:
    """`seconds`, limited to the range from `shortest` to `longest`."""
    return max(shortest, min(seconds, longest))


def dns_discovery(reactor: Any, settings: Discover, random: Random) -> Discovery:
    """Make the discovery of kind ``dns`` or ``dns-srv`` that `settings` describe."""
    parsed = map(parse_nameserver, settings.nameservers)
    # `Discover` refuses a text that has a fault.
    resolver = Resolver(reactor, [each for each in parsed if not isinstance(each, str)])
    cache = AddressCache(resolver)
    shortest, longest = settings.min_interval, settings.interval
    look_up: AddressLookUp | ServiceLookUp
    if settings.kind == "dns-srv":
        look_up = ServiceLookUp(resolver, cache, settings.name, shortest, longest)
    else:
        look_up = AddressLookUp(resolver, cache, settings.name, settings.port, shortest, longest)
    return PollingDiscovery(
        reactor,
        lambda report_partial: Deferred.fromCoroutine(look_up(report_partial)),
        Backoff(shortest, longest, random),
    )
