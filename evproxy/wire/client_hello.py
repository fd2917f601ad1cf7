"""
The ClientHello of TLS: what a client says in the clear before anything is encrypted.

Pure.  `HelloReader` takes the bytes of a client in any fragmentation, of segments and of TLS
records, and answers as soon as the answer is certain.  It keeps no bytes for the server: the
caller replays what the caller has received.

Sources: RFC 8446, section 4.1.2 (ClientHello), 4.2 (extensions), 5.1 (records); RFC 6066,
section 3 (server_name); RFC 7301, section 3.1 (ALPN); RFC 9849 (ECH).
"""

from __future__ import annotations

import re
from struct import Struct
from typing import Final

from attrs import frozen

from evproxy.errors import ClientHelloError

SIZE_LIMIT: Final = 16 * 1024
"""
The most bytes in which a ClientHello must be complete, with the headers of its records.

nginx and Envoy have the same limit.  A default hello of OpenSSL 4.0 takes 1,570 bytes.
"""

_SSL_3 = 0x0300
TLS_1_2: Final = 0x0303
TLS_1_3: Final = 0x0304

_HANDSHAKE = 22
_CLIENT_HELLO = 1
_RECORD_HEADER = 5
_MESSAGE_HEADER = 4
_LONGEST_FRAGMENT = 2**14

_SERVER_NAME = 0
_ALPN = 16
_SUPPORTED_VERSIONS = 43
_ENCRYPTED_CLIENT_HELLO = 0xFE0D

_HOST_NAME = 0
_LONGEST_NAME = 255
_NAME = re.compile(rb"[A-Za-z0-9_:-]+(?:\.[A-Za-z0-9_:-]+)*")

_two_bytes = Struct("!H").unpack_from
_type_and_length = Struct("!HH").unpack_from


@frozen
class ClientHello:
    """
    What a ClientHello says that a route can use.

    `server_name`: in lower case, A-labels as they were sent, without a final dot; ``None`` if the
    client names no server.
    `alpn`: the client's protocols, its favourite first; empty if it offers none.
    `version`: the highest version it offers, such as `TLS_1_3`; 0 if evproxy knows none of them.
    `ech`: the client sent an encrypted_client_hello extension.  Then `server_name` may be that of
    another server than the client wants.  A client may also send the extension without a meaning
    (GREASE): both look alike.
    """

    server_name: str | None = None
    alpn: tuple[bytes, ...] = ()
    version: int = TLS_1_2
    ech: bool = False


@frozen
class NotTls:
    """The client does not begin with TLS.  `reason` is short and printable."""

    reason: str


class HelloReader:
    """
    Reads one ClientHello, piece by piece.

    Holds at most `SIZE_LIMIT` bytes.  The time that it takes is proportional to the bytes, however
    small the pieces.
    """

    __slots__ = ("_fragment_left", "_header", "_message", "_records", "_room", "_wanted")

    def __init__(self) -> None:
        self._room = SIZE_LIMIT
        self._records = 0
        self._header = b""
        self._fragment_left = 0
        self._message = bytearray()
        self._wanted = 0

    def feed(self, data: bytes) -> ClientHello | NotTls | None:
        """
        The answer as soon as `data` completes it, else ``None``.

        Bytes after the ClientHello are ignored.  Do not call `feed` again after an answer or an
        error.

        :raises ClientHelloError: if the client begins like TLS, but its first message is not a
            sound ClientHello, or not complete within `SIZE_LIMIT` bytes.
        """
        position, end = 0, min(len(data), self._room)
        self._room -= end
        while position < end:
            if self._fragment_left:
                stop = min(end, position + self._fragment_left)
                self._fragment_left -= stop - position
                if self._complete(data[position:stop]):
                    return _client_hello(bytes(self._message[_MESSAGE_HEADER : self._wanted]))
            else:
                stop = min(end, position + _RECORD_HEADER - len(self._header))
                self._header += data[position:stop]
                if (fault := _not_a_handshake(self._header)) is not None:
                    if self._records:
                        raise ClientHelloError(f"TLS record {self._records + 1}: {fault}")
                    return NotTls(fault)
                if len(self._header) == _RECORD_HEADER:
                    self._begin_fragment()
            position = stop
        if end < len(data):
            raise ClientHelloError(f"the ClientHello is longer than {SIZE_LIMIT} bytes")
        return None

    def _begin_fragment(self) -> None:
        [length] = _two_bytes(self._header, 3)
        if not 0 < length <= _LONGEST_FRAGMENT:
            raise ClientHelloError(f"a TLS record has a handshake of {length} bytes")
        self._header = b""
        self._records += 1
        self._fragment_left = length

    def _complete(self, fragment: bytes) -> bool:
        """Whether the message is complete with `fragment`."""
        message = self._message
        message += fragment
        if not self._wanted:
            if message[0] != _CLIENT_HELLO:
                raise ClientHelloError(f"the first handshake message is of type {message[0]}")
            if len(message) < _MESSAGE_HEADER:
                return False
            self._wanted = _MESSAGE_HEADER + int.from_bytes(message[1:_MESSAGE_HEADER])
            if self._wanted + _RECORD_HEADER > SIZE_LIMIT:
                raise ClientHelloError(f"the ClientHello is longer than {SIZE_LIMIT} bytes")
        return len(message) >= self._wanted


