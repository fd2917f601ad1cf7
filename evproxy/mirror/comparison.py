"""
Compares two streams of bytes that come at any pace, in bounded memory.

Pure.  Only the bytes are kept that one stream is ahead of the other.
"""

from __future__ import annotations

import enum


class Verdict(enum.Enum):
    """How two streams compare."""

    EQUAL = "equal"
    """Both have ended in order, after the same bytes."""
    DIFFERENT = "different"
    """They differ in a byte, or one has ended where the other goes on."""
    GIVEN_UP = "given-up"
    """Nobody knows: one was too far ahead of the other, or was cut off."""


class Comparison:
    """
    Compares the streams 0 and 1.

    `verdict` is ``None`` until it is known, and does not change afterwards.  `offset` is how many
    bytes are equal: if the streams differ, the offset of the first byte that does.  `why` says why
    the comparison was given up.

    :param most: how many bytes one stream may be ahead of the other.
    """

    __slots__ = ("_ahead", "_ended", "_kept", "_most", "offset", "verdict", "why")

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept = bytearray()
        self._ahead = 0
        self._ended = [False, False]
        self.offset = 0
        self.verdict: Verdict | None = None
        self.why = ""

    @property
    def kept(self) -> int:
        """How many bytes one stream is ahead."""
        return len(self._kept)

    def add(self, stream: int, data: bytes) -> None:
        """`data` is next in `stream`."""
        if self.verdict is not None or not data:
            return
        if self._kept and stream != self._ahead:
            count = min(len(self._kept), len(data))
            equal = _equal_bytes(self._kept[:count], data[:count])
            self.offset += equal
            if equal < count:
                self._decide(Verdict.DIFFERENT)
                return
            del self._kept[:count]
            data = data[count:]
            if not data:
                return
        if self._ended[1 - stream]:
            self._decide(Verdict.DIFFERENT)
        elif len(self._kept) + len(data) > self._most:
            self.give_up(f"one answer is more than {self._most} bytes ahead")
        else:
            self._ahead = stream
            self._kept += data

    def end(self, stream: int) -> None:
        """`stream` has ended in order."""
        self._ended[stream] = True
        if self.verdict is not None:
            return
        if self._kept and self._ahead != stream:
            self._decide(Verdict.DIFFERENT)
        elif self._ended[1 - stream]:
            self._decide(Verdict.DIFFERENT if self._kept else Verdict.EQUAL)

    def give_up(self, why: str) -> None:
        """There will be no verdict, unless there is one already."""
        if self.verdict is None:
            self.why = why
            self._decide(Verdict.GIVEN_UP)

    def _decide(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self._kept = bytearray()


def _equal_bytes(one: bytes | bytearray, other: bytes) -> int:
    """How many bytes at the beginning of two strings of the same length are equal."""
    if one == other:
        return len(one)
    low, high = 0, len(one)
    # The first `low` bytes are equal, the first `high` are not.
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
