"""
Asks all workers at once, each for a bounded time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from attrs import evolve
from twisted.internet.defer import DeferredList

from evproxy.admin.answers import Answer, Problem
from evproxy.config.sharing import whole_part
from evproxy.model import UpstreamServer
from evproxy.workers import messages
from evproxy.workers.messages import Operate
from evproxy.workers.process import WorkerProcess
from evproxy.workers.slot import Slot
from evproxy.workers.totals import Totals

ANSWER_TIMEOUT = 5.0
"""Seconds within which a worker must have answered; then the answer of the whole leaves it out."""

Told = Mapping[int, Answer]
"""What workers have answered, by their number from 0 on."""


class Crew:
    """
    The workers that a supervisor can ask.

    :param reactor: the timers.
    :param slots: the places of the workers.
    :param totals: keeps what they tell of their status.
    """

    def __init__(self, reactor: Any, slots: Sequence[Slot], totals: Totals) -> None:
        self._reactor = reactor
        self._slots = slots
        self._totals = totals

    async def look(self) -> set[int]:
        """Have every worker tell its status to `Totals`; return the numbers of those that did."""
        told = await self._ask({each.number: messages.Status(0) for each in self._serving()})
        for number, status in told.items():
            self._totals.told(number, status)
        return set(told)

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
        if not told and asked:
            raise Problem(503, f"no worker has answered within {ANSWER_TIMEOUT:g} s")
        return told

    async def change(self, wanted: Operate) -> Told:
        """
        Change every worker; one that still starts does it once it serves.

        :raises Problem: if a worker refuses, or does not answer.
        """
        serving = self._serving()
        for slot in self._slots:
            if slot.process is not None and slot not in serving:
                self.repeat(slot.process, [wanted])
        told = await self._ask({each.number: self._part(wanted, each.number) for each in serving})
        missing = [each.number for each in serving if each.number not in told]
        if missing:
            numbers = ", ".join(str(number + 1) for number in missing)
            raise Problem(504, f"no answer within {ANSWER_TIMEOUT:g} s from worker {numbers}")
        refuse(told)
        return told

    def repeat(self, process: WorkerProcess, changes: Iterable[Operate]) -> None:
        """Have `process`, which still starts, make `changes` before all else."""
        for each in changes:
            asked = process.channel.ask(self._part(each, process.number))
            # A server that is gone by now, or a process that ends.
            asked.addErrback(lambda _: None)

    def _serving(self) -> list[Slot]:
        return [slot for slot in self._slots if slot.serving is not None]

    def _part(self, wanted: Operate, worker: int) -> Operate:
        """What `worker` is asked: it has its part of the bound of a server."""
        server = wanted.body
        if not isinstance(server, UpstreamServer) or not server.max_sessions:
            return wanted
        bound = whole_part(server.max_sessions, worker, len(self._slots))
        return evolve(wanted, body=evolve(server, max_sessions=bound))

    async def _ask(self, wanted: Mapping[int, object]) -> dict[int, Any]:
        told: dict[int, Any] = {}
        asked = []
        for number, message in wanted.items():
            process = self._slots[number].serving
            if process is not None:
                answer = process.channel.ask(message).addTimeout(ANSWER_TIMEOUT, self._reactor)
                answer.addCallback(partial(told.__setitem__, number))
                asked.append(answer)
        await DeferredList(asked, consumeErrors=True)
        return told


def refuse(told: Told) -> None:
    """
    Return if no worker has refused.

    :raises Problem: that of the first worker that has; with its number, unless all have.
    """
    refused = {number: each for number, each in told.items() if each.code >= 400}
    for number, answer in refused.items():
        line = json.loads(answer.body)["error"]
        if len(refused) < len(told):
            line = f"worker {number + 1} refuses: {line}"
        raise Problem(answer.code, line)


def bodies(told: Told) -> list[Any]:
    """The JSON of each answer, in the order of the workers."""
    return [json.loads(told[number].body) for number in sorted(told)]
