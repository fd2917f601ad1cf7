"""
Version 2: a signature, a command, addresses and TLVs in binary.

Source: the specification, 2.2.  Where it leaves a choice, or contradicts itself:

* ``LOCAL`` is accepted with any address family, and its addresses are skipped: "discard the
  protocol block including the family which is ignored".
* Without addresses that count (``LOCAL``, a family or a transport ``UNSPEC``), the bytes behind
  the addresses of the family are TLVs if they have that form, as HAProxy sends them.  If they
  have not, they are skipped.
* A second CRC32C is refused: no two checksums can both be right.
* The TLVs CRC32C and NOOP are not kept: they say nothing about the connection.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from attrs import evolve

from evproxy.errors import ProxyHeaderError
from evproxy.wire.proxy_protocol.crc32c import crc32c
from evproxy.wire.proxy_protocol.framing import ANY_SIZE, LONGEST, Span, Spans, encoded
from evproxy.wire.proxy_protocol.header import (
    UNIX_LENGTH,
    Address,
    InetAddress,
    ProxyHeader,
    Transport,
    UnixAddress,
)
from evproxy.wire.proxy_protocol.tlvs import SIZES, Tlvs, TlvType, in_haproxy_order

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"

HEAD = 16
"""The bytes of a header before the addresses."""

LENGTH_LIMIT = 16 * 1024
"""
The most bytes of addresses and TLVs that a reader accepts, unless it is told otherwise.

