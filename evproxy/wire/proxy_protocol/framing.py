"""
How TLVs follow each other: a type of one byte, a length of two bytes, and a value.

Source: the specification, 2.2.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from evproxy.errors import ProxyHeaderError

Tlv = tuple[int, bytes]
"""A type and its value."""

HEAD = 3
"""The bytes of a TLV before its value."""

LONGEST = 0xFFFF
"""The longest value of a TLV, in bytes."""

ANY_SIZE = range(LONGEST + 1)


@frozen(slots=True)
class Span:
    """Where the value of a TLV of this type is: from byte `begin` to byte `end`, without it."""

    type: int
    begin: int
    end: int


class Spans:
    """
    The TLVs in a part of a header that may still be on its way.

    `found` has those whose type and length have arrived.

    :param begin: where the first TLV begins, in bytes from the start of the header.
    :param end: where the last TLV has to end.
    :param sizes: how many bytes the value of a type may have.  Any other type: every size.
    :raises ProxyHeaderError: if a TLV cannot fit.
    """

    __slots__ = ("_end", "_next", "_sizes", "found")

    def __init__(self, begin: int, end: int, sizes: Mapping[int, range]) -> None:
        self._next = begin
        self._end = end
        self._sizes = sizes
        self.found: list[Span] = []
        self._check_room()

    def advance(self, received: bytes | bytearray) -> None:
        """
        Find the TLVs that begin in `received`, which is the header so far.

        :raises ProxyHeaderError: as soon as the length of a TLV is impossible.
        """
        while self._next + 1 < min(self._end, len(received)):
            type_ = received[self._next]
            begin = self._next + HEAD
            length = received[begin - 2 : begin]
            # With only half of the length, the value has at least that many bytes.
            end = begin + int.from_bytes(length.ljust(2, b"\0"), "big")
            if end > self._end:
                raise ProxyHeaderError(f"the TLV 0x{type_:02x} is longer than what contains it")
            if len(length) < 2:
                return
            if end - begin not in self._sizes.get(type_, ANY_SIZE):
                raise ProxyHeaderError(f"the TLV 0x{type_:02x} has {end - begin} bytes")
            self.found.append(Span(type_, begin, end))
            self._next = end
            self._check_room()

    def _check_room(self) -> None:
        if self._next != self._end and self._next + HEAD > self._end:
            raise ProxyHeaderError("the last TLV is cut off")


def split(data: bytes) -> list[Tlv]:
    """
    The TLVs that `data` consists of.

    :raises ProxyHeaderError: if it does not consist of TLVs.
    """
    spans = Spans(0, len(data), {})
    spans.advance(data)
    return [(span.type, data[span.begin : span.end]) for span in spans.found]


def encoded(type_: int, value: bytes) -> bytes:
    """
    The bytes of a TLV.

    :raises ProxyHeaderError: if the type has not one byte, or the value is longer than `LONGEST`.
    """
    if type_ not in range(0x100):
        raise ProxyHeaderError(f"a TLV has the type {type_}, which is not one byte")
    if len(value) > LONGEST:
        raise ProxyHeaderError(f"the TLV 0x{type_:02x} has {len(value)} bytes")
    return bytes([type_]) + len(value).to_bytes(2, "big") + value
