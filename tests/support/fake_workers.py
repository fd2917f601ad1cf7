"""A supervisor, as the operations of the admin interface see it, whose workers are no processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock

from evproxy.admin.answers import Answer
from evproxy.admin.operations import Asked, Context, Operation
from evproxy.settings import Settings
from evproxy.workers.admin.changes import MadeChanges
from evproxy.workers.admin.crew import ANSWER_TIMEOUT, Crew
from evproxy.workers.admin.operations import WholeOperations
from evproxy.workers.measures import Measures
from evproxy.workers.messages import Operate, Repeat
from evproxy.workers.replacement import Replacement
from evproxy.workers.totals import Totals
from evproxy.workers.walks import Walks


class FakeProcess:
    """A process of a worker, and its channel; it answers what `answers` has, or dies, or hangs."""

    def __init__(self, number: int, serves: bool = True) -> None:
        self.number = number
        self.serves = serves
        self.gone = False
        self.late = False
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        self._open: list[tuple[str, Deferred[Any]]] = []

    @property
    def channel(self) -> FakeProcess:
        return self

    def ask(self, message: object) -> Deferred[Any]:
        if self.gone:
            return fail(ConnectionLost())
        if isinstance(message, Repeat):
            message = message.change
        name = message.name if isinstance(message, Operate) else type(message).__name__
        self.asked.append(name)
        answer: Deferred[Any] = Deferred()
        if name in self.answers:
            answer.callback(self.answers[name])
        else:
            self._open.append((name, answer))
        return answer

    def answer(self, name: str, answer: Any) -> None:
        """Answer all questions of this name, so far and from now on."""
        self.answers[name] = answer
        left, self._open = self._open, []
        for asked, deferred in left:
            if asked == name:
                deferred.callback(answer)
            else:
                self._open.append((asked, deferred))

    def dies(self) -> None:
        self.gone = True
        left, self._open = self._open, []
        for _, deferred in left:
            deferred.errback(ConnectionLost())


class FakeSlot:
    """The place of a worker."""

    def __init__(self, number: int, process: FakeProcess | None) -> None:
        self.number = number
        self.process = process

    @property
    def replacement(self) -> Replacement:
        return Replacement()

    @property
    def serving(self) -> FakeProcess | None:
        return self.process if self.process is not None and self.process.serves else None


class Whole:
    """
    A supervisor whose workers have these processes.

    ``None``: the worker has none.
    """

    def __init__(self, *processes: FakeProcess | None) -> None:
        self.clock = Clock()
        self.settings = Settings()
        self.slots = [FakeSlot(number, each) for number, each in enumerate(processes)]
        self.stops = self.has_drained = False
        self.made = MadeChanges()
        totals = Totals(self.clock, len(self.slots))
        slots = cast(Any, self.slots)
        self.crew = Crew(self.clock, slots, totals, Measures(), Walks())
        self.context = Context(self.clock, cast(Any, self), "1")
        operations = WholeOperations(cast(Any, self), self.crew, self.made).all
        self.operations: dict[str, Operation] = {each.name: each for each in operations}

    def loop_status(self) -> None:
        """There is no watchdog."""

    def begin(self, name: str, places: Any = None, query: Any = None, body: Any = None) -> Asking:
        """Run an operation."""
        run = cast(Callable[..., Any], self.operations[name].run)
        return Asking(self.clock, run(self.context, Asked(places or {}, query, body)))


class Asking:
    """An operation under way."""

    def __init__(self, clock: Clock, coroutine: Any) -> None:
        self._clock = clock
        self._found: list[Any] = []
        Deferred.fromCoroutine(coroutine).addBoth(self._found.append)

    @property
    def over(self) -> bool:
        return bool(self._found)

    def json(self) -> Any:
        """The answer, which comes within the time limits of two questions."""
        for _ in range(100):
            if self.over:
                break
            self._clock.advance(ANSWER_TIMEOUT / 50)
        [found] = self._found
        return json.loads(found.body) if isinstance(found, Answer) else found.raiseException()
