"""
Times the garbage collections of the process.

A collection runs in C code within whatever call made an object, and holds the interpreter lock.  So
it must not count as a fault of that call.
"""

from __future__ import annotations

import gc
from time import monotonic
from typing import Any

from attrs import frozen

NOTABLE = 0.001
"""Seconds from which on a collection is remembered by itself."""

KEPT = 16
"""The most collections that are remembered until the watchdog looks at them."""


@frozen
class Collection:
    """A garbage collection: its generation, its end in monotonic time, and how long it took."""

    generation: int
    ended: float
    seconds: float
    collected: int


class Collections:
    """
    The garbage collections between `start` and `stop`.

    `began`: the monotonic time at which the collection in progress began; ``None``: there is none.
    `recent`: the latest notable ones; a new tuple for each.  `count`, `seconds`: of those that are
    over.  `longest`: the seconds of the longest.
    """

    def __init__(self) -> None:
        self.began: float | None = None
        self.count = 0
        self.seconds = 0.0
        self.longest = 0.0
        self.recent: tuple[Collection, ...] = ()

    def start(self) -> None:
        """Time collections from now on."""
        gc.callbacks.append(self._called)

    def stop(self) -> None:
        """Time no more collections."""
        gc.callbacks.remove(self._called)
        self.began = None

    def _called(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self.began = monotonic()
        elif self.began is not None:
            ended = monotonic()
            seconds = ended - self.began
            if seconds >= NOTABLE:
                # A new tuple, because another thread may be reading the old one.
                new = Collection(info["generation"], ended, seconds, info["collected"])
                self.recent = (*self.recent[1 - KEPT :], new)
            self.count += 1
            self.seconds += seconds
            self.longest = max(self.longest, seconds)
            self.began = None
