"""
A set of whole numbers, as sorted intervals with an index.

The time of a look-up hardly depends on the number of intervals.  The edges of the intervals are
in one sorted list, and the range from the first edge to the last is cut into slots of equal
width, about as many as there are edges.  A look-up computes the slot, as an interpolation
search does (W. W. Peterson, "Addressing for random-access storage", 1957), and bisects only the
edges in that slot.  If most edges are in few slots, a look-up takes at most as many steps as
bisecting the whole list.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise


class Intervals:
    """
    The numbers in any of `intervals`.

    :param intervals: pairs of the first number and the number after the last one, in any
        order.  They may overlap; none is empty.
    """

    __slots__ = ("_edges", "_first", "_shift", "_slots", "_starts")

    def __init__(self, intervals: Iterable[tuple[int, int]]) -> None:
        # An even index has the first number of an interval, the next one the number after it.
        edges = self._edges = _merged(intervals)
        first = self._first = edges[0] if edges else 0
        span = edges[-1] - first if edges else 0
        shift = self._shift = max(0, span.bit_length() - (2 * len(edges)).bit_length())
        slots = self._slots = (span >> shift) + 1
        counts = array("I", bytes(array("I").itemsize * (slots + 1)))
        for edge in edges:
            counts[((edge - first) >> shift) + 1] += 1
        self._starts = array("I", accumulate(counts))

    def __contains__(self, number: int) -> bool:
        slot = (number - self._first) >> self._shift
        if not 0 <= slot < self._slots:
            return False
        starts = self._starts
        return bisect_right(self._edges, number, starts[slot], starts[slot + 1]) & 1 == 1

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The disjoint intervals in ascending order."""
        return (pair for index, pair in enumerate(pairwise(self._edges)) if index % 2 == 0)

    def __len__(self) -> int:
        """The number of disjoint intervals."""
        return len(self._edges) // 2


def _merged(intervals: Iterable[tuple[int, int]]) -> list[int]:
    edges: list[int] = []
    for first, end in sorted(intervals):
        if edges and first <= edges[-1]:
            edges[-1] = max(edges[-1], end)
        else:
            edges += (first, end)
    return edges
