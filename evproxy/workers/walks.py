"""
The walks of workers as the supervisor gets them: in parts, which it puts together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from evproxy.admin.live.chosen import Entry, Found, in_order
from evproxy.admin.live.interval import Interval
from evproxy.admin.live.question import Question
from evproxy.admin.live.walk import Rates, Seen, add_rates
from evproxy.engine.slices import in_slices
from evproxy.observe.metrics.live import ServerKey
from evproxy.workers.messages import Walk, Walked
from evproxy.workers.process import WorkerProcess
from evproxy.workers.questions import Questions


@define
class _Parts:
    questions: tuple[Question, ...]
    listeners: dict[str, int] = field(factory=dict)
    rates: dict[ServerKey, Rates] = field(factory=dict)
    entries: dict[int, list[Entry]] = field(factory=dict)
    matching: dict[int, int] = field(factory=dict)

    def add(self, part: Walked) -> None:
        self.listeners.update(part.listeners)
        self.rates.update(part.rates)
        if part.question is not None:
            place = part.question
            self.entries.setdefault(place, []).extend(part.entries)
            self.matching[place] = self.matching.get(place, 0) + part.matching

    def joined(self, answer: Interval) -> tuple[Interval, Seen]:
        found = {
            question: Found(self.entries.get(place, ()), self.matching.get(place, 0))
            for place, question in enumerate(self.questions)
        }
        return answer, Seen(self.listeners, self.rates, found)


class Walks:
    """The walks under way."""

    def __init__(self) -> None:
        self._asked: Questions[Walked, tuple[Interval, Seen]] = Questions()

    def ask(
        self, process: WorkerProcess, questions: tuple[Question, ...]
    ) -> Deferred[tuple[Interval, Seen]]:
        """Have `process` look at its sessions; the Deferred fires with all that it has told."""
        return self._asked.ask(process, lambda number: Walk(number, questions), _Parts(questions))

    def received(self, worker: int, part: Walked) -> None:
        """`worker` has told a part; it is ignored if nobody waits for it any more."""
        self._asked.received(worker, part.number, part)


async def merged(reactor: Any, questions: Iterable[Question], seen: Sequence[Seen]) -> Seen:
    """
    Return what several workers have seen as one: sums, and the first sessions of all.

    :param reactor: Twisted's; rates and sessions are merged in slices.
    :param questions: what viewers want to see.
    :param seen: what each worker has seen.
    """
    listeners: dict[str, int] = {}
    rates: dict[ServerKey, Rates] = {}

    def add(item: tuple[ServerKey, Rates]) -> None:
        add_rates(rates, item[0], *item[1])

    for each in seen:
        for name, sessions in each.listeners.items():
            listeners[name] = listeners.get(name, 0) + sessions
        await in_slices(reactor, iter(each.rates.items()), add)
    found = {}
    for question in questions:
        parts = [each.found[question] for each in seen]
        entries = in_order(question, [part.entries for part in parts])
        first = await in_slices(reactor, entries, lambda entry: entry)
        found[question] = Found(first, sum(part.matching for part in parts))
    return Seen(listeners, rates, found)
