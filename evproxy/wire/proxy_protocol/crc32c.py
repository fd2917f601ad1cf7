"""
CRC32C, the checksum of a PROXY header of version 2.

Source: RFC 4960, appendix B: the polynomial of Castagnoli, 0x1EDC6F41, with reversed bits.
"""

from __future__ import annotations

_REVERSED_POLYNOMIAL = 0x82F63B78


def _entry(remainder: int) -> int:
    for _ in range(8):
        remainder = remainder >> 1 ^ (_REVERSED_POLYNOMIAL if remainder & 1 else 0)
    return remainder


_TABLE = tuple(map(_entry, range(256)))


def crc32c(data: bytes | bytearray) -> int:
    """The CRC32C of `data`.  It takes about 50 ns for each byte."""
    table = _TABLE
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
