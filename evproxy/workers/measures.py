"""
The measurements of workers as the supervisor gets them: in parts, which it puts together.
"""

from __future__ import annotations

from attrs import define, evolve, field
from twisted.internet.defer import Deferred

from evproxy.observe.metrics.families import Numbers
from evproxy.observe.metrics.live import ServerKey
from evproxy.upstream.pool.status import ServerStatus
from evproxy.workers.messages import AT_THE_END, Measure, Measured
from evproxy.workers.process import WorkerProcess
from evproxy.workers.questions import Questions


@define
class _Parts:
    servers: list[tuple[str, ServerStatus]] = field(factory=list)
    bytes: dict[ServerKey, list[int]] = field(factory=dict)

    def add(self, part: Measured) -> None:
        self.servers += part.servers
        for server, up, down in part.bytes:
            self.bytes[server] = [up, down]

    def joined(self, answer: Numbers) -> Numbers:
        live = evolve(answer.live, server_bytes=self.bytes)
        return evolve(answer, servers=self.servers, live=live)


class Measures:
    """The measurements under way."""

    def __init__(self) -> None:
        self._asked: Questions[Measured, Numbers] = Questions()
        self._last: dict[int, _Parts] = {}

    def ask(self, process: WorkerProcess) -> Deferred[Numbers]:
        """Have `process` measure; the Deferred fires with all that it has told."""
        return self._asked.ask(process, Measure, _Parts())

    def received(self, worker: int, part: Measured) -> None:
        """`worker` has told a part; it is ignored if nobody waits for it any more."""
        if part.number == AT_THE_END:
            self._last.setdefault(worker, _Parts()).add(part)
        else:
            self._asked.received(worker, part.number, part)

    def at_the_end(self, worker: int, numbers: Numbers) -> Numbers:
        """`worker` ends with these `numbers`; return them with the parts that came before."""
        return self._last.pop(worker, _Parts()).joined(numbers)

    def died(self, worker: int) -> None:
        """`worker` has ended: forget parts that nothing follows."""
        self._last.pop(worker, None)
