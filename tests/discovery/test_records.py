"""DNS answers as servers, without a server."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.names import dns

from evproxy.config.addresses import domain_fault, parse_nameserver
from evproxy.config.problems import quoted
from evproxy.model import UpstreamServer
from evproxy.upstream.discovery.records import (
    HEAVIEST,
    Answer,
    Service,
    addresses_in,
    canonical,
    nameservers_in,
    scaled_weights,
    servers_of,
    services_in,
)
from evproxy.upstream.discovery.resolver import answer_to


def a(name: str, address: str, ttl: int = 60) -> dns.RRHeader:
    return dns.RRHeader(name, dns.A, dns.IN, ttl, dns.Record_A(address, ttl))


def aaaa(name: str, address: str, ttl: int = 60) -> dns.RRHeader:
    return dns.RRHeader(name, dns.AAAA, dns.IN, ttl, dns.Record_AAAA(address, ttl))


def alias(name: str, target: str, ttl: int = 60) -> dns.RRHeader:
    return dns.RRHeader(name, dns.CNAME, dns.IN, ttl, dns.Record_CNAME(target, ttl))


def srv(
    name: str, target: str | bytes, port: int, priority: int = 0, weight: int = 1
) -> dns.RRHeader:
    return dns.RRHeader(
        name, dns.SRV, dns.IN, 60, dns.Record_SRV(priority, weight, port, target, 60)
    )


def decoded(message: dns.Message) -> dns.Message:
    """`message` after a journey over the wire."""
    arrived = Answer()
    arrived.fromStr(message.toStr())
    return arrived


def answer(
    answers: list[dns.RRHeader], additional: list[dns.RRHeader] | None = None
) -> dns.Message:
    message = dns.Message(1, answer=1, maxSize=0)
    message.answers = answers
    message.additional = additional or []
    return decoded(message)


def test_addresses() -> None:
    """The addresses of the name, whatever its case, in order, with the shortest time."""
    found = addresses_in(
        answer(
            [a("Web.test", "10.0.0.2", 9), a("web.test", "10.0.0.1"), a("x.test", "1.1.1.1")]
        ).answers,
        "web.TEST.",
        dns.A,
    )
    assert (found.addresses, found.ttl) == (("10.0.0.1", "10.0.0.2"), 9)


def test_aliases() -> None:
    """Aliases are followed, and their time counts; a circle ends."""
    records = [alias("web.test", "b.test", 5), aaaa("c.test", "::1"), alias("b.test", "c.test")]
    found = addresses_in(answer(records).answers, "web.test", dns.AAAA)
    assert (found.addresses, found.ttl) == (("::1",), 5)
    circle = [alias("a.test", "b.test"), alias("b.test", "a.test")]
    assert addresses_in(answer(circle).answers, "a.test", dns.A).addresses == ()


def test_services() -> None:
    """Service records with what the answer knows of their targets, where that is all."""
    message = answer(
        [srv("_x._tcp.test", "B.test", 80, 1), srv("_x._tcp.test", "a.test", 81)],
        [a("a.test", "10.0.0.1", 3), aaaa("a.test", "::1"), a("b.test", "10.0.0.2")],
    )
    found = services_in(message, "_X._tcp.test")
    assert found.services == (Service("a.test", 81, 0, 1), Service("b.test", 80, 1, 1))
    assert found.ttl == 60
    assert {name: (each.addresses, each.ttl) for name, each in found.known.items()} == {
        "a.test": (("10.0.0.1", "::1"), 3)
    }


def test_services_without_a_port() -> None:
    """A record with port 0 is told and left out, but not one that says there is no service."""
    records = [srv("x.test", "b.test", 0), srv("x.test", "a.test", 81), srv("x.test", "", 0)]
    found = services_in(answer(records), "x.test")
    assert found.services == (Service("", 0, 0, 1), Service("a.test", 81, 0, 1))
    assert found.faults == ('SRV of x.test: "b.test": its port is 0',)


def left_out(kind: str, name: str, faults: list[str]) -> tuple[str, ...]:
    return tuple(sorted(f"{kind} of {name}: {fault}" for fault in faults))


def test_odd_targets() -> None:
    """A target that is no host name is left out, whatever is in it; the others count."""
    long = "a label has 1 to 63 characters, and the whole name at most 253"
    other = "it may have only letters, digits, hyphens and dots"
    odd = {
        b"x" * 64: long,
        b"a..test": long,
        b".".join([b"abcdefgh"] * 30): long,
        b"a b.test": other,
        b"a\nb.test": other,
        b"*.test": other,
        b"a/b.test": other,
        b"\xff\x1b.test": other,
    }
    first, *others = [srv("x.test", target, 80) for target in odd]
    good = [srv("x.test", "_under.score.test", 80), srv("x.test", "xn--a.test", 81)]
    found = services_in(answer([first, good[0], *others, good[1]]), "x.test")
    assert [service.target for service in found.services] == ["_under.score.test", "xn--a.test"]
    faults = [f"{quoted(canonical(target))}: {why}" for target, why in odd.items()]
    assert found.faults == left_out("SRV", "x.test", faults)
    assert all(fault.isprintable() for fault in found.faults)


def test_odd_addresses() -> None:
    """Addresses that nobody could connect to are left out; the others count."""
    odd = {
        "0.0.0.0": "0.0.0.0 is not the address of a host",
        "224.0.0.1": "224.0.0.1 is a multicast or broadcast address",
        "255.255.255.255": "255.255.255.255 is a multicast or broadcast address",
    }
    records = [a("x.test", address) for address in odd]
    found = addresses_in(answer([*records, a("x.test", "10.0.0.1")]).answers, "x.test", dns.A)
    assert found.addresses == ("10.0.0.1",)
    assert found.faults == left_out("A", "x.test", [*odd.values()])
    odd = {
        "::": ":: is not the address of a host",
        "ff02::1": "ff02::1 is a multicast or broadcast address",
        "::ffff:10.0.0.1": "10.0.0.1 in IPv6 form should be in an A record",
        "fe80::1": "fe80::1 is link-local, and DNS cannot name the interface",
    }
    records = [aaaa("x.test", address) for address in odd]
    found = addresses_in(answer([*records, aaaa("x.test", "fd00::1")]).answers, "x.test", dns.AAAA)
    assert found.addresses == ("fd00::1",)
    assert found.faults == left_out("AAAA", "x.test", [*odd.values()])


def raw(name: str, kind: int, data: bytes) -> dns.RRHeader:
    return dns.RRHeader(name, kind, dns.IN, 60, dns.UnknownRecord(data, 60))


@pytest.mark.parametrize("data", [b"", b"\x0a", b"\x0a\0\0\x02\0", b"\xff" * 300])
def test_data_of_a_wrong_length(data: bytes) -> None:
    """Data that is longer or shorter than it must be touches no record but its own."""
    records = [a("x.test", "10.0.0.1"), raw("x.test", dns.A, data), a("x.test", "10.0.0.3")]
    found = addresses_in(answer(records).answers, "x.test", dns.A)
    assert found.addresses == ("10.0.0.1", "10.0.0.3")
    assert found.faults == ("A of x.test: its data cannot be read",)
    records = [srv("x.test", "a.test", 80), raw("x.test", dns.SRV, data), alias("x.test", "y.test")]
    message = answer([*records, raw("x.test", dns.CNAME, b"\xc0"), srv("y.test", "b.test", 80)])
    services = services_in(message, "x.test")
    assert [service.target for service in services.services] == ["a.test", "b.test"]
    assert services.faults == (
        "CNAME of x.test: its data cannot be read",
        "SRV of x.test: its data cannot be read",
    )


def test_an_alias_that_cannot_be_read() -> None:
    """It is told, and touches no address."""
    records = [raw("x.test", dns.CNAME, b"\xc0"), a("x.test", "10.0.0.1")]
    found = addresses_in(answer(records).answers, "x.test", dns.A)
    assert found.addresses == ("10.0.0.1",)
    assert found.faults == ("CNAME of x.test: its data cannot be read",)


def test_loop_of_pointers() -> None:
    """A target that is a circle of compression pointers touches no record but its own."""
    message = dns.Message(1, answer=1)
    mark = b"\xc0\xfe"
    message.answers = [
        raw("x.test", dns.SRV, b"\0\0\0\1\0\x50" + mark),
        srv("x.test", "a.test", 80),
    ]
    data = message.toStr()
    place = data.index(mark)
    arrived = Answer()
    arrived.fromStr(data.replace(mark, bytes([0xC0, place])))
    found = services_in(arrived, "x.test")
    assert [service.target for service in found.services] == ["a.test"]
    assert found.faults == ("SRV of x.test: its data cannot be read",)


def test_one_target_twice() -> None:
    """Of several records for one port of a target, the one that is heaviest counts."""
    records = [srv("x.test", "a.test", 80, weight=weight) for weight in (3, 9, 5, 9)]
    for order in (records, records[::-1]):
        services = services_in(answer(order), "x.test").services
        assert servers_of(services, {"a.test": ["10.0.0.1"]}) == (
            UpstreamServer("10.0.0.1:80", weight=9),
        )


def test_tiers_and_weights() -> None:
    """A priority is a tier; a weight is divided among addresses, and scaled in its tier only."""
    services = [
        Service("a", 1, 0, 10),
        Service("b", 2, 0, 60),
        Service("c", 3, 5, 0),
        Service("d", 4, 5, 40000),
        Service("d", 5, 5, 20000),
        Service("gone", 6, 5, 1),
    ]
    addresses = {"a": ["10.0.0.1"], "b": ["10.0.0.2", "::2"], "c": ["10.0.0.3"], "d": ["10.0.0.4"]}
    assert servers_of(services, addresses) == (
        UpstreamServer("10.0.0.1:1", weight=10),
        UpstreamServer("10.0.0.2:2", weight=30),
        UpstreamServer("[::2]:2", weight=30),
        UpstreamServer("10.0.0.3:3", weight=1, priority=5),
        UpstreamServer("10.0.0.4:4", weight=256, priority=5),
        UpstreamServer("10.0.0.4:5", weight=128, priority=5),
    )


@given(st.lists(st.integers(0, 65535), min_size=1), st.integers(1, 4))
def test_fitted(weights: list[int], divisor: int) -> None:
    """Weights fit, keep their order, and all zeros are equal."""
    shares = [Fraction(weight, divisor) for weight in weights]
    found = scaled_weights(shares)
    assert all(1 <= weight <= HEAVIEST for weight in found)
    assert [found[i] for i in sorted(range(len(found)), key=lambda i: shares[i])] == sorted(found)


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("10.0.0.1", ("10.0.0.1", 53)),
        ("10.0.0.1:5353", ("10.0.0.1", 5353)),
        ("::1", ("::1", 53)),
        ("[::1]", None),
        ("[::1]:5353", ("::1", 5353)),
        ("ns.test", None),
        ("10.0.0.1:0", None),
        ("10.0.0.1:66666", None),
        ("10.0.0.1:", None),
        ("", None),
    ],
)
def test_nameserver(text: str, server: tuple[str, int] | None) -> None:
    """A name server is an address, perhaps with a port."""
    parsed = parse_nameserver(text)
    assert (None if isinstance(parsed, str) else parsed) == server


def test_resolv_conf() -> None:
    """The first three name servers count; without any, it is this host."""
    text = "# comment\nsearch a.test\nnameserver 10.0.0.1\nnameserver\nnameserver ::1 # x\n"
    assert nameservers_in(text) == (("10.0.0.1", 53), ("::1", 53))
    assert len(nameservers_in("nameserver 10.0.0.1\n" * 9)) == 3
    assert nameservers_in("") == (("127.0.0.1", 53),)


def test_answers_to_other_questions() -> None:
    """Only an answer to the very question is one."""
    query = dns.Message(7, recDes=1)
    query.addQuery(b"web.test", dns.A)
    right = dns.Message(7, answer=1)
    right.addQuery(b"WEB.test", dns.A)
    assert answer_to(query, right.toStr()) is not None
    assert answer_to(query, query.toStr()) is None
    for identity, name, kind in [
        (8, b"web.test", dns.A),
        (7, b"x.test", dns.A),
        (7, b"web.test", 28),
    ]:
        wrong = dns.Message(identity, answer=1)
        wrong.addQuery(name, kind)
        assert answer_to(query, wrong.toStr()) is None


@given(st.binary(max_size=100), st.integers())
def test_any_datagram(data: bytes, seed: int) -> None:
    """Whatever comes is an answer or none, and an answer can be read."""
    query = dns.Message(1, recDes=1)
    query.addQuery(b"_x._tcp.test", dns.SRV)
    whole = dns.Message(1, answer=1)
    whole.addQuery(b"_x._tcp.test", dns.SRV)
    whole.answers = [srv("_x._tcp.test", "a.test", 80), alias("_x._tcp.test", "b.test")]
    whole.additional = [a("a.test", "10.0.0.1"), aaaa("a.test", "::1")]
    chance, damaged = random.Random(seed), bytearray(whole.toStr())
    for _ in range(chance.randrange(6)):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    assert answer_to(query, data) is None or len(data) >= 12
    message = answer_to(query, bytes(damaged[: chance.randrange(len(damaged) + 1)]))
    if message is not None:
        for service in services_in(message, "_x._tcp.test").services:
            assert not service.target or domain_fault(service.target) is None
        for kind in (dns.A, dns.AAAA):
            addresses_in(message.answers + message.additional, "a.test", kind)
