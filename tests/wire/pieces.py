"""Bytes in pieces: a reader has to answer the same however its input is cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from hypothesis import strategies as st

from evproxy.errors import EvproxyError

Feed = Callable[[bytes], object]

TRAILING = [b"\0", b"\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", bytes(range(256))]
"""What may follow a complete message."""


def pieces(data: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    """`data`, cut at each of `cuts` that is inside."""
    places = sorted({0, len(data), *(cut for cut in cuts if 0 < cut < len(data))})
    return (data[start:end] for start, end in pairwise(places))


def outcome(feed: Feed, parts: Iterable[bytes], error: type[EvproxyError]) -> object:
    """The first answer, or ``error: message``; ``None`` if the reader wants more than `parts`."""
    try:
        for part in parts:
            if (answer := feed(part)) is not None:
                return answer
    except error as raised:
        message = str(raised)
        assert message.isascii()
        assert message.isprintable()
        return f"error: {message}"
    return None


def in_every_way(make: Callable[[], Feed], data: bytes, error: type[EvproxyError]) -> object:
    """The outcome for `data`: whole, byte by byte, and with trailing bytes if it is complete."""
    found = outcome(make(), [data], error)
    assert outcome(make(), pieces(data, range(len(data))), error) == found
    if found is not None:
        for after in TRAILING:
            assert outcome(make(), [data + after], error) == found
    return found


def cut_places(most: int) -> st.SearchStrategy[list[int]]:
    """Places at which `pieces` cuts."""
    return st.lists(st.integers(0, most), max_size=8)
