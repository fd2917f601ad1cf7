"""
DNS answers as servers: addresses (RFC 1035, RFC 3596) and service records (RFC 2782).

Pure: messages in, values out.  A record that cannot be used is left out, and does not
touch the others.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import groupby
from typing import IO, Any

from attrs import frozen
from twisted.names import dns

from evproxy.config.addresses import domain_fault, host_and_port, is_address
from evproxy.config.problems import quoted
from evproxy.model import UpstreamServer

LONGEST_CHAIN = 16
"""How many CNAME records are followed in one answer."""

HEAVIEST = 256
"""The highest weight of an `UpstreamServer`."""

DNS_PORT = 53

MOST_NAMESERVERS = 3
"""How many ``nameserver`` lines count (resolv.conf(5), MAXNS)."""


UNREADABLE = "its data cannot be read"

BROADCAST = ipaddress.IPv4Address("255.255.255.255")

READ = {
    dns.A: dns.Record_A,
    dns.AAAA: dns.Record_AAAA,
    dns.CNAME: dns.Record_CNAME,
    dns.SRV: dns.Record_SRV,
}
"""The types of records that are read."""


@frozen
class Addresses:
    """
    IP addresses in order, and the seconds for which they may be used.

    `faults`: why other records are left out, a line for each.
    """

    addresses: tuple[str, ...]
    ttl: float
    faults: tuple[str, ...] = ()


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
    of one alone it does not tell whether there is the other.  `faults`: why some records
    are not among `services`, a line for each.
    """

    services: tuple[Service, ...]
    ttl: float
    known: Mapping[str, Addresses]
    faults: tuple[str, ...] = ()


class Answer(dns.Message):
    """
    An answer of which each record is read for itself, if it is of a type in `READ`.

    The payload of one that cannot be read is ``None``.  (`dns.Message` does not look at the
    length that a record's data has: one of a wrong length garbles all that come after it.)
    """

    def parseRecords(self, list: list[dns.RRHeader], num: int, strio: IO[bytes]) -> None:
        for _ in range(num):
            record = dns.RRHeader(auth=self.auth)
            try:
                record.decode(strio)
            except EOFError:
                return
            end = strio.tell() + (record.rdlength or 0)
            if record.type in READ and record.cls == dns.IN:
                record.payload = payload_of(record, strio)
                list.append(record)
            strio.seek(end)


def payload_of(record: dns.RRHeader, data: IO[bytes]) -> Any:
    """What `data`, from where it is, has for `record`; ``None`` if that is not what it should."""
    payload = READ[record.type](ttl=record.ttl)
    end = data.tell() + (record.rdlength or 0)
    try:
        payload.decode(data, record.rdlength)
    except (EOFError, ValueError):
        return None
    return payload if data.tell() == end else None


def data_of(record: dns.RRHeader) -> Any:
    """The data of `record`: what `twisted.names.dns` has for its type; see `Answer`."""
    return record.payload


def canonical(name: bytes | str) -> str:
    """A domain name as names are compared: lower case, without the final dot."""
    text = name.decode("ascii", "backslashreplace") if isinstance(name, bytes) else name
    return text.lower().removesuffix(".")


def addresses_in(records: Iterable[dns.RRHeader], name: str, kind: int) -> Addresses:
    """
    The addresses of `kind` (`dns.A`, `dns.AAAA`) that `records` have for `name`.

    Those that `address_fault` has something against are left out.
    """
    found: dict[str, None] = {}
    faults: dict[str, None] = {}
    lifetimes = [float("inf")]
    aliases: dict[str, dns.RRHeader] = {}
    by_name: dict[str, list[dns.RRHeader]] = {}
    for record in records:
        owner = canonical(record.name.name)
        if record.type == dns.CNAME and data_of(record) is not None:
            aliases.setdefault(owner, record)
        elif record.type == kind:
            by_name.setdefault(owner, []).append(record)
    owner = canonical(name)
    for _ in range(LONGEST_CHAIN):
        for record in by_name.get(owner, ()):
            fault = _fault_of(record)
            if fault:
                faults[f"{dns.QUERY_TYPES[kind]} of {owner}: {fault}"] = None
                continue
            found[str(ipaddress.ip_address(data_of(record).address))] = None
            lifetimes.append(record.ttl)
        alias = aliases.get(owner)
        if alias is None or found or faults:
            break
        lifetimes.append(alias.ttl)
        owner = canonical(data_of(alias).name.name)
    return Addresses(tuple(sorted(found)), min(lifetimes), tuple(sorted(faults)))


def _fault_of(record: dns.RRHeader) -> str:
    data = data_of(record)
    return UNREADABLE if data is None else address_fault(ipaddress.ip_address(data.address))


def address_fault(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Why `address` is not that of a host that anybody could connect to; empty if it may be."""
    if address.is_unspecified:
        return f"{address} is no host's address"
    if address.is_multicast or address == BROADCAST:
        return f"{address} is the address of many hosts"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return f"{address.ipv4_mapped} in IPv6 form belongs into an A record"
        if address.is_link_local:
            return f"{address} is link-local, and DNS does not tell the interface"
    return ""


def services_in(message: dns.Message, name: str) -> Services:
    """
    The SRV records that `message` has for `name`, which may be an alias.

    Those whose target is no host name (RFC 1123, 2.1, with underscores), or that have no
    port, are left out.
    """
    owners = {canonical(name)}
    for record in message.answers:
        is_alias = record.type == dns.CNAME and data_of(record) is not None
        if is_alias and canonical(record.name.name) in owners:
            owners.add(canonical(data_of(record).name.name))
    records = [
        record
        for record in message.answers
        if record.type == dns.SRV and canonical(record.name.name) in owners
    ]
    services: set[Service] = set()
    faults: set[str] = set()
    for record in records:
        data = data_of(record)
        if data is None:
            faults.add(f"SRV of {name}: {UNREADABLE}")
            continue
        service = Service(canonical(data.target.name), data.port, data.priority, data.weight)
        fault = _service_fault(service)
        if fault:
            faults.add(f"SRV of {name}: {quoted(service.target)}: {fault}")
        else:
            services.add(service)
    known = {}
    for target in {service.target for service in services}:
        four = addresses_in(message.additional, target, dns.A)
        six = addresses_in(message.additional, target, dns.AAAA)
        if four.addresses and six.addresses and not (four.faults or six.faults):
            known[target] = Addresses(four.addresses + six.addresses, min(four.ttl, six.ttl))
    # Of several for one port the heaviest comes first: that one counts.
    ordered = sorted(
        services, key=lambda each: (each.priority, each.target, each.port, -each.weight)
    )
    ttl = min((record.ttl for record in records), default=0)
    return Services(tuple(ordered), ttl, known, tuple(sorted(faults)))


def _service_fault(service: Service) -> str:
    if not service.target:
        # The root says that there is no service, whatever the port is.
        return ""
    return domain_fault(service.target) or ("" if service.port else "its port is 0")


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
