"""Servers from DNS, with a real DNS server whose zone changes."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from twisted.names import dns

from evproxy import Pool
from evproxy.model import UpstreamServer
from evproxy.settings import Discover
from evproxy.upstream.discovery.by_kind import discovery_for
from evproxy.upstream.discovery.dns import AT_ONCE
from evproxy.upstream.discovery.polling import LookUpFailed
from evproxy.upstream.discovery.resolver import DATAGRAM_LIMIT, Resolver
from tests.support.discovery_recorder import Told
from tests.support.leaks import LoggedErrors
from tests.support.name_servers import PlayedNameServer, name_server, played
from tests.support.peers import IPV6
from tests.support.pools import Heard
from tests.support.real_servers import RealServers, free_port

OFTEN = 0.05
"""The lower bound between look-ups: all records' time to live is 0."""


def watching(
    reactor: Any, kind: str, name: str, ports: Sequence[int], **settings: Any
) -> tuple[Told, Any]:
    """A discovery that has started, and what it tells."""
    told = Told()
    return told, watch(reactor, told, kind, name, ports, **settings)


def watch(
    reactor: Any, told: Told, kind: str, name: str, ports: Sequence[int], **settings: Any
) -> Any:
    """A discovery that has started, and tells `told`."""
    discover = Discover(
        kind,
        name=name,
        nameservers=tuple(f"127.0.0.1:{port}" for port in ports),
        min_interval=OFTEN,
        **{"interval": 10 * OFTEN, **settings},
    )
    discovery = discovery_for(reactor, discover, Random(1))
    told.source = discovery
    discovery.start(told.changed, told.failed)
    return discovery


@pytest.mark.peers("knotd", "knotc")
async def test_addresses_change(reactor: Any, real_servers: RealServers) -> None:
    """A and AAAA records are servers; a changed zone is a new set."""
    dns = await name_server(reactor, real_servers, "web A 10.0.0.1\nweb A 10.0.0.2")
    told, discovery = watching(reactor, "dns", "web.example.test", [dns.port], port=80)
    await told.servers("10.0.0.1:80", "10.0.0.2:80")
    dns.change("web A 10.0.0.2\nweb AAAA fd00::1")
    assert await told.servers("10.0.0.2:80", "[fd00::1]:80") == (
        UpstreamServer("10.0.0.2:80"),
        UpstreamServer("[fd00::1]:80"),
    )
    dns.change("web CNAME other\nother AAAA fd00::2")
    await told.servers("[fd00::2]:80")
    discovery.stop()
    assert told.failures == []


@pytest.mark.peers("knotd", "knotc")
async def test_names_go_away(reactor: Any, real_servers: RealServers) -> None:
    """A name that is gone, or has no address, is a failure; the last set stays until it is back."""
    dns = await name_server(reactor, real_servers, "web A 10.0.0.1")
    told, discovery = watching(reactor, "dns", "web.example.test", [dns.port], port=80)
    await told.servers("10.0.0.1:80")
    dns.change("")
    await told.until(lambda: "A of web.example.test: NXDOMAIN" in told.failures)
    dns.change("web TXT nothing")
    await told.until(lambda: "web.example.test has no address" in told.failures)
    assert len(told.sets) == 1
    dns.change("web A 10.0.0.1")
    await told.until(lambda: len(told.sets) == 2)
    discovery.stop()
    assert told.endpoints() == ["10.0.0.1:80"]


