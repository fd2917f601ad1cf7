"""
Asks all workers at once, each for a bounded time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ConnectionLost
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.admin.answers import Answer, Problem
from evproxy.admin.live.interval import Interval
from evproxy.admin.live.question import Question
from evproxy.admin.live.walk import Seen
from evproxy.config.sharing import whole_part
from evproxy.escape import printable
from evproxy.model import UpstreamServer
from evproxy.observe.metrics.families import Numbers
from evproxy.observe.metrics.family import Family
from evproxy.workers.measures import Measures
from evproxy.workers.messages import MeasureProcess, Operate, Repeat
from evproxy.workers.process import WorkerProcess
from evproxy.workers.slot import Slot
from evproxy.workers.totals import Totals
from evproxy.workers.walks import Walks

ANSWER_TIMEOUT = 5.0
"""Seconds within which a worker must have answered; then the answer of the whole leaves it out."""

_log = Logger(namespace="evproxy")

Told = Mapping[int, Answer]
"""What workers have answered, by their number from 0 on."""


class Crew:
    """
    The workers that a supervisor can ask.

    :param reactor: the timers.
    :param slots: the places of the workers.
    :param totals: keeps what they count.
    :param measures: puts together what they count.
    :param walks: puts together what they see of their sessions.
    """

    def __init__(
        self,
        reactor: Any,
        slots: Sequence[Slot],
        totals: Totals,
        measures: Measures,
        walks: Walks,
    ) -> None:
        self._reactor = reactor
        self._slots = slots
        self.totals = totals
        self._measures = measures
        self._walks = walks

    async def look(self) -> set[int]:
        """
        Have every worker tell its numbers to `totals`.

        :return: the numbers of those that did, from 0 on.
        """

        def looked(process: WorkerProcess) -> Deferred[Any]:
            return self._measures.ask(process).addCallback(partial(keep, process))

        def keep(process: WorkerProcess, numbers: Numbers) -> None:
            # It may have died, and its last numbers may count already.
            if self._slots[process.number].process is process:
                self.totals.told(process.number, numbers)

        return set(await self._answers({each.number: looked for each in self._serving()}))

    async def poll(self) -> tuple[int, int]:
        """Look, so that little is lost if a worker dies; return the most servers, and sessions."""
        await self.look()
        await self.totals.settle()
        last = [numbers for _, numbers in self.totals.each()]
        servers = max((len(each.servers) for each in last), default=0)
        return servers, sum(each.status.session_count for each in last)

    async def walk(self, questions: tuple[Question, ...]) -> dict[int, tuple[Interval, Seen]]:
        """
        Have every worker look at its sessions, except for those that are late already.

        :return: what each has seen, by their numbers from 0 on.
        """

        def ask(process: WorkerProcess) -> Deferred[Any]:
            return self._walks.ask(process, questions)

        serving = (slot.serving for slot in self._slots)
        wanted = [each.number for each in serving if each is not None and not each.late]
        return await self._answers(dict.fromkeys(wanted, ask))

    async def processes(self, workers: Iterable[int]) -> dict[int, tuple[Family, ...]]:
        """Return the metric families of the processes of `workers`, by their numbers from 0 on."""
        return await self._ask({number: MeasureProcess() for number in workers})

    async def ask(self, wanted: Operate, only: int | None = None) -> Told:
        """
        Run an operation in every worker that serves, or in `only` one.

        :raises Problem: if no worker has answered.
        """
        asked = {
            each.number: self._part(wanted, each.number)
            for each in self._serving()
            if only in (None, each.number)
        }
        told = await self._ask(asked)
        # Those that have ended meanwhile have nothing to say.
        left = [self._slots[number].serving for number in asked]
        if not told and any(each is not None and not each.gone for each in left):
            raise Problem(503, f"no worker has answered within {ANSWER_TIMEOUT:g} s")
        return told

    async def change(self, wanted: Operate) -> Told:
        """
        Change every worker; one that still starts does it once it serves.

        A worker that dies meanwhile is left out: see `repeat` for the process in its place.

        :raises Refused: if every worker refuses.
        :raises Problem: if some refuse, if one does not answer, or if all have died.
        """
        serving = self._serving()
        for slot in self._slots:
            if slot.process is not None and slot not in serving:
                self.repeat(slot.process, [wanted])
        told = await self.ask_all(
            wanted, so=": each worker makes the change, one that hangs when it goes on"
        )
        if not told:
            raise Problem(
                503, "every worker has died: the processes in their place make this change"
            )
        refuse(told)
        return told

    async def ask_all(self, wanted: Operate, so: str = "") -> Told:
        """
        Run an operation in every worker that serves, except for those that die meanwhile.

        :param so: what it means if one of them does not answer, for the end of the error's line.
        :raises Problem: if one of them does not answer.
        """
        serving = self._serving()
        lost: set[int] = set()
        told = await self._ask(
            {each.number: self._part(wanted, each.number) for each in serving}, lost
        )
        missing = [each.number for each in serving if each.number not in {*told, *lost}]
        if missing:
            numbers = ", ".join(str(number + 1) for number in missing)
            raise Problem(504, f"no answer within {ANSWER_TIMEOUT:g} s from worker {numbers}{so}")
        return told

    def repeat(self, process: WorkerProcess, changes: Iterable[Operate]) -> None:
        """Have `process`, which still starts, make `changes` before all else."""
        for each in changes:
            asked = process.channel.ask(Repeat(self._part(each, process.number)))
            # If it fails, the process ends, or has not begun to serve.
            asked.addCallbacks(partial(_repeated, process.number, each), lambda _: None)

    def _serving(self) -> list[Slot]:
        return [slot for slot in self._slots if slot.serving is not None]

    def _part(self, wanted: Operate, worker: int) -> Operate:
        """What `worker` is asked: it has its part of the bound of a server."""
        server = wanted.body
        if not isinstance(server, UpstreamServer) or not server.max_sessions:
            return wanted
        bound = whole_part(server.max_sessions, worker, len(self._slots))
        return evolve(wanted, body=evolve(server, max_sessions=bound))

    async def _ask(
        self, wanted: Mapping[int, object], lost: set[int] | None = None
    ) -> dict[int, Any]:
        def asking(message: object) -> Callable[[WorkerProcess], Deferred[Any]]:
            return lambda process: process.channel.ask(message)

        asked = {number: asking(each) for number, each in wanted.items()}
        return await self._answers(asked, lost)

    async def _answers(
        self,
        ask: Mapping[int, Callable[[WorkerProcess], Deferred[Any]]],
        lost: set[int] | None = None,
    ) -> dict[int, Any]:
        """
        Ask each worker with its function; return the answers of those that gave one in time.

        :param lost: gets the numbers of those that have ended before they answered.
        """
        told: dict[int, Any] = {}

        def failed(failure: Failure, number: int) -> None:
            if lost is not None and failure.check(ConnectionLost):
                lost.add(number)

        asked = []
        for number, asking in ask.items():
            process = self._slots[number].serving
            if process is not None:
                answer = asking(process).addTimeout(ANSWER_TIMEOUT, self._reactor)
                answer.addCallbacks(
                    partial(told.__setitem__, number), failed, errbackArgs=(number,)
                )
                asked.append(answer)
        await DeferredList(asked)
        return told


def _repeated(worker: int, change: Operate, answer: Answer) -> None:
    # The server may be gone by now, or there already.
    if answer.code >= 400 and answer.code not in (404, 409):
        _log.warn(
            "worker {number} does not repeat {change} of pool {pool}: {why}",
            number=worker + 1,
            change=change.name,
            pool=printable(change.places["pool"]),
            why=json.loads(answer.body)["error"],
        )


class Refused(Problem):
    """Every worker has refused, so nothing has changed."""


def refuse(told: Told) -> None:
    """
    Return if no worker has refused.

    :raises Refused: if all have; with the line of the first one.
    :raises Problem: if some have; with the line of the first one, and its number.
    """
    refused = {number: each for number, each in told.items() if each.code >= 400}
    for number, answer in refused.items():
        line = json.loads(answer.body)["error"]
        if len(refused) == len(told):
            raise Refused(answer.code, line)
        raise Problem(answer.code, f"worker {number + 1} refuses: {line}")


def bodies(told: Told) -> list[Any]:
    """The JSON of each answer, in the order of the workers."""
    return [json.loads(told[number].body) for number in sorted(told)]