A header without a certificate has some hundred bytes.  A client's certificate (the TLV 0x28) has
1 to 3 KiB, and up to 8 KiB with post-quantum keys and signatures (ML-DSA-87: a key of 2,592 and
a signature of 4,627 bytes).  HAProxy writes a header into one buffer, of 16 KiB by default.
"""

_LOCAL = 0x20
_PROXY = 0x21
_UNSPEC, _INET, _INET6, _UNIX = range(4)

_FORMATS = {
    _INET: struct.Struct("!4s4sHH"),
    _INET6: struct.Struct("!16s16sHH"),
    _UNIX: struct.Struct(f"!{UNIX_LENGTH}s{UNIX_LENGTH}s"),
}
_TRANSPORTS = {each.value: each for each in Transport}


class BlockReader:
    """
    Reads a header of version 2 that may arrive in pieces.

    :param length_limit: the most bytes of addresses and TLVs.
    """

    __slots__ = ("_length_limit", "_spans", "size")

    def __init__(self, length_limit: int) -> None:
        self._length_limit = length_limit
        self._spans: Spans | None = None
        self.size: int | None = None
        """The size of the header in bytes, once it is known."""

    def read(self, received: bytes | bytearray) -> ProxyHeader | None:
        """
        The header at the start of `received`; ``None`` if it is not complete.

        :param received: what came before, and more.
        :raises ProxyHeaderError: if no header begins like that.
        """
        if self.size is None:
            _check_head(received, self._length_limit)
            if len(received) < HEAD:
                return None
            self.size = HEAD + int.from_bytes(received[14:HEAD], "big")
            if _has_addresses(received):
                self._spans = Spans(HEAD + _FORMATS[received[13] >> 4].size, self.size, SIZES)
        if self._spans is not None:
            self._spans.advance(received)
        if len(received) < self.size:
            return None
        whole = bytes(received[: self.size])
        if self._spans is None:
            return _read_without_addresses(whole)
        tlvs, checksum = _read_tlvs(whole, self._spans)
        source, destination = _read_addresses(whole)
        return ProxyHeader(
            2,
            source,
            destination,
            transport=_TRANSPORTS[whole[13] & 0xF],
            tlvs=tlvs,
            checksum=_is_verified(whole, checksum),
        )


def _check_head(received: bytes | bytearray, length_limit: int) -> None:
    start = bytes(received[: len(SIGNATURE)])
    if not SIGNATURE.startswith(start):
        raise ProxyHeaderError("the signature is wrong")
    if len(received) > 12 and received[12] not in (_LOCAL, _PROXY):
        raise ProxyHeaderError(f"the version and the command are 0x{received[12]:02x}")
    if len(received) > 13 and received[12] == _PROXY:
        family, transport = divmod(received[13], 16)
        if family > _UNIX or transport > Transport.DATAGRAM.value:
            raise ProxyHeaderError(f"the family and the transport are 0x{received[13]:02x}")
    if len(received) > 14:
        # With only half of the length, the header has at least that many bytes.
        length = int.from_bytes(received[14:HEAD].ljust(2, b"\0"), "big")
        if length > length_limit:
            raise ProxyHeaderError(f"its length is {length} bytes or more, limit {length_limit}")
        if len(received) >= HEAD and _has_addresses(received):
            size = _FORMATS[received[13] >> 4].size
            if length < size:
                raise ProxyHeaderError(f"its length is {length} bytes, the addresses have {size}")


def _has_addresses(received: bytes | bytearray) -> bool:
    """Whether the header with this head has addresses that count."""
    family, transport = divmod(received[13], 16)
    return received[12] == _PROXY and family in _FORMATS and transport in _TRANSPORTS


def _read_without_addresses(whole: bytes) -> ProxyHeader:
    skipped = ProxyHeader(2, local=whole[12] == _LOCAL)
    layout = _FORMATS.get(whole[13] >> 4)
    try:
        spans = Spans(HEAD + (layout.size if layout else 0), len(whole), SIZES)
        spans.advance(whole)
        tlvs, checksum = _read_tlvs(whole, spans)
    except ProxyHeaderError:
        return skipped
    return evolve(skipped, tlvs=tlvs, checksum=_is_verified(whole, checksum))


def _read_addresses(whole: bytes) -> tuple[Address, Address]:
    family = whole[13] >> 4
    source, destination, *ports = _FORMATS[family].unpack_from(whole, HEAD)
    if family == _UNIX:
        return UnixAddress(source), UnixAddress(destination)
    return (
        InetAddress(_host(source), ports[0]),
        InetAddress(_host(destination), ports[1]),
    )


def _host(packed: bytes) -> str:
    return ".".join(map(str, packed)) if len(packed) == 4 else packed.hex(":", 2)


def _read_tlvs(whole: bytes, spans: Spans) -> tuple[Tlvs, Span | None]:
    """The TLVs to keep, and where the checksum is."""
    kept = []
    checksum = None
    for span in spans.found:
        if span.type == TlvType.CRC32C:
            if checksum is not None:
                raise ProxyHeaderError("it has more than one CRC32C")
            checksum = span
        elif span.type != TlvType.NOOP:
            kept.append((span.type, whole[span.begin : span.end]))
    tlvs = Tlvs(kept)
    _ = tlvs.ssl  # raises if it is malformed
    return tlvs, checksum


def _is_verified(whole: bytes, checksum: Span | None) -> bool:
    """Whether there is a checksum.  If there is one, it has to be right."""
    if checksum is None:
        return False
    sent = int.from_bytes(whole[checksum.begin : checksum.end], "big")
    computed = crc32c(whole[: checksum.begin] + bytes(4) + whole[checksum.end :])
    if sent != computed:
        raise ProxyHeaderError(f"its CRC32C is 0x{sent:08x}, computed 0x{computed:08x}")
    return True


def block_bytes(header: ProxyHeader) -> bytes:
    """
    The bytes of `header`, with its TLVs in HAProxy's order.

    A pair of IPv4 and IPv6 addresses becomes a pair of IPv6 addresses, the IPv4 address mapped.
    Without a pair of IP or UNIX addresses, the command is ``LOCAL`` and the family ``UNSPEC``, as
    HAProxy writes it.

    :raises ProxyHeaderError: if a TLV is impossible, or the header is longer than 65551 bytes.
    """
    family, addresses = (_UNSPEC, b"") if header.local else _addresses(header)
    transport = header.transport.value if addresses else 0
    body = addresses + b"".join(_encoded_tlvs(header))
    if len(body) > LONGEST:
        raise ProxyHeaderError(f"its length is {len(body)} bytes, limit {LONGEST}")
    head = bytes([_PROXY if addresses else _LOCAL, family << 4 | transport])
    whole = SIGNATURE + head + len(body).to_bytes(2, "big") + body
    if not header.checksum:
        return whole
    spans = Spans(HEAD + len(addresses), len(whole), SIZES)
    spans.advance(whole)
    [place] = [span for span in spans.found if span.type == TlvType.CRC32C]
    return whole[: place.begin] + crc32c(whole).to_bytes(4, "big") + whole[place.end :]


def _encoded_tlvs(header: ProxyHeader) -> Iterator[bytes]:
    """The TLVs, with the place of the checksum zeroed, in HAProxy's order."""
    if TlvType.CRC32C in dict(header.tlvs):
        raise ProxyHeaderError("the CRC32C is computed: ask for it with `checksum`")
    _ = header.tlvs.ssl  # raises if it is malformed
    place = [(TlvType.CRC32C, bytes(4))] if header.checksum else []
    for type_, value in in_haproxy_order([*header.tlvs, *place]):
        if len(value) not in SIZES.get(type_, ANY_SIZE):
            raise ProxyHeaderError(f"the TLV 0x{type_:02x} has {len(value)} bytes")
        yield encoded(type_, value)


def _addresses(header: ProxyHeader) -> tuple[int, bytes]:
    """The address family and the addresses of `header`."""
    if (unix := header.unix_pair()) is not None:
        return _UNIX, _FORMATS[_UNIX].pack(unix[0].path, unix[1].path)
    if (inet := header.inet_pair()) is None:
        return _UNSPEC, b""
    ipv6 = any(address.is_ipv6 for address in inet)
    family = _INET6 if ipv6 else _INET
    hosts = [address.packed_ipv6 if ipv6 else address.packed for address in inet]
    return family, _FORMATS[family].pack(*hosts, *(address.port for address in inet))
