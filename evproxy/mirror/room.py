"""The room for the bytes that wait for the servers of all copies."""

from __future__ import annotations


class Room:
    """
    The room for the bytes of all copies.

    :param most: how many bytes there may be.
    """

    __slots__ = ("_most", "_used")

    def __init__(self, most: int) -> None:
        self._most = most
        self._used = 0

    def take(self, count: int) -> bool:
        """Take the room for `count` bytes; ``False`` if there is none."""
        if self._used + count > self._most:
            return False
        self._used += count
        return True

    def give_back(self, count: int) -> None:
        """Give back the room of `count` bytes."""
        self._used -= count
