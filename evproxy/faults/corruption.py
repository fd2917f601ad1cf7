"""
Which bytes of a stream a `corrupt` changes, and to what: decisions without a clock.
"""

from __future__ import annotations

from random import Random

BLOCK = 4096
"""For so many bytes at once it is drawn which ones are changed, and to what."""

CHANGED, UNDECIDED = 0xFF, 1


class Corruption:
    """
    Changes each byte with the same probability, to each of the 255 other values with the same.

    However the stream comes in chunks, the same bytes of it are changed.

    :param share: the probability.
    :param random: where the draws come from.
    """

    def __init__(self, share: float, random: Random) -> None:
        self._random = random
        # A byte is changed if a random byte is below 256 times the share; one that is equal to its
        # whole part decides nothing, and the fraction is drawn for it.
        below, self._fraction = divmod(share * 256, 1)
        table = bytearray(256)
        table[: int(below)] = bytes((CHANGED,)) * int(below)
        if self._fraction:
            table[int(below)] = UNDECIDED
        self._table = bytes(table)
        self._masks = b""

    def change(self, data: bytes) -> bytes:
        """Return the next bytes of the stream, `data`, as they go on."""
        size = len(data)
        missing = size - len(self._masks)
        if missing > 0:
            blocks = (self._draw() for _ in range(-(-missing // BLOCK)))
            self._masks = b"".join((self._masks, *blocks))
        mask, self._masks = self._masks[:size], self._masks[size:]
        return _xor(data, mask)

    def _draw(self) -> bytes:
        """Draw what the bytes of a block are combined with, by exclusive or."""
        random = self._random
        chosen = bytearray(random.randbytes(BLOCK).translate(self._table))
        place = chosen.find(UNDECIDED)
        while place >= 0:
            chosen[place] = CHANGED if random.random() < self._fraction else 0
            place = chosen.find(UNDECIDED, place + 1)
        values = bytearray(random.randbytes(BLOCK))
        place = values.find(0)
        while place >= 0:
            values[place] = random.randint(1, 255)
            place = values.find(0, place + 1)
        both = int.from_bytes(chosen, "little") & int.from_bytes(values, "little")
        return both.to_bytes(BLOCK, "little")


def _xor(one: bytes, other: bytes) -> bytes:
    number = int.from_bytes(one, "little") ^ int.from_bytes(other, "little")
    return number.to_bytes(len(one), "little")
