"""
Version 1: one line of text, such as ``PROXY TCP4 192.0.2.1 192.0.2.2 56324 443`` and CR LF.

Source: the specification, 2.1.  Where it leaves a choice, or others deviate from it:

* An IPv4 address on a ``TCP6`` line is accepted, as nginx writes such lines for pairs of different
  families (nginx#1609), and it has an IPv6 form.  An IPv6 address on a ``TCP4`` line has no IPv4
  form, and is refused.
* A dotted end of an IPv6 address (``::ffff:192.0.2.1``) is accepted: ``inet_ntop`` writes it.
* After ``UNKNOWN``, everything up to CR LF is ignored, but a CR or LF by itself is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from attrs import frozen

from evproxy.config.canonical import MAPPED, is_address
from evproxy.errors import ProxyHeaderError
from evproxy.wire.proxy_protocol.header import InetAddress, ProxyHeader, Transport, is_ipv4

LINE_LIMIT = 107
"""The longest line in bytes, with its CR LF."""

START = "PROXY"
_UNKNOWN = "UNKNOWN"
_PORT = re.compile(r"0|[1-9][0-9]{0,4}")
_LONGEST_ADDRESS = 39


def _is_inet(text: str) -> bool:
    if is_ipv4(text):
        return True
    return len(text) <= _LONGEST_ADDRESS and "%" not in text and is_address(text)


def _is_port(text: str) -> bool:
    return _PORT.fullmatch(text) is not None and int(text) <= 65535


@frozen
class _Field:
    """
    A field of a line.

    If a text is the beginning of a right field, one of `endings` completes it.
    """

    name: str
    expected: str
    is_right: Callable[[str], bool]
    endings: tuple[str, ...]

    def check(self, text: str) -> None:
        if not self.is_right(text):
            raise ProxyHeaderError(f"the {self.name} is {text!a}, expected {self.expected}")

    def check_beginning(self, text: str) -> None:
        if not any(self.is_right(text + ending) for ending in self.endings):
            raise ProxyHeaderError(f"the {self.name} begins with {text!a}: {self.expected}")


def _fields(
    expected: str, is_right: Callable[[str], bool], endings: tuple[str, ...]
) -> list[_Field]:
    port = ("a port from 0 to 65535 without leading zeros", _is_port, ("", "0"))
    return [
        _Field("source address", expected, is_right, endings),
        _Field("destination address", expected, is_right, endings),
        _Field("source port", *port),
        _Field("destination port", *port),
    ]


_DOTTED = ("", "0.0.0.0", ".0.0.0", "0.0.0", ".0.0", "0.0", ".0", "0")

_FIELDS = {
    "TCP4": _fields("an IPv4 address", is_ipv4, _DOTTED),
    "TCP6": _fields("an IPv6 address", _is_inet, ("", "::", ":", *_DOTTED)),
}


def line_size(received: bytes | bytearray) -> int | None:
    """
    The size in bytes of the line at the start of `received`; ``None`` if its end is not there.

    :raises ProxyHeaderError: if it is too long, or has a CR or an LF by itself.
    """
    carriage_return = received.find(b"\r", 0, LINE_LIMIT)
    line_feed = received.find(b"\n", 0, LINE_LIMIT)
    if line_feed >= 0 and not 0 <= carriage_return == line_feed - 1:
        before = 0 <= carriage_return < line_feed
        raise ProxyHeaderError(f"the line has a {'CR' if before else 'LF'} by itself")
    if line_feed >= 0:
        return line_feed + 1
    if 0 <= carriage_return < min(len(received), LINE_LIMIT) - 1:
        raise ProxyHeaderError("the line has a CR by itself")
    if len(received) + (1 if carriage_return >= 0 else 2) > LINE_LIMIT:
        raise ProxyHeaderError(f"the line is longer than {LINE_LIMIT} bytes")
    return None


def check_beginning(received: bytes | bytearray) -> None:
    """
    Check the line in `received`, whose end has not arrived.

    :raises ProxyHeaderError: if no header begins like that.
    """
    text = received.decode("latin-1")
    if text.endswith("\r"):
        read_line(text.removesuffix("\r"))
        return
    *whole, last = text.split(" ")
    if not whole:
        if not START.startswith(last):
            raise _wrong_start(last)
    elif len(whole) == 1:
        _check_start(whole[0])
        if not any(each.startswith(last) for each in (_UNKNOWN, *_FIELDS)):
            raise _wrong_protocol(last)
    elif not _is_unknown(*whole[:2]):
        fields = _FIELDS[whole[1]]
        _check_fields(fields, whole[2:])
        if len(whole) - 2 == len(fields):
            raise ProxyHeaderError(f"more follows after the {fields[-1].name}")
        fields[len(whole) - 2].check_beginning(last)


def read_line(text: str) -> ProxyHeader:
    """
    The header that the line `text` is, without its CR LF.

    :param text: each character stands for a byte.
    :raises ProxyHeaderError: if it is not a header.
    """
    start, _, further = text.partition(" ")
    protocol, space, rest = further.partition(" ")
    if _is_unknown(start, protocol):
        return ProxyHeader(1)
    parts = rest.split(" ") if space else []
    fields = _FIELDS[protocol]
    _check_fields(fields, parts)
    if len(parts) < len(fields):
        raise ProxyHeaderError(f"the {fields[len(parts)].name} is missing")
    source, destination, source_port, destination_port = parts
    return ProxyHeader(
        1,
        InetAddress(source, int(source_port)),
        InetAddress(destination, int(destination_port)),
    )


def _is_unknown(start: str, protocol: str) -> bool:
    """Whether the protocol is ``UNKNOWN``.  The start and the protocol have to be right."""
    _check_start(start)
    if protocol != _UNKNOWN and protocol not in _FIELDS:
        raise _wrong_protocol(protocol)
    return protocol == _UNKNOWN


def _check_start(start: str) -> None:
    if start != START:
        raise _wrong_start(start)


def _check_fields(fields: list[_Field], parts: list[str]) -> None:
    for field, part in zip(fields, parts, strict=False):
        field.check(part)
    if len(parts) > len(fields):
        raise ProxyHeaderError(f"more follows after the {fields[-1].name}")


def _wrong_start(text: str) -> ProxyHeaderError:
    return ProxyHeaderError(f"it begins with {text!a}, expected {START!a}")


def _wrong_protocol(text: str) -> ProxyHeaderError:
    return ProxyHeaderError(f"the protocol is {text!a}, expected TCP4, TCP6 or UNKNOWN")


def line_bytes(header: ProxyHeader) -> bytes:
    """
    The line that says what `header` says of addresses; version 1 knows nothing else.

    ``UNKNOWN`` without IP addresses, and for datagrams.  A pair of different families becomes a
    pair of IPv6 addresses, the IPv4 address mapped, as HAProxy writes it.
    """
    pair = header.inet_pair()
    if pair is None or header.transport is not Transport.STREAM:
        return f"{START} {_UNKNOWN}\r\n".encode()
    ipv6 = any(address.is_ipv6 for address in pair)
    hosts = [
        MAPPED + address.host if ipv6 and not address.is_ipv6 else address.host for address in pair
    ]
    ports = [str(address.port) for address in pair]
    return " ".join([START, "TCP6" if ipv6 else "TCP4", *hosts, *ports]).encode() + b"\r\n"
