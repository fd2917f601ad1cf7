"""
Maglev's lookup table: every slot belongs to a server, by consistent hashing.

Source: D. Eisenbud et al., "Maglev: a fast and reliable software network load balancer",
NSDI 2016, section 3.4.  Each server has a permutation of all slots.  The servers take turns:
in its turn, a server claims the first free slot of its permutation.  As in Envoy's Maglev
balancer, a server has turns in proportion to its weight.

The same servers give the same table in every process on every machine.
"""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterator, Mapping
from hashlib import blake2b
from heapq import heapify, heapreplace
from math import isqrt

TABLE_SIZE = 65537
"""The default number of slots, from the paper: a prime, and 100 slots each for 650 servers."""

_SLICE = 1000
"""How many slots, about, one slice of the work examines: a few tenths of a millisecond."""


def is_prime(number: int) -> bool:
    """Whether `number` is a prime."""
    return number > 1 and all(number % divisor for divisor in range(2, isqrt(number) + 1))


def stable_hash(text: str, key: bytes) -> int:
    """128 bits that depend on `text` and `key` alone (BLAKE2b, RFC 7693)."""
    return int.from_bytes(blake2b(text.encode(), digest_size=16, key=key).digest(), "big")


def build(
    weights: Mapping[str, float], size: int, key: bytes
) -> Generator[None, None, tuple[list[str], array[int]]]:
    """
    Build a table in slices: each ``next`` does one slice, and the generator returns the table.

    :param weights: the weight of each server by its name, all greater than zero.
    :param size: the number of slots, a prime.
    :param key: the key of the hash, at most 64 bytes.
    :return: the sorted names, and for each slot the index of its server's name.
    """
    names = sorted(weights)
    at, skips = [], []
    for number, name in enumerate(names, 1):
        high, low = divmod(stable_hash(name, key), 1 << 64)
        at.append(high % size)
        skips.append(low % (size - 1) + 1)
        if number % 100 == 0:
            yield
    table = array("I", bytes(array("I").itemsize * size))
    taken = bytearray(size)
    turns = _turns([weights[name] for name in names])
    free = size
    crowded = isqrt(size)
    pause = free
    for index in turns:
        slot, skip = at[index], skips[index]
        while taken[slot]:
            slot += skip
            if slot >= size:
                slot -= size
        taken[slot] = 1
        table[slot] = index
        at[index] = slot
        free -= 1
        if free <= crowded:
            break
        # The fewer slots are free, the more slots a claim has to examine.
        if free < pause:
            pause = free - _SLICE * free // size
            yield
    yield from _claim_last(table, taken, turns, at, skips)
    return names, table


def _claim_last(
    table: array[int], taken: bytearray, turns: Iterator[int], at: list[int], skips: list[int]
) -> Generator[None, None, None]:
    """
    Claim the last few slots in the same order, by calculation instead of by search.

    With r of n slots free, a search examines n / r slots.  One multiplication gives the
    position of a slot in a permutation, so for r below the square root of n it is faster to
    calculate the positions of all r slots.
    """
    size = len(table)
    left = []
    slot = taken.find(0)
    while slot >= 0:
        left.append(slot)
        slot = taken.find(0, slot + 1)
    inverses: dict[int, int] = {}
    work = 0
    while left:
        index = next(turns)
        if index not in inverses:
            inverses[index] = pow(skips[index], -1, size)
        inverse, here = inverses[index], at[index]
        distances = [(slot - here) * inverse % size for slot in left]
        table[left.pop(distances.index(min(distances)))] = index
        work += len(distances)
        if work > 2 * _SLICE:
            work = 0
            yield


def _turns(weights: list[float]) -> Iterator[int]:
    """Yield, without end, the index of the server whose turn it is, in proportion to `weights`."""
    members: dict[float, list[int]] = {}
    for index, weight in enumerate(weights):
        members.setdefault(weight, []).append(index)
    due = [(0.0, weight, 0) for weight in members]
    heapify(due)
    while True:
        _, weight, rounds = due[0]
        yield from members[weight]
        heapreplace(due, ((rounds + 1) / weight, weight, rounds + 1))
