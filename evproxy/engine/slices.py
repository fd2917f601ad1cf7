"""
Long work in short slices, so that sessions go on in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from math import inf
from typing import Any, TypeVar

from twisted.internet.task import deferLater

SLICE = 32
"""How many servers or sessions are looked at in one turn of the reactor: less than half a
millisecond's worth."""

T = TypeVar("T")
R = TypeVar("R")


def slices(items: Iterable[T], size: int = SLICE) -> Iterator[tuple[T, ...]]:
    """Yield `items` in tuples of `size`; the last one may be shorter, and none is empty."""
    left = iter(items)
    while part := tuple(islice(left, size)):
        yield part


async def in_slices(
    reactor: Any,
    items: Iterator[T],
    work: Callable[[T], R | None],
    most: float = inf,
    size: int = SLICE,
) -> list[R]:
    """
    Return the results of `work` for `items`, without those that are ``None``.

    Calls `work` for `size` items in each turn of the reactor.

    :param most: stop after this many results.
    """
    found: list[R] = []
    while True:
        looked_at = 0
        for item in islice(items, size):
            looked_at += 1
            result = work(item)
            if result is not None:
                found.append(result)
                if len(found) >= most:
                    return found
        if looked_at < size:
            return found
        await deferLater(reactor, 0)
