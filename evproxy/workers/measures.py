"""
The measurements of workers as the supervisor gets them: in parts, which it puts together.
"""

from __future__ import annotations

from itertools import count

from attrs import define, evolve, field
from twisted.internet.defer import Deferred

from evproxy.observe.metrics.families import Numbers
from evproxy.observe.metrics.live import ServerKey
from evproxy.upstream.pool.status import ServerStatus
from evproxy.workers.messages import AT_THE_END, Measure, Measured
from evproxy.workers.process import WorkerProcess


@define
class _Parts:
    servers: list[tuple[str, ServerStatus]] = field(factory=list)
    bytes: dict[ServerKey, list[int]] = field(factory=dict)


class Measures:
    """The measurements under way."""

    def __init__(self) -> None:
        self._numbers = count(AT_THE_END + 1)
        self._parts: dict[tuple[int, int], _Parts] = {}

    def ask(self, process: WorkerProcess) -> Deferred[Numbers]:
        """Have `process` measure; the Deferred fires with all that it has told."""
        key = process.number, next(self._numbers)
        self._parts[key] = _Parts()
        asked: Deferred[Numbers] = process.channel.ask(Measure(key[1]))
        return asked.addBoth(self._ended, key)

    def received(self, worker: int, part: Measured) -> None:
        """`worker` has told a part; it is ignored if nobody waits for it any more."""
        key = worker, part.number
        if part.number == AT_THE_END:
            self._parts.setdefault(key, _Parts())
        parts = self._parts.get(key)
        if parts is not None:
            parts.servers += part.servers
            for server, up, down in part.bytes:
                parts.bytes[server] = [up, down]

    def at_the_end(self, worker: int, numbers: Numbers) -> Numbers:
        """`worker` ends with these `numbers`; return them with the parts that came before."""
        return _joined(numbers, self._parts.pop((worker, AT_THE_END), _Parts()))

    def died(self, worker: int) -> None:
        """`worker` has ended: forget parts that nothing follows."""
        self._parts.pop((worker, AT_THE_END), None)

    def _ended(self, result: object, key: tuple[int, int]) -> object:
        parts = self._parts.pop(key)
        return _joined(result, parts) if isinstance(result, Numbers) else result


def _joined(numbers: Numbers, parts: _Parts) -> Numbers:
    live = evolve(numbers.live, server_bytes=parts.bytes)
    return evolve(numbers, servers=parts.servers, live=live)
