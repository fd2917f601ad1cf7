"""
The host that an HTTP/1 request is for, from its request line and its header section.

Pure.  A route needs one answer with which the server agrees, so `HostReader` refuses what two
parsers may understand differently: two Host fields, folded lines, bare CR or LF, space before a
colon.  Nothing else of the request is looked at, and no byte is changed.

Sources: RFC 9112, sections 2.2 (line ends), 3 (request line), 3.2 (targets and Host), 5 (fields);
RFC 9110, sections 4.2 (http URIs) and 7.2 (Host); RFC 3986, section 3.2.2 (hosts); RFC 9113,
section 3.4 (the preface of HTTP/2).
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from typing import Final

from attrs import frozen

from evproxy.errors import HttpHostError

SIZE_LIMIT: Final = 16 * 1024
"""The most bytes of a request line and its header section."""

_LONGEST_METHOD = 32
_LONGEST_AUTHORITY = 255
_HIGHEST_PORT = 65535

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_METHOD = re.compile(_TOKEN + rb"{1,%d}" % _LONGEST_METHOD)
_REQUEST_LINE = re.compile(rb"(%s+) ([^\x00-\x20\x7f]+) HTTP/1\.([0-9])" % _TOKEN)
_FIELD = re.compile(rb"(%s+):([^\x00\r]*)" % _TOKEN)
# Possessive: without these, a long target with a # takes quadratic time.
_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*+://([^/?#]*+)[^#]*+")
_LABEL = rb"[0-9A-Za-z_-]+"
_AUTHORITY = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]+)\]|(%s(?:\.%s)*)\.?)(?::([0-9]{0,5}))?" % (_LABEL, _LABEL)
)
_PREFACE = b"PRI * HTTP/2.0\r"


@frozen
class HttpHost:
    """
    The host that a request is for.

    `host`: a name in lower case without a final dot, or an IP address; IPv6 addresses are
    canonical and without brackets.
    `port`: ``None`` if the request names none.
    """

    host: str
    port: int | None = None


@frozen
class NoHost:
    """The client names no host that could be read.  `reason` is short and printable."""

    reason: str


class HostReader:
    """
    Reads the host of one request, piece by piece.

    Answers at the end of the header section, since a second Host field may be its last line; or
    earlier, if the first bytes are not HTTP/1.  Holds at most `SIZE_LIMIT` bytes.  The time that
    it takes is proportional to the bytes, however small the pieces.
    """

    __slots__ = ("_field", "_line", "_minor", "_room", "_target")

    def __init__(self) -> None:
        self._room = SIZE_LIMIT
        self._line = bytearray()
        self._minor: int | None = None
        self._target: HttpHost | None = None
        self._field: HttpHost | NoHost | None = None

    def feed(self, data: bytes) -> HttpHost | NoHost | None:
        """
        The answer as soon as `data` completes it, else ``None``.

        Bytes after the header section are ignored.  Do not call `feed` again after an answer or
        an error.

        :raises HttpHostError: if a request begins like HTTP/1, but its host is missing, malformed
            or ambiguous, or the header section is longer than `SIZE_LIMIT` bytes.
        """
        position, end = 0, min(len(data), self._room)
        self._room -= end
        while position < end:
            after = data.find(b"\n", position, end) + 1
            self._line += data[position : after or end]
            if self._minor is None and not _may_be_http(self._line):
                return NoHost("the first bytes are not HTTP/1")
            if not after:
                break
            line = bytes(self._line[:-1])
            self._line.clear()
            if (answer := self._read(line)) is not None:
                return answer
            position = after
        if end < len(data):
            raise HttpHostError(f"the header section is longer than {SIZE_LIMIT} bytes")
        return None

    def _read(self, line: bytes) -> HttpHost | NoHost | None:
        """Read one line, which comes without its LF."""
        text = line.removesuffix(b"\r")
        if self._minor is None:
            # Clients may send empty lines before a request (RFC 9112, section 2.2).
            return self._read_request_line(line) if text else None
        if not line.endswith(b"\r"):
            raise HttpHostError("a line of the header section ends without CR")
        if not text:
            return self._answer()
        self._read_field(text)
        return None

    def _read_request_line(self, line: bytes) -> NoHost | None:
        if line == _PREFACE:
            return NoHost("the request is HTTP/2")
        match = _REQUEST_LINE.fullmatch(line.removesuffix(b"\r"))
        if match is None and b" HTTP/1." not in line:
            return NoHost("the first line is not an HTTP/1 request")
        if match is None or not line.endswith(b"\r"):
            raise HttpHostError("the request line is malformed")
        method, target, minor = match.groups()
        self._minor = int(minor)
        self._target = _host_of_target(method, target)
        return None

    def _read_field(self, line: bytes) -> None:
        match = _FIELD.fullmatch(line)
        if match is None:
            folded = line[:1] in (b" ", b"\t")
            raise HttpHostError(f"a header line is {'folded' if folded else 'malformed'}")
        name, value = match.groups()
        if name.lower() == b"host":
            if self._field is not None:
                raise HttpHostError("the request has two Host fields")
            value = value.strip(b" \t")
            self._field = _host(value) if value else NoHost("the Host field is empty")

    def _answer(self) -> HttpHost | NoHost:
        """The host of a target counts more than the Host field (RFC 9112, section 3.2.2)."""
        if self._field is None and self._minor:
            raise HttpHostError("the request has no Host field")
        return self._target or self._field or NoHost("the HTTP/1.0 request has no Host field")


def _may_be_http(line: bytearray) -> bool:
    """Whether a request line may begin with `line`, which may be incomplete: by its method."""
    begun = bytes(line[: _LONGEST_METHOD + 1])
    if begun in (b"\r", b"\r\n"):
        return True
    method = _METHOD.match(begun)
    return method is not None and begun[method.end() : method.end() + 1] in (b"", b" ")


def _host_of_target(method: bytes, target: bytes) -> HttpHost | None:
    """The host in a request target (RFC 9112, section 3.2); ``None`` if its form has none."""
    if method == b"CONNECT":
        host = _host(target)
        if host.port is None:
            raise HttpHostError("the target of CONNECT has no port")
        return host
    if target.startswith(b"/") or (method, target) == (b"OPTIONS", b"*"):
        return None
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise HttpHostError("the request target is malformed")
    return _host(absolute[1])


def _host(authority: bytes) -> HttpHost:
    """A host with an optional port.  User information is refused (RFC 9110, section 4.2.4)."""
    match = _AUTHORITY.fullmatch(authority) if len(authority) <= _LONGEST_AUTHORITY else None
    if match is None:
        raise HttpHostError("the host is malformed")
    ipv6, name, digits = (None if part is None else part.decode() for part in match.groups())
    port = int(digits) if digits else None
    if port is not None and port > _HIGHEST_PORT:
        raise HttpHostError(f"the port of the host is {port}")
    if ipv6 is None:
        return HttpHost((name or "").lower(), port)
    try:
        return HttpHost(str(IPv6Address(ipv6)), port)
    except AddressValueError:
        raise HttpHostError("the host is not an IPv6 address") from None