@pytest.mark.skipif(not IPV6, reason="there is no IPv6 here")
async def test_a_name_server_on_ipv6_is_told(reactor: Any) -> None:
    """The address of a name server that does not answer is in brackets, before its port."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as taken:
        taken.bind(("::1", 0))
        port = taken.getsockname()[1]
    resolver = Resolver(reactor, [("::1", port)])
    with pytest.raises(LookUpFailed, match=re.escape(f"(asked [::1]:{port})")):
        await resolver.ask(await resolver.nameservers(), "web.example.test", dns.A)


@pytest.mark.peers("knotd", "knotc")
async def test_server_goes_away(reactor: Any, real_servers: RealServers) -> None:
    """While the name server is stopped or gone the last set stays, and the reason is told."""
    dns = await name_server(reactor, real_servers, "web A 10.0.0.1")
    told, discovery = watching(reactor, "dns", "web.example.test", [dns.port], port=80)
    await told.servers("10.0.0.1:80")
    dns.server.signal(signal.SIGSTOP)
    asked = f"(asked 127.0.0.1:{dns.port})"
    assert await told.failure() == f"A of web.example.test: timed out {asked}"
    dns.server.stop()
    refused = f"A of web.example.test: connection refused {asked}"
    await told.until(lambda: refused in told.failures)
    assert len(told.sets) == 1
    dns.write("web A 10.0.0.9")
    await dns.server.started(reactor, dns.port)
    await told.servers("10.0.0.9:80")
    discovery.stop()


@pytest.mark.peers("knotd", "knotc")
async def test_other_name_server(reactor: Any, real_servers: RealServers) -> None:
    """Where the first name server is away, or will not answer, the next one is asked."""
    dns = await name_server(reactor, real_servers, "web A 10.0.0.1")
    ports = [free_port(socket.SOCK_DGRAM), dns.port]
    told, discovery = watching(reactor, "dns", "web.example.test", ports, port=80)
    await told.servers("10.0.0.1:80")
    discovery.stop()
    told, discovery = watching(reactor, "dns", "web.elsewhere.test", [dns.port], port=80)
    assert await told.failure() == "A of web.elsewhere.test: REFUSED"
    discovery.stop()


@pytest.mark.peers("knotd", "knotc")
async def test_over_ipv6(reactor: Any, real_servers: RealServers) -> None:
    """A name server may have an IPv6 address."""
    dns = await name_server(reactor, real_servers, "web A 10.0.0.1")
    told = Told()
    nameservers = (f"[::1]:{dns.port}",)
    discover = Discover("dns", name="web.example.test", port=80, nameservers=nameservers)
    discovery = discovery_for(reactor, discover, Random(1))
    told.source = discovery
    discovery.start(told.changed, told.failed)
    await told.servers("10.0.0.1:80")
    discovery.stop()


@pytest.mark.peers("knotd", "knotc")
async def test_long_answer(reactor: Any, real_servers: RealServers) -> None:
    """An answer that does not fit a datagram comes over TCP."""
    addresses = [f"10.0.0.{number}" for number in range(1, 101)]
    records = "\n".join(f"web A {address}" for address in addresses)
    dns = await name_server(reactor, real_servers, records)
    told, discovery = watching(reactor, "dns", "web.example.test", [dns.port], port=80)
    await told.servers(*(f"{address}:80" for address in addresses))
    discovery.stop()
    assert told.failures == []


@pytest.mark.peers("knotd", "knotc")
async def test_services_change(reactor: Any, real_servers: RealServers) -> None:
    """SRV records give ports, weights and tiers; a changed zone is a new set."""
    hosts = "a A 10.0.0.1\nb A 10.0.0.2\nb AAAA fd00::2\n"
    records = "_x._tcp SRV 0 10 8001 a\n_x._tcp SRV 5 4 8002 b"
    dns = await name_server(reactor, real_servers, hosts + records)
    told, discovery = watching(reactor, "dns-srv", "_x._tcp.example.test", [dns.port])
    assert await told.servers("10.0.0.1:8001", "10.0.0.2:8002", "[fd00::2]:8002") == (
        UpstreamServer("10.0.0.1:8001", weight=10),
        UpstreamServer("10.0.0.2:8002", weight=2, priority=5),
        UpstreamServer("[fd00::2]:8002", weight=2, priority=5),
    )
    dns.change(hosts + "_x._tcp SRV 0 0 8003 a\n_x._tcp SRV 0 65535 8004 a")
    servers = await told.servers("10.0.0.1:8003", "10.0.0.1:8004")
    assert [server.weight for server in servers] == [1, 256]
    dns.change(hosts + "_x._tcp SRV 0 0 0 .")
    assert "not available" in await told.failure()
    dns.change(hosts)
    await told.until(lambda: told.failures[-1].endswith("NXDOMAIN"))
    dns.change(hosts + "_x._tcp TXT nothing")
    before = len(told.sets)
    await told.until(lambda: told.failures[-1] == "_x._tcp.example.test has no SRV record")
    discovery.stop()
    assert len(told.sets) == before


@pytest.mark.peers("knotd", "knotc")
async def test_services_without_addresses(reactor: Any, real_servers: RealServers) -> None:
    """A target that cannot be resolved is told; the others count, and so does what it last had."""
    records = "_x._tcp SRV 0 1 80 a\n_x._tcp SRV 0 1 80 b\n"
    dns = await name_server(reactor, real_servers, records + "a A 10.0.0.1")
    told, discovery = watching(reactor, "dns-srv", "_x._tcp.example.test", [dns.port])
    await told.servers("10.0.0.1:80")
    assert await told.problem() == "A of b.example.test: NXDOMAIN"
    dns.change(records + "b A 10.0.0.2")
    await told.servers("10.0.0.1:80", "10.0.0.2:80")
    discovery.stop()


@pytest.mark.peers("knotd", "knotc")
async def test_services_without_a_port(reactor: Any, real_servers: RealServers) -> None:
    """A record that has no port is told, and the others count."""
    hosts = "a A 10.0.0.1\nb A 10.0.0.2\n"
    records = "_x._tcp SRV 0 1 80 a\n_x._tcp SRV 0 1 0 b\n"
    dns = await name_server(reactor, real_servers, hosts + records)
    told, discovery = watching(reactor, "dns-srv", "_x._tcp.example.test", [dns.port])
    await told.servers("10.0.0.1:80")
    reason = 'SRV of _x._tcp.example.test: "b.example.test": its port is 0'
    assert await told.problem() == f"left out: {reason}"
    dns.change(hosts + "_x._tcp SRV 0 1 0 b\n")
    assert await told.failure() == f"no usable server: {reason}"
    discovery.stop()
    assert told.endpoints() == ["10.0.0.1:80"]


@pytest.mark.peers("knotd", "knotc")
async def test_services_with_odd_targets(
    reactor: Any, real_servers: RealServers, logged_errors: LoggedErrors
) -> None:
    """Targets that cannot be looked up are told and left out, by a real name server too."""
    hosts = "a A 10.0.0.1\n"
    records = "_x._tcp SRV 0 1 80 a\n_x._tcp SRV 0 1 80 b\\255d\n_x._tcp SRV 0 1 80 b\\032d\n"
    dns = await name_server(reactor, real_servers, hosts + records)
    told, discovery = watching(reactor, "dns-srv", "_x._tcp.example.test", [dns.port])
    await told.servers("10.0.0.1:80")
    await told.problem()
    discovery.stop()
    of = "left out: SRV of _x._tcp.example.test: "
    why = "it may have only letters, digits, hyphens and dots"
    assert told.problems == (
        f'{of}"b d.example.test": {why}',
        f'{of}"b\\\\xffd.example.test": {why}',
    )
    assert (told.failures, logged_errors.flush(Exception)) == ([], [])


async def test_odd_record_is_told_once(reactor: Any, logged_errors: LoggedErrors) -> None:
    """A record that cannot be used is told once while it is there, and again when it is back."""
    long = 70 * b"b"
    targets = [b"a.test"]

    def answers(name: str, kind: int, answer: dns.Message) -> bool:
        if kind == dns.SRV:
            records = [dns.Record_SRV(0, 1, 80, target, 0) for target in targets]
            answer.answers = [dns.RRHeader(name, kind, dns.IN, 0, record) for record in records]
        elif kind == dns.A:
            record = dns.Record_A("10.0.0.1" if name == "a.test" else "10.0.0.2", 0)
            answer.answers = [dns.RRHeader(name, kind, dns.IN, 0, record)]
        return True

    server = PlayedNameServer(answers)
    with played(reactor, server) as port:
        nameservers = (f"127.0.0.1:{port}",)
        discover = Discover("dns-srv", name="x.test", nameservers=nameservers, min_interval=OFTEN)
        heard = Heard()
        pool = Pool(reactor, discover=discover, observer=heard)
        pool.start()
        for count in (1, 2):
            targets[1:] = [long]
            assert await heard.line("discovery: ", count) == (
                f'discovery: left out: SRV of x.test: "{60 * "b"}…": '
                "a label has 1 to 63 characters, and the whole name at most 253"
            )
            targets[1:] = [long, b"c.test"]
            await heard.line("10.0.0.2:80 added", count)
            targets[1:] = []
            await heard.line("discovery recovered", count)
        pool.stop()
    discovery = [line for line in heard.lines if line.startswith("discovery")]
    assert len(discovery) == 4
    assert logged_errors.flush(Exception) == []


# A name that points back, the type, the class, the TTL, the length and the address.
A_RECORD = 2 + 2 + 2 + 4 + 2 + 4


@pytest.mark.parametrize("cut", [1, A_RECORD - 1, A_RECORD, 2 * A_RECORD])
async def test_an_answer_that_is_cut(reactor: Any, cut: int) -> None:
    """It does not say so, and is no smaller set: the servers stay, and the whole answer counts."""

    def answers(name: str, kind: int, answer: dns.Message) -> bool:
        if kind == dns.A:
            answer.answers = [
                dns.RRHeader(name, kind, dns.IN, 0, dns.Record_A(f"10.0.0.{number}", 0))
                for number in (1, 2, 3)
            ]
        return True

    server = PlayedNameServer(answers)
    with played(reactor, server) as port:
        told, discovery = watching(reactor, "dns", "x.test", [port], port=80)
        every = ("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
        await told.servers(*every)
        server.cut = cut
        await told.until(lambda: bool(told.failures))
        # The whole answer is asked for over TCP, where this server does not listen.
        where = f"(asked 127.0.0.1:{port})"
        assert told.failures[-1] == f"A of x.test: connection refused {where}"
        server.cut = 0
        await told.servers(*every)
        discovery.stop()


async def test_target_that_loses_its_addresses(reactor: Any) -> None:
    """A target that has none any more, or bad ones only, keeps those it had."""
    known: dict[str, list[str]] = {"a.test": ["10.0.0.1"], "b.test": ["10.0.0.2"]}

    def answers(name: str, kind: int, answer: dns.Message) -> bool:
        if kind == dns.SRV:
            records = [dns.Record_SRV(0, 1, 80, target, 0) for target in known]
            answer.answers = [dns.RRHeader(name, kind, dns.IN, 0, record) for record in records]
        elif kind == dns.A:
            answer.answers = [
                dns.RRHeader(name, kind, dns.IN, 0, dns.Record_A(address, 0))
                for address in known[name]
            ]
        return True

    with played(reactor, PlayedNameServer(answers)) as port:
        told, discovery = watching(reactor, "dns-srv", "x.test", [port])
        both = ("10.0.0.1:80", "10.0.0.2:80")
        await told.servers(*both)
        for addresses, problem in [
            ([], "b.test has no address"),
            (["0.0.0.0"], "no usable server: A of b.test: 0.0.0.0 is not the address of a host"),
        ]:
            known["b.test"] = addresses
            await told.until(partial(lambda wanted: told.problems == (wanted,), problem))
            assert told.endpoints() == sorted(both)
        known["b.test"] = ["0.0.0.0", "10.0.0.3"]
        await told.servers("10.0.0.1:80", "10.0.0.3:80")
        discovery.stop()
    assert told.problems == ("left out: A of b.test: 0.0.0.0 is not the address of a host",)


@pytest.mark.peers("knotd", "knotc")
async def test_many_services(reactor: Any, real_servers: RealServers) -> None:
    """More targets than are asked for at once, without their addresses in the answer."""
    names = [f"h{number}" for number in range(1, 101)]
    records = "\n".join(
        f"_x._tcp SRV 0 1 80 {name}\n{name} A 10.0.0.{number}" for number, name in enumerate(names)
    )
    dns = await name_server(reactor, real_servers, records)
    told, discovery = watching(reactor, "dns-srv", "_x._tcp.example.test", [dns.port], interval=5.0)
    await told.servers(*(f"10.0.0.{number}:80" for number in range(100)))
    discovery.stop()


async def test_family_that_is_never_answered(reactor: Any) -> None:
    """Where AAAA is dropped, A is told at once, and later looks wait for one attempt only."""
    addresses = ["10.0.0.1"]

    def only_a(name: str, kind: int, answer: dns.Message) -> bool:
        if kind == dns.A:
            record = dns.Record_A(addresses[0], 0)
            answer.answers = [dns.RRHeader(name, dns.A, dns.IN, 0, record)]
        return kind == dns.A

    server = PlayedNameServer(only_a)
    with played(reactor, server) as port:
        told, discovery = watching(reactor, "dns", "web.test", [port], port=80)
        await told.servers("10.0.0.1:80")
        assert server.asked == [dns.A, dns.AAAA]
        await told.problem()
        assert server.asked == [dns.A, dns.AAAA, dns.AAAA]
        assert set(told.sets) == {(UpstreamServer("10.0.0.1:80"),)}
        server.asked.clear()
        addresses[0] = "10.0.0.2"
        await told.servers("10.0.0.2:80")
        discovery.stop()
        assert server.asked == [dns.A, dns.AAAA]
        assert told.problems == (f"AAAA of web.test: timed out (asked 127.0.0.1:{port})",)
        assert told.failures == []


async def test_family_that_is_answered_late(reactor: Any) -> None:
    """AAAA addresses that come late complete the set, and stay in it when they come no more."""
    told = Told()

    def late(name: str, kind: int, answer: dns.Message) -> bool:
        four, six = dns.Record_A(f"10.0.0.{len(told.sets)}", 0), dns.Record_AAAA("fd00::1", 0)
        answer.answers = [dns.RRHeader(name, kind, dns.IN, 0, four if kind == dns.A else six)]
        return kind == dns.A or len(told.sets) == 1

    with played(reactor, PlayedNameServer(late)) as port:
        discovery = watch(reactor, told, "dns", "web.test", [port], port=80)
        await told.servers("10.0.0.0:80")
        await told.servers("10.0.0.0:80", "[fd00::1]:80")
        await told.servers("10.0.0.2:80", "[fd00::1]:80")
        discovery.stop()
    assert told.failures == []
    assert len(told.sets) == 3


async def test_services_whose_family_is_never_answered(reactor: Any) -> None:
    """Where AAAA is dropped, all targets' A are told at once, however many there are."""
    names = [f"h{number}.test" for number in range(3 * AT_ONCE)]

    def only_a(name: str, kind: int, answer: dns.Message) -> bool:
        if kind == dns.SRV:
            answer.maxSize = DATAGRAM_LIMIT
            records = [dns.Record_SRV(0, 1, 80, target, 0) for target in names]
            answer.answers = [dns.RRHeader(name, kind, dns.IN, 0, record) for record in records]
        elif kind == dns.A:
            record = dns.Record_A(f"10.0.0.{names.index(name)}", 0)
            answer.answers = [dns.RRHeader(name, kind, dns.IN, 0, record)]
        return kind != dns.AAAA

    server = PlayedNameServer(only_a)
    with played(reactor, server) as port:
        told, discovery = watching(reactor, "dns-srv", "x.test", [port])
        await told.until(lambda: bool(told.sets))
        discovery.stop()
    assert len(told.sets[0]) == len(names)
    assert server.asked.count(dns.AAAA) == AT_ONCE