def _not_a_handshake(header: bytes) -> str | None:
    """
    Why the first bytes of a record, `header`, do not begin a handshake; ``None`` if they may.

    Any minor version is accepted, as RFC 5246, appendix E.1 demands of servers.
    """
    if header[0] != _HANDSHAKE:
        return f"the first byte is 0x{header[0]:02x}, and not 0x{_HANDSHAKE:02x}"
    if len(header) > 1 and header[1] != _SSL_3 >> 8:
        return f"the major version is {header[1]}, and not 3"
    return None


def _client_hello(body: bytes) -> ClientHello:
    """The values of a complete ClientHello; `body` is the message without its header."""
    if len(body) < 2 + 32 + 1:
        raise ClientHelloError("the ClientHello is shorter than its fixed fields")
    [version] = _two_bytes(body)
    # Servers choose their own version if this is a later one (RFC 5246, appendix E.1).
    if version < _SSL_3:
        raise ClientHelloError(f"the ClientHello is of version 0x{version:04x}")
    position = _after(body, 2 + 32, 1, 0, 32, "session id")
    position = _after(body, position, 2, 2, 2**16 - 2, "cipher suites")
    position = _after(body, position, 1, 1, 255, "compression methods")
    # A hello of TLS 1.2 and earlier may end here (RFC 5246, section 7.4.1.2).
    extensions = _extensions(body, position) if position < len(body) else {}
    server_name = extensions.get(_SERVER_NAME)
    alpn = extensions.get(_ALPN)
    versions = extensions.get(_SUPPORTED_VERSIONS)
    return ClientHello(
        None if server_name is None else _server_name(server_name),
        () if alpn is None else _protocols(alpn),
        min(version, TLS_1_2) if versions is None else _highest_version(versions),
        _ENCRYPTED_CLIENT_HELLO in extensions,
    )


def _after(data: bytes, start: int, width: int, least: int, most: int, what: str) -> int:
    """Where the vector at `start` ends, whose length takes `width` bytes (RFC 8446, 3.4)."""
    content = start + width
    length = int.from_bytes(data[start:content])
    if content + length > len(data) or not least <= length <= most:
        raise ClientHelloError(f"the length of the {what} is wrong")
    return content + length


def _extensions(body: bytes, start: int) -> dict[int, bytes]:
    """The extensions of a hello by their type."""
    if _after(body, start, 2, 0, 2**16 - 1, "extensions") != len(body):
        raise ClientHelloError("bytes follow the extensions")
    found: dict[int, bytes] = {}
    position, end = start + 2, len(body)
    while position < end:
        if end - position < 4:
            raise ClientHelloError("the last extension is cut off")
        kind, length = _type_and_length(body, position)
        position += 4
        if length > end - position:
            raise ClientHelloError(f"extension {kind} is longer than the ClientHello")
        if kind in found:
            raise ClientHelloError(f"extension {kind} is there twice")
        found[kind] = body[position : position + length]
        position += length
    return found


def _server_name(extension: bytes) -> str:
    """
    The one host name of a server_name extension.

    A list of several names is refused, as OpenSSL does: no other type of name was ever defined.
    """
    name = extension[5:]
    if (
        len(extension) < 5
        or _two_bytes(extension)[0] != len(name) + 3
        or extension[2] != _HOST_NAME
        or _two_bytes(extension, 3)[0] != len(name)
    ):
        raise ClientHelloError("the server name is not one host name")
    name = name.removesuffix(b".")
    if len(name) > _LONGEST_NAME or _NAME.fullmatch(name) is None:
        raise ClientHelloError("the server name has characters or a length that no host name has")
    return name.decode("ascii").lower()


def _protocols(extension: bytes) -> tuple[bytes, ...]:
    end = len(extension)
    if end < 4 or _two_bytes(extension)[0] != end - 2:
        raise ClientHelloError("the length of the ALPN protocols is wrong")
    protocols = []
    position = 2
    while position < end:
        after = _after(extension, position, 1, 1, 255, "ALPN protocols")
        protocols.append(extension[position + 1 : after])
        position = after
    return tuple(protocols)


def _highest_version(extension: bytes) -> int:
    """The highest known version of a supported_versions extension (RFC 8446, section 4.2.1)."""
    if len(extension) < 3 or len(extension) % 2 == 0 or extension[0] != len(extension) - 1:
        raise ClientHelloError("the length of the supported versions is wrong")
    offered = (_two_bytes(extension, place)[0] for place in range(1, len(extension), 2))
    # The others are drafts, and GREASE (RFC 8701).
    return max((version for version in offered if version >> 8 == _SSL_3 >> 8), default=0)
