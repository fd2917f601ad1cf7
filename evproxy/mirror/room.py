"""The room for the bytes that wait for the servers of all copies."""

from __future__ import annotations


class Room:
    """
    The room for the bytes of all copies.

    `used`: how many bytes there are.

    :param most: how many bytes there may be.
    """

    __slots__ = ("_most", "used")

    def __init__(self, most: int) -> None:
        self._most = most
        self.used = 0

    def take(self, count: int) -> bool:
        """Take the room for `count` bytes; ``False`` if there is none."""
        if self.used + count > self._most:
            return False
        self.used += count
        return True

    def give_back(self, count: int) -> None:
        """Give back the room of `count` bytes."""
        self.used -= count
