"""
The TLV that says how the client uses TLS.

Source: the specification, 2.2.6; the types 0x26 to 0x28 are in its revisions since 2025.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import Any

from attrs import field, frozen, validators

from evproxy.errors import ProxyHeaderError
from evproxy.wire.proxy_protocol.framing import Tlv, encoded, split

_HEAD = struct.Struct("!BI")

_CLIENT_CERTIFICATE = 0x28

# In the order in which HAProxy sends them.
_TEXTS = {
    0x21: "version",
    0x22: "common_name",
    0x25: "key_algorithm",
    0x24: "signature_algorithm",
    0x23: "cipher",
    0x26: "group",
    0x27: "signature_scheme",
}


class SslClient(enum.IntFlag):
    """What the client did.  Bits without a name are kept."""

    TLS = 0x01
    """It connected over TLS."""
    CERTIFICATE_IN_CONNECTION = 0x02
    """It sent a certificate over this connection."""
    CERTIFICATE_IN_SESSION = 0x04
    """It sent a certificate at least once in the TLS session of this connection."""


_SENT_CERTIFICATE = SslClient.CERTIFICATE_IN_CONNECTION | SslClient.CERTIFICATE_IN_SESSION


def text_of(value: bytes | None) -> str | None:
    """`value` as text.  Bytes that are not UTF-8 become surrogates, so that nothing is lost."""
    return None if value is None else value.decode("utf-8", "surrogateescape")


def _unsigned(size: int) -> list[Callable[[Any, Any, Any], Any]]:
    return [validators.ge(0), validators.lt(256**size)]


@frozen(slots=True, kw_only=True)
class Ssl:
    """
    How the client uses TLS.

    Each text is ``None`` if the sender does not say.  Text comes from outside: log it with
    `evproxy.escape.escaped`.

    `verify` is 0 if the client's certificate was verified, and otherwise says why it was not.
    **Without a certificate it is 0 too** (HAProxy's senders): ask `certificate_verified`.

    `common_name`, `key_algorithm`, `signature_algorithm`: of the certificate.
    `client_certificate`: the certificate in DER.  `other`: sub-TLVs of other types, and repeated
    ones.
    """

    client: SslClient = field(default=SslClient(0), validator=_unsigned(1))
    verify: int = field(default=0, validator=_unsigned(4))
    version: str | None = None
    common_name: str | None = None
    cipher: str | None = None
    signature_algorithm: str | None = None
    key_algorithm: str | None = None
    group: str | None = None
    signature_scheme: str | None = None
    client_certificate: bytes | None = None
    other: tuple[Tlv, ...] = ()

    @property
    def certificate_verified(self) -> bool:
        """Whether the client sent a certificate, and the sender verified it."""
        return self.verify == 0 and bool(self.client & _SENT_CERTIFICATE)

    @classmethod
    def decoded(cls, value: bytes) -> Ssl:
        """
        The value of the TLV.

        :raises ProxyHeaderError: if it is too short, or its sub-TLVs are cut off.
        """
        if len(value) < _HEAD.size:
            raise ProxyHeaderError(f"the TLV 0x20 has {len(value)} bytes")
        client, verify = _HEAD.unpack_from(value)
        texts: dict[str, str | None] = {}
        certificate = None
        other = []
        for type_, part in split(value[_HEAD.size :]):
            name = _TEXTS.get(type_)
            if name is not None and name not in texts:
                texts[name] = text_of(part)
            elif type_ == _CLIENT_CERTIFICATE and certificate is None:
                certificate = part
            else:
                other.append((type_, part))
        return cls(
            client=SslClient(client),
            verify=verify,
            client_certificate=certificate,
            other=tuple(other),
            **texts,
        )

    def encoded(self) -> bytes:
        """
        The bytes of the value: sub-TLVs in HAProxy's order, then the certificate and others.

        :raises ProxyHeaderError: if a part is too long.
        """
        parts: list[tuple[int, str | bytes | None]] = [
            *((type_, getattr(self, name)) for type_, name in _TEXTS.items()),
            (_CLIENT_CERTIFICATE, self.client_certificate),
            *self.other,
        ]
        return _HEAD.pack(self.client, self.verify) + b"".join(
            encoded(type_, encoded_text(part) if isinstance(part, str) else part)
            for type_, part in parts
            if part is not None
        )


def encoded_text(text: str) -> bytes:
    """
    The bytes that `text_of` made `text` of.

    :raises ProxyHeaderError: if it cannot have made it of any.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ProxyHeaderError(f"{text!a} is not Unicode text") from None
