"""When discoveries look again: after a time to live, and after failures, in an instant's test."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock, deferLater
from twisted.names import dns

from evproxy.model import UpstreamServer
from evproxy.upstream.discovery.dns import AddressCache, AddressLookUp, ServiceLookUp
from evproxy.upstream.discovery.etcd import EtcdDiscovery
from evproxy.upstream.discovery.etcd_wire import EtcdError, Registry
from evproxy.upstream.discovery.polling import (
    RESOLUTION_DELAY,
    Backoff,
    LookUpFailed,
    LookUpResult,
    PollingDiscovery,
    ReportPartial,
)
from evproxy.upstream.discovery.resolver import Resolver
from tests.support.discovery_recorder import Told
from tests.support.name_servers import PlayedNameServer, played
from tests.support.pool_doubles import nothing

SHORTEST, LONGEST = 2.0, 30.0
FAILURES = 7
"""So many that delays which double from `SHORTEST` reach `LONGEST`."""


@pytest.mark.parametrize(("ttl", "wait"), [(0, SHORTEST), (7, 7.0), (29, 29.0), (99, LONGEST)])
async def test_time_to_live(reactor: Any, ttl: int, wait: float) -> None:
    """DNS is asked again when the shortest time to live is over, within the bounds."""

    def answer(name: str, kind: int, message: dns.Message) -> bool:
        if kind == dns.SRV:
            service = dns.Record_SRV(0, 1, 80, "a.test", ttl)
            message.answers = [dns.RRHeader(name, dns.SRV, dns.IN, ttl, service)]
        elif kind == dns.A:
            address = dns.Record_A("10.0.0.1", ttl + 1)
            message.answers = [dns.RRHeader(name, dns.A, dns.IN, max(ttl, 1), address)]
        return True

    with played(reactor, PlayedNameServer(answer)) as port:
        resolver = Resolver(reactor, [("127.0.0.1", port)])
        cache = AddressCache(resolver)
        services = await ServiceLookUp(resolver, cache, "x.test", SHORTEST, LONGEST)(nothing)
        assert services.next_in == wait
        addresses = await AddressLookUp(resolver, cache, "a.test", 80, SHORTEST, LONGEST)(nothing)
        assert addresses.next_in == max(wait, 1.0)


def waits(clock: Clock, count: int) -> list[float]:
    """The next `count` times that whoever calls later on `clock` waits."""
    found = []
    for _ in range(count):
        (call,) = clock.getDelayedCalls()
        found.append(call.getTime() - clock.seconds())
        clock.advance(found[-1])
    return found


def grow(delays: list[float]) -> None:
    """Each of the delays is from the upper half of twice the one before, up to `LONGEST`."""
    for number, delay in enumerate(delays):
        most = min(SHORTEST * 2**number, LONGEST)
        assert most / 2 <= delay <= most


def test_polling() -> None:
    """A look says when the next one is; after failures in a row each wait is longer."""
    clock, told, results = Clock(), Told(), [LookUpResult((UpstreamServer("a:1"),), 7.0)]

    def look(report_partial: ReportPartial) -> Deferred[LookUpResult]:
        return succeed(results.pop()) if results else fail(LookUpFailed("away"))

    discovery = PollingDiscovery(clock, look, Backoff(SHORTEST, LONGEST, Random(1)))
    discovery.start(told.changed, told.failed)
    assert waits(clock, 1) == [7.0]
    grow(waits(clock, FAILURES))
    results.append(LookUpResult((), 9.0))
    waits(clock, 1)
    assert waits(clock, 1) == [9.0]
    grow(waits(clock, 2))
    discovery.stop()
    assert clock.getDelayedCalls() == []


def test_first_servers() -> None:
    """The first servers are told once the rest of a look is late; later looks are told whole."""
    clock, told = Clock(), Told()
    a, b, c = (UpstreamServer(f"{name}:1") for name in "abc")
    known, looks = [a], [Deferred[LookUpResult]() for _ in range(2)]

    def look(report_partial: ReportPartial) -> Deferred[LookUpResult]:
        report_partial(lambda: tuple(known))
        return looks[0]

    discovery = PollingDiscovery(clock, look, Backoff(SHORTEST, LONGEST, Random(1)))
    told.source = discovery
    discovery.start(told.changed, told.failed)
    clock.advance(RESOLUTION_DELAY / 2)
    assert told.sets == []
    known.append(b)
    clock.advance(RESOLUTION_DELAY / 2)
    assert told.sets == [(a, b)]
    looks.pop(0).callback(LookUpResult((a, b, c), 7.0))
    assert told.sets == [(a, b), (a, b, c)]
    assert waits(clock, 1) == [7.0]
    clock.advance(2 * RESOLUTION_DELAY)
    looks[0].callback(LookUpResult((a, b, c), 9.0, ("half",)))
    assert told.sets == [(a, b), (a, b, c), (a, b, c)]
    assert told.problems == ("half",)
    discovery.stop()
    assert clock.getDelayedCalls() == []


def test_first_servers_in_time() -> None:
    """Where the rest of a look comes in time, only the whole is told."""
    clock, told, looking = Clock(), Told(), Deferred[LookUpResult]()
    a, b = UpstreamServer("a:1"), UpstreamServer("b:1")

    def look(report_partial: ReportPartial) -> Deferred[LookUpResult]:
        report_partial(lambda: (a,))
        return looking

    discovery = PollingDiscovery(clock, look, Backoff(SHORTEST, LONGEST, Random(1)))
    told.source = discovery
    discovery.start(told.changed, told.failed)
    clock.advance(RESOLUTION_DELAY / 2)
    looking.callback(LookUpResult((a, b), 7.0))
    clock.advance(RESOLUTION_DELAY)
    assert told.sets == [(a, b)]
    discovery.stop()
    assert clock.getDelayedCalls() == []


def test_stop_before_first_servers() -> None:
    """Stopped while the rest of a look has time, it leaves nothing, whatever comes of the look."""
    clock, told = Clock(), Told()

    def look(report_partial: ReportPartial) -> Deferred[LookUpResult]:
        report_partial(tuple)
        return Deferred(lambda _: report_partial(tuple))

    discovery = PollingDiscovery(clock, look, Backoff(SHORTEST, LONGEST, Random(1)))
    told.source = discovery
    discovery.start(told.changed, told.failed)
    discovery.stop()
    assert clock.getDelayedCalls() == []
    assert told == Told()


def test_first_servers_after_a_failure() -> None:
    """First servers are the end of a failure, and what then fails of their look is told."""
    clock, told, looking = Clock(), Told(), Deferred[LookUpResult]()
    a = UpstreamServer("a:1")
    looks: list[Deferred[LookUpResult]] = [looking, fail(LookUpFailed("away"))]

    def look(report_partial: ReportPartial) -> Deferred[LookUpResult]:
        report_partial(lambda: (a,))
        return looks.pop()

    discovery = PollingDiscovery(clock, look, Backoff(SHORTEST, LONGEST, Random(1)))
    told.source = discovery
    discovery.start(told.changed, told.failed)
    assert (told.sets, told.failures) == ([], ["away"])
    waits(clock, 2)
    assert told.sets == [(a,)]
    looking.callback(LookUpResult((a,), 7.0, ("half",)))
    discovery.stop()
    assert (told.sets, told.failures) == ([(a,), (a,)], ["away"])
    assert told.problems == ("half",)
    assert clock.getDelayedCalls() == []


def test_etcd() -> None:
    """While no member of etcd answers, each wait is longer than the one before."""

    class Away:
        url = "http://a:1"

        async def read(self) -> object:
            raise EtcdError("away")

    clock, told = Clock(), Told()
    discovery = EtcdDiscovery(
        clock,
        [Away()],  # type: ignore[list-item]
        Registry(),
        Backoff(SHORTEST, LONGEST, Random(1)),
        LONGEST,
        SHORTEST,
    )
    told.source = discovery
    discovery.start(told.changed, told.failed)
    grow(waits(clock, FAILURES))
    discovery.stop()
    assert told.failures == (FAILURES + 1) * ["http://a:1: away"]
    assert clock.getDelayedCalls() == []


def test_started_twice() -> None:
    """A discovery that goes on already looks no more often, and one stop is the end of it."""
    clock, told = Clock(), Told()
    looks: list[float] = []

    def look(report_partial: ReportPartial) -> Deferred[LookUpResult]:
        looks.append(clock.seconds())
        return deferLater(clock, 1, LookUpResult, (), 4.0)

    discovery = PollingDiscovery(clock, look, Backoff(1, 30, Random(1)))
    discovery.start(told.changed, told.failed)
    discovery.start(told.changed, told.failed)
    clock.pump([1] * 8)
    assert looks == [0, 5]
    discovery.stop()
    assert clock.getDelayedCalls() == []
