"""
Questions to workers that are answered in parts, which come as messages before the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from evproxy.workers.messages import AT_THE_END
from evproxy.workers.process import WorkerProcess

Part_contra = TypeVar("Part_contra", contravariant=True)
Whole_co = TypeVar("Whole_co", covariant=True)
Part = TypeVar("Part")
Whole = TypeVar("Whole")


class Parts(Protocol[Part_contra, Whole_co]):
    """What a worker has told so far."""

    def add(self, part: Part_contra) -> None:
        """The worker has told `part`."""

    def joined(self, answer: Any) -> Whole_co:
        """Return all that the worker has told; `answer` is the last of it."""


class Questions(Generic[Part, Whole]):
    """The questions under way; each has a number of its own, from `AT_THE_END` + 1 on."""

    def __init__(self) -> None:
        self._numbers = count(AT_THE_END + 1)
        self._parts: dict[tuple[int, int], Parts[Part, Whole]] = {}

    def ask(
        self, process: WorkerProcess, message: Callable[[int], object], parts: Parts[Part, Whole]
    ) -> Deferred[Whole]:
        """
        Ask `process`.

        :param message: makes the question with this number.
        :param parts: puts together what `process` tells.
        :return: fires with all that it has told.
        """
        number = next(self._numbers)
        key = process.number, number
        self._parts[key] = parts
        asked: Deferred[Any] = process.channel.ask(message(number))
        return asked.addBoth(self._ended, key)

    def received(self, worker: int, number: int, part: Part) -> None:
        """`worker` has told a part; it is ignored if nobody waits for it any more."""
        parts = self._parts.get((worker, number))
        if parts is not None:
            parts.add(part)

    def _ended(self, result: object, key: tuple[int, int]) -> object:
        parts = self._parts.pop(key)
        return result if isinstance(result, Failure) else parts.joined(result)
