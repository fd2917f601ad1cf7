"""
The TLVs of a PROXY header of version 2: the facts beside the addresses.

Source: the specification, 2.2, and the vendors' own pages for their types.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator

from evproxy.wire.proxy_protocol.framing import LONGEST, Tlv
from evproxy.wire.proxy_protocol.ssl_tlv import Ssl, encoded_text, text_of


class TlvType(enum.IntEnum):
    """The registered types, and those of vendors."""

    ALPN = 0x01
    AUTHORITY = 0x02
    CRC32C = 0x03
    NOOP = 0x04
    UNIQUE_ID = 0x05
    SSL = 0x20
    NETNS = 0x30
    GCP = 0xE0
    AWS = 0xEA
    AZURE = 0xEE


SIZES: dict[int, range] = {
    TlvType.CRC32C: range(4, 5),
    TlvType.UNIQUE_ID: range(129),
    TlvType.SSL: range(5, LONGEST + 1),
}
"""The sizes in bytes that the value of a type may have.  Any other type: every size."""

_AWS_VPC_ENDPOINT = b"\x01"
_AZURE_LINK = b"\x01"

_HAPROXY_ORDER = (
    TlvType.CRC32C,
    TlvType.ALPN,
    TlvType.AUTHORITY,
    TlvType.UNIQUE_ID,
    TlvType.SSL,
    TlvType.NETNS,
)


class Tlvs(tuple[Tlv, ...]):
    """
    TLVs in the order in which they were sent: pairs of a type and a value.

    The properties are views of the registered types and of vendors' types: each is ``None``
    if there is no such TLV, and shows the first one if there are more.  Text is decoded as UTF-8
    with `surrogateescape`.  It comes from outside: log it with `evproxy.escape.escaped`.
    """

    __slots__ = ()

    @classmethod
    def of(
        cls,
        *,
        custom: Iterable[Tlv] = (),
        alpn: bytes | None = None,
        authority: str | None = None,
        unique_id: bytes | None = None,
        ssl: Ssl | None = None,
        netns: str | None = None,
    ) -> Tlvs:
        """The TLVs that say this.  `custom`: pairs of a type and a value."""
        return cls(
            (type_, value)
            for type_, value in [
                *custom,
                (TlvType.ALPN, alpn),
                (TlvType.AUTHORITY, None if authority is None else encoded_text(authority)),
                (TlvType.UNIQUE_ID, unique_id),
                (TlvType.SSL, None if ssl is None else ssl.encoded()),
                (TlvType.NETNS, None if netns is None else encoded_text(netns)),
            ]
            if value is not None
        )

    def values(self, type_: int) -> Iterator[bytes]:
        """The values of the TLVs of this type."""
        return (value for each, value in self if each == type_)

    def _first(self, type_: int) -> bytes | None:
        return next(self.values(type_), None)

    @property
    def alpn(self) -> bytes | None:
        """The protocol that client and sender agreed upon, such as ``h2`` (2.2.1)."""
        return self._first(TlvType.ALPN)

    @property
    def authority(self) -> str | None:
        """The host name that the client asked for, as in TLS's server_name (2.2.2)."""
        return text_of(self._first(TlvType.AUTHORITY))

    @property
    def unique_id(self) -> bytes | None:
        """The sender's name for the connection, at most 128 bytes (2.2.5)."""
        return self._first(TlvType.UNIQUE_ID)

    @property
    def ssl(self) -> Ssl | None:
        """
        The client's TLS (2.2.6).

        :raises ProxyHeaderError: if the value is malformed.  In a header that was read, it is not.
        """
        value = self._first(TlvType.SSL)
        return None if value is None else Ssl.decoded(value)

    @property
    def netns(self) -> str | None:
        """The name of the network namespace (2.2.7)."""
        return text_of(self._first(TlvType.NETNS))

    @property
    def aws_vpc_endpoint(self) -> str | None:
        """The VPC endpoint ID of AWS, such as ``vpce-08d2bf15fac5001c9`` (AWS, NLB's guide)."""
        values = self.values(TlvType.AWS)
        found = next((value[1:] for value in values if value[:1] == _AWS_VPC_ENDPOINT), None)
        return text_of(found)

    @property
    def azure_link_id(self) -> int | None:
        """The LINKID of a private endpoint of Azure: 32 bits, little-endian (Private Link)."""
        for value in self.values(TlvType.AZURE):
            if value[:1] == _AZURE_LINK and len(value) == 5:
                return int.from_bytes(value[1:], "little")
        return None

    @property
    def gcp_connection_id(self) -> int | None:
        """The PSC connection ID of Google Cloud: 64 bits (Private Service Connect)."""
        found = next((value for value in self.values(TlvType.GCP) if len(value) == 8), None)
        return None if found is None else int.from_bytes(found, "big")


def in_haproxy_order(tlvs: Iterable[Tlv]) -> list[Tlv]:
    """`tlvs` in the order in which HAProxy sends them: types that it has no place for first."""
    places: dict[int, int] = {type_: place for place, type_ in enumerate(_HAPROXY_ORDER)}
    return sorted(tlvs, key=lambda tlv: places.get(tlv[0], -1))