async def test_each_failure_and_its_end(reactor: Any) -> None:
    """A pool's observer hears once that it works again, and then anew of what fails."""
    known = {dns.A: "10.0.0.1"}

    def answers(name: str, kind: int, answer: dns.Message) -> bool:
        if kind in known:
            record = dns.Record_A(known[kind], 0) if kind == dns.A else dns.Record_AAAA(known[kind])
            answer.answers = [dns.RRHeader(name, kind, dns.IN, 0, record)]
        else:
            answer.rCode = dns.ESERVER
        return True

    with played(reactor, PlayedNameServer(answers)) as port:
        nameservers = (f"127.0.0.1:{port}",)
        discover = Discover(
            "dns", name="web.test", port=80, nameservers=nameservers, min_interval=OFTEN
        )
        heard = Heard()
        pool = Pool(reactor, discover=discover, observer=heard)
        pool.start()
        await heard.line("discovery: AAAA")
        known[dns.A] = "10.0.0.2"
        await heard.line("10.0.0.2:80 added")
        for count in (1, 2):
            known.clear()
            await heard.line("discovery: A of", count)
            known[dns.A] = "10.0.0.2"
            await heard.line("discovery: AAAA", count + 1)
        known[dns.AAAA] = "fd00::1"
        await heard.line("discovery recovered", 3)
        pool.stop()
    told = [line for line in heard.lines if line.startswith("discovery")]
    a, aaaa = (f"discovery: {kind} of web.test: SERVFAIL" for kind in ("A", "AAAA"))
    assert told == [aaaa, *(a, "discovery recovered", aaaa) * 2, "discovery recovered"]


@pytest.mark.parametrize("kind", ["dns", "dns-srv"])
async def test_stop_while_asking(reactor: Any, kind: str) -> None:
    """Stopped in the middle of a look-up, it leaves nothing and tells nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        settings = {"port": 80} if kind == "dns" else {}
        told, discovery = watching(reactor, kind, "web.example.test", [port], **settings)
        silent.settimeout(5)
        silent.recv(512)
        discovery.stop()
        discovery.stop()
        assert told == Told()


async def test_stop_while_waiting(reactor: Any) -> None:
    """Stopped between look-ups, it leaves nothing."""
    told, discovery = watching(
        reactor, "dns", "web.test", [free_port(socket.SOCK_DGRAM)], port=80, interval=100.0
    )
    await told.failure()
    discovery.stop()


async def test_system_name_servers(reactor: Any, tmp_path: Path) -> None:
    """Without given name servers those of resolv.conf are asked, as it is at the time."""
    path = tmp_path / "resolv.conf"
    resolver = Resolver(reactor, resolv_conf=str(path))
    assert await resolver.nameservers() == (("127.0.0.1", 53),)
    path.write_text("nameserver 10.9.8.7\n")
    assert await resolver.nameservers() == (("10.9.8.7", 53),)
