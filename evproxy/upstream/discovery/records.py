"""
DNS answers as servers: addresses (RFC 1035, RFC 3596) and service records (RFC 2782).

Pure: messages in, values out.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import groupby
from typing import Any

from attrs import frozen
from twisted.names import dns

from evproxy.model import UpstreamServer, host_and_port, is_address

LONGEST_CHAIN = 16
"""How many CNAME records are followed in one answer."""

HEAVIEST = 256
"""The highest weight of an `UpstreamServer`."""

DNS_PORT = 53

MOST_NAMESERVERS = 3
"""How many ``nameserver`` lines count (resolv.conf(5), MAXNS)."""


@frozen
class Addresses:
    """IP addresses in order, and the seconds for which they may be used."""

    addresses: tuple[str, ...]
    ttl: float


@frozen
class Service:
    """One SRV record: the host and port of a server, and when it is to be chosen."""

    target: str
    port: int
    priority: int
    weight: int


@frozen
class Services:
    """
    SRV records, and the seconds for which they may be used.

    `known` has the addresses of the targets of which the answer brought along both families:
    of one alone it does not tell whether there is the other.  `problem`: why
    some records are not among `services`, empty if all are.
    """

    services: tuple[Service, ...]
    ttl: float
    known: Mapping[str, Addresses]
    problem: str = ""


def data_of(record: dns.RRHeader) -> Any:
    """The data of `record`: what `twisted.names.dns` has for its type."""
    return record.payload


def canonical(name: bytes | str) -> str:
    """A domain name as names are compared: lower case, without the final dot."""
    text = name.decode("ascii", "backslashreplace") if isinstance(name, bytes) else name
    return text.lower().removesuffix(".")


def addresses_in(records: Iterable[dns.RRHeader], name: str, kind: int) -> Addresses:
    """The addresses of `kind` (`dns.A`, `dns.AAAA`) that `records` have for `name`."""
    found: dict[str, None] = {}
    lifetimes = [float("inf")]
    aliases: dict[str, dns.RRHeader] = {}
    by_name: dict[str, list[dns.RRHeader]] = {}
    for record in records:
        owner = canonical(record.name.name)
        if record.type == dns.CNAME:
            aliases.setdefault(owner, record)
        elif record.type == kind:
            by_name.setdefault(owner, []).append(record)
    owner = canonical(name)
    for _ in range(LONGEST_CHAIN):
        for record in by_name.get(owner, ()):
            found[str(ipaddress.ip_address(data_of(record).address))] = None
            lifetimes.append(record.ttl)
        alias = aliases.get(owner)
        if alias is None or found:
            break
        lifetimes.append(alias.ttl)
        owner = canonical(data_of(alias).name.name)
    return Addresses(tuple(sorted(found)), min(lifetimes))


def services_in(message: dns.Message, name: str) -> Services:
    """The SRV records that `message` has for `name`, which may be an alias."""
    owners = {canonical(name)}
    for record in message.answers:
        if record.type == dns.CNAME and canonical(record.name.name) in owners:
            owners.add(canonical(data_of(record).name.name))
    records = [
        record
        for record in message.answers
        if record.type == dns.SRV and canonical(record.name.name) in owners
    ]
    everything = {
        Service(
            canonical(data_of(record).target.name),
            data_of(record).port,
            data_of(record).priority,
            data_of(record).weight,
        )
        for record in records
    }
    # The root as the target says that there is no service, whatever the port is.
    services = {service for service in everything if service.port or not service.target}
    portless = sorted({service.target for service in everything - services})
    problem = f"SRV of {name}: no port for {', '.join(portless)}" if portless else ""
    known = {}
    for target in {service.target for service in services}:
        four = addresses_in(message.additional, target, dns.A)
        six = addresses_in(message.additional, target, dns.AAAA)
        if four.addresses and six.addresses:
            known[target] = Addresses(four.addresses + six.addresses, min(four.ttl, six.ttl))
    ordered = sorted(services, key=lambda each: (each.priority, each.target, each.port))
    ttl = min((record.ttl for record in records), default=0)
    return Services(tuple(ordered), ttl, known, problem)


def servers_of(
    services: Sequence[Service], addresses: Mapping[str, Sequence[str]]
) -> tuple[UpstreamServer, ...]:
    """
    Every address of every target as a server.

    A target's weight is divided among its addresses.  Weights are as in DNS where a
    tier's fit 1 to 256; else they are scaled so that the heaviest has 256, and none has
    less than 1: an SRV weight of 0 asks for "a very small chance" (RFC 2782).
    """
    servers: dict[str, UpstreamServer] = {}
    for priority, tier in groupby(services, key=lambda service: service.priority):
        shares: dict[str, Fraction] = {}
        for service in tier:
            hosts = addresses.get(service.target, ())
            for host in hosts:
                shares.setdefault(
                    host_and_port(host, service.port), Fraction(service.weight, len(hosts))
                )
        weights = fitted(list(shares.values()))
        for where, weight in zip(shares, weights, strict=True):
            server = UpstreamServer(where, weight=weight, priority=priority)
            servers.setdefault(where, server)
    return tuple(servers.values())


def fitted(shares: Sequence[Fraction]) -> list[int]:
    """`shares` as whole numbers from 1 to `HEAVIEST`, in the same proportions where possible."""
    if all(share.denominator == 1 and 1 <= share <= HEAVIEST for share in shares):
        return [int(share) for share in shares]
    most = max(shares)
    if not most:
        return [1 for _ in shares]
    return [max(1, round(share * HEAVIEST / most)) for share in shares]


_NAMESERVER = re.compile(r"\[([^\]]*)\](?::(\d+))?|([^:]*)(?::(\d+))?")


def nameserver(text: str) -> tuple[str, int] | None:
    """The address and port in ``ADDRESS``, ``ADDRESS:PORT`` or ``[v6]:PORT``, if it is one."""
    if is_address(text):
        return text, DNS_PORT
    found = _NAMESERVER.fullmatch(text)
    if found is None:
        return None
    host, port = found[1] or found[3] or "", int(found[2] or found[4] or DNS_PORT)
    return (host, port) if is_address(host) and 1 <= port <= 65535 else None


def nameservers_in(resolv_conf: str) -> tuple[tuple[str, int], ...]:
    """The name servers in the text of a resolv.conf(5); without any, the one on this host."""
    words = [line.split() for line in resolv_conf.splitlines()]
    found = [
        (line[1], DNS_PORT)
        for line in words
        if len(line) > 1 and line[0] == "nameserver" and is_address(line[1])
    ]
    return tuple(found[:MOST_NAMESERVERS]) or (("127.0.0.1", DNS_PORT),)
