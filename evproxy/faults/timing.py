"""
When bytes pass a fault that delays them: decisions without a clock.

A `Timing` is asked about the first chunk of a queue: how many of its bytes go next, and when.
"""

from __future__ import annotations

from math import inf
from random import Random
from typing import Protocol

from evproxy.settings.fault import FaultSettings

TICK = 0.1
"""Seconds between two pieces of a chunk that a bandwidth makes wait, as Toxiproxy has it."""

PARETO_SHAPE = 3.0
"""The shape of the Pareto distribution: its mean and its variance are finite."""

LONGEST_TAIL = 100
"""A draw of the Pareto distribution adds at most so many times the jitter."""


def draw(fault: FaultSettings, random: Random) -> float:
    """
    Draw a latency in seconds, never below 0.

    ``pareto`` is the latency and a Lomax variate (a Pareto variate that begins at 0) whose mean is
    the jitter.
    """
    jitter, base = fault.jitter, fault.latency
    if not jitter:
        return base
    if fault.distribution == "normal":
        return max(0.0, random.gauss(base, jitter))
    if fault.distribution == "pareto":
        excess = (random.paretovariate(PARETO_SHAPE) - 1) * (PARETO_SHAPE - 1)
        return base + jitter * min(LONGEST_TAIL, excess)
    return max(0.0, base + random.uniform(-jitter, jitter))


class Timing(Protocol):
    """
    When what waits first in a queue goes on.

    `one_each_turn`: whether each piece needs a turn of the reactor of its own.
    """

    one_each_turn: bool

    def piece(self, arrived: float, size: int) -> tuple[float, int]:
        """
        Return when the next piece of a chunk goes, and how many bytes it has.

        Called once for each piece.

        :param arrived: when the chunk came.
        :param size: how many bytes are left of the chunk.
        """

    def end(self, arrived: float) -> float:
        """Return when the end of the stream goes, or a reset, which came at `arrived`."""


class Latency:
    """Everything goes a latency after it came, in its order."""

    one_each_turn = False

    def __init__(self, fault: FaultSettings, random: Random) -> None:
        self._fault = fault
        self._random = random

    def piece(self, arrived: float, size: int) -> tuple[float, int]:
        return arrived + draw(self._fault, self._random), size

    def end(self, arrived: float) -> float:
        return arrived + draw(self._fault, self._random)


class Bandwidth:
    """Each byte takes its time on a line; a longer chunk goes in pieces, one each `TICK`."""

    one_each_turn = False

    def __init__(self, fault: FaultSettings, random: Random) -> None:
        self._rate = fault.rate
        self._free = -inf

    def piece(self, arrived: float, size: int) -> tuple[float, int]:
        if not self._rate:
            return inf, size
        count = min(size, max(1, int(self._rate * TICK)))
        self._free = max(arrived, self._free) + count / self._rate
        return self._free, count

    def end(self, arrived: float) -> float:
        return max(arrived, self._free) if self._rate else inf


class Slicer:
    """Chunks go in pieces whose sizes vary, with a delay between them."""

    one_each_turn = True

    def __init__(self, fault: FaultSettings, random: Random) -> None:
        self._fault = fault
        self._random = random
        self._next = -inf

    def piece(self, arrived: float, size: int) -> tuple[float, int]:
        fault = self._fault
        varies = self._random.randint(-fault.size_variation, fault.size_variation)
        when = max(arrived, self._next)
        self._next = when + fault.delay
        return when, min(size, max(1, fault.average_size + varies))

    def end(self, arrived: float) -> float:
        return arrived


class SlowClose:
    """Bytes go at once, and the end later."""

    one_each_turn = False

    def __init__(self, fault: FaultSettings, random: Random) -> None:
        self._delay = fault.delay

    def piece(self, arrived: float, size: int) -> tuple[float, int]:
        return arrived, size

    def end(self, arrived: float) -> float:
        return arrived + self._delay


class Stall:
    """Nothing goes until the fault is over."""

    one_each_turn = False

    def __init__(self, fault: FaultSettings, random: Random) -> None:
        """Nothing to keep."""

    def piece(self, arrived: float, size: int) -> tuple[float, int]:
        return inf, size

    def end(self, arrived: float) -> float:
        return inf
