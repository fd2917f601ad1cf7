"""The checksum of a PROXY header."""

from __future__ import annotations

import pytest

from evproxy.wire.proxy_protocol.crc32c import crc32c


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
    ],
)
def test_published_values(data: bytes, expected: int) -> None:
    """The values are those of RFC 3720, B.4, and the usual check value."""
    assert crc32c(data) == expected
