"""
Reads servers from DNS answers: addresses (RFC 1035, RFC 3596), service records (RFC 2782).

Pure: takes messages, returns values.  An unusable record is left out and does not affect the
others.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import groupby
from typing import IO, Any

from attrs import frozen
from twisted.names import dns

from evproxy.config.addresses import DNS_PORT, domain_fault
from evproxy.config.canonical import host_and_port, is_address
from evproxy.config.problems import quoted
from evproxy.model import UpstreamServer

LONGEST_CHAIN = 16
"""How many CNAME records are followed in one answer."""

HEAVIEST = 256
"""The highest weight of an `UpstreamServer`."""


MOST_NAMESERVERS = 3
"""How many ``nameserver`` lines are used (resolv.conf(5), MAXNS)."""


UNREADABLE = "its data cannot be read"

BROADCAST = ipaddress.IPv4Address("255.255.255.255")

READ = {
    dns.A: dns.Record_A,
    dns.AAAA: dns.Record_AAAA,
    dns.CNAME: dns.Record_CNAME,
    dns.SRV: dns.Record_SRV,
}
"""The record types that are read, with their parsers."""


@frozen
class Addresses:
    """
    Sorted IP addresses, and their time to live in seconds.

    `faults` says why other records are left out, a line for each.
    """

    addresses: tuple[str, ...]
    ttl: float
    faults: tuple[str, ...] = ()


@frozen
class Service:
    """One SRV record: the host, the port, the priority and the weight of a server."""

    target: str
    port: int
    priority: int
    weight: int


@frozen
class Services:
    """
    SRV records, and their time to live in seconds.

    `known` has the addresses of those targets for which the answer contains both families.
    If it contains only one family, the other may still exist.  `faults` says why records are
    left out, a line for each.
    """

    services: tuple[Service, ...]
    ttl: float
    known: Mapping[str, Addresses]
    faults: tuple[str, ...] = ()


class Answer(dns.Message):
    """
    A DNS message that reads each record of a type in `READ` separately.

    The payload of an unreadable record is ``None``.  (`dns.Message` ignores the length of a
    record's data, so a wrong length garbles all records after it.)

    `cut`: whether the message ends before all the answers that its header announces.
    """

    cut = False

    def parseRecords(self, list: list[dns.RRHeader], num: int, strio: IO[bytes]) -> None:
        for _ in range(num):
            record = dns.RRHeader(auth=self.auth)
            try:
                record.decode(strio)
                start, size = strio.tell(), record.rdlength or 0
                if len(strio.read(size)) < size:
                    raise EOFError
            except EOFError:
                self.cut = self.cut or list is self.answers
                return
            end = strio.tell()
            if record.type in READ and record.cls == dns.IN:
                strio.seek(start)
                record.payload = payload_of(record, strio)
                list.append(record)
            strio.seek(end)


def payload_of(record: dns.RRHeader, data: IO[bytes]) -> Any:
    """Read the payload of `record` from the position of `data`; ``None`` if it is malformed."""
    payload = READ[record.type](ttl=record.ttl)
    end = data.tell() + (record.rdlength or 0)
    try:
        payload.decode(data, record.rdlength)
    except (EOFError, ValueError):
        return None
    return payload if data.tell() == end else None


def data_of(record: dns.RRHeader) -> Any:
    """The payload of `record`, a `twisted.names.dns` record of its type; see `Answer`."""
    return record.payload


def canonical(name: bytes | str) -> str:
    """A domain name in the form for comparison: lower case, without the final dot."""
    text = name.decode("ascii", "backslashreplace") if isinstance(name, bytes) else name
    return text.lower().removesuffix(".")


def _unreadable_aliases(records: Iterable[dns.RRHeader], owners: Container[str]) -> Iterator[str]:
    """The faults of aliases of `owners`."""
    for record in records:
        owner = canonical(record.name.name)
        if record.type == dns.CNAME and data_of(record) is None and owner in owners:
            yield f"CNAME of {owner}: {UNREADABLE}"


def addresses_in(records: Sequence[dns.RRHeader], name: str, kind: int) -> Addresses:
    """
    The addresses of `kind` (`dns.A`, `dns.AAAA`) that `records` have for `name`.

    Addresses with an `address_fault` are left out.
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
    owners = {owner}
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
        owners.add(owner)
    faults.update(dict.fromkeys(_unreadable_aliases(records, owners)))
    return Addresses(tuple(sorted(found)), min(lifetimes), tuple(sorted(faults)))


def _fault_of(record: dns.RRHeader) -> str:
    data = data_of(record)
    return UNREADABLE if data is None else address_fault(ipaddress.ip_address(data.address))


def address_fault(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Why `address` is not an address of one host to connect to; empty if it can be."""
    if address.is_unspecified:
        return f"{address} is not the address of a host"
    if address.is_multicast or address == BROADCAST:
        return f"{address} is a multicast or broadcast address"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return f"{address.ipv4_mapped} in IPv6 form should be in an A record"
        if address.is_link_local:
            return f"{address} is link-local, and DNS cannot name the interface"
    return ""


def services_in(message: dns.Message, name: str) -> Services:
    """
    The SRV records that `message` has for `name`, which may be an alias.

    Records are left out if their target is not a host name (RFC 1123, 2.1, with underscores),
    or if their port is 0.
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
    faults = set(_unreadable_aliases(message.answers, owners))
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
    # Of several records for one port, the heaviest comes first, and `servers_of` uses it.
    ordered = sorted(
        services, key=lambda each: (each.priority, each.target, each.port, -each.weight)
    )
    ttl = min((record.ttl for record in records), default=0)
    return Services(tuple(ordered), ttl, known, tuple(sorted(faults)))


def _service_fault(service: Service) -> str:
    if not service.target:
        # The root as the target says that there is no service, whatever the port is.
        return ""
    return domain_fault(service.target) or ("" if service.port else "its port is 0")


def servers_of(
    services: Sequence[Service], addresses: Mapping[str, Sequence[str]]
) -> tuple[UpstreamServer, ...]:
    """
    Make a server of every address of every target.

    The weight of a target is divided among its addresses.  If all weights of a tier are whole
    numbers from 1 to 256, they are used as they are.  Otherwise they are scaled, so that the
    heaviest is 256 and none is less than 1: an SRV weight of 0 asks for "a very small chance"
    (RFC 2782).
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
        weights = scaled_weights(list(shares.values()))
        for where, weight in zip(shares, weights, strict=True):
            server = UpstreamServer(where, weight=weight, priority=priority)
            servers.setdefault(where, server)
    return tuple(servers.values())


def scaled_weights(shares: Sequence[Fraction]) -> list[int]:
    """`shares` as whole numbers from 1 to `HEAVIEST`, in the same proportions if possible."""
    if all(share.denominator == 1 and 1 <= share <= HEAVIEST for share in shares):
        return [int(share) for share in shares]
    most = max(shares)
    if not most:
        return [1 for _ in shares]
    return [max(1, round(share * HEAVIEST / most)) for share in shares]


def nameservers_in(resolv_conf: str) -> tuple[tuple[str, int], ...]:
    """The name servers in the text of a resolv.conf(5); if there are none, the local host."""
    words = [line.split() for line in resolv_conf.splitlines()]
    found = [
        (line[1], DNS_PORT)
        for line in words
        if len(line) > 1 and line[0] == "nameserver" and is_address(line[1])
    ]
    return tuple(found[:MOST_NAMESERVERS]) or (("127.0.0.1", DNS_PORT),)
