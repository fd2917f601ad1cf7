"""The operations of the admin interface on all workers, some of which do not serve."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from evproxy.admin.answers import Answer, Problem, as_json
from evproxy.admin.operations import Asked, Context, Operation
from evproxy.admin.servers import NewWeight
from evproxy.admin.waits import ForWhat
from evproxy.model import UpstreamServer
from evproxy.settings import Settings
from evproxy.workers.admin.changes import MadeChanges
from evproxy.workers.admin.crew import ANSWER_TIMEOUT, Crew
from evproxy.workers.admin.operations import WholeOperations
from evproxy.workers.measures import Measures
from evproxy.workers.messages import Operate
from evproxy.workers.totals import Totals
from evproxy.workers.walks import Walks

OK = as_json({"met": True})
NAME = "127.0.0.1:1"
PLACES = {"pool": "web", "server": NAME}


class FakeProcess:
    """A process of a worker, and its channel; it answers what `answers` has, or dies, or hangs."""

    def __init__(self, number: int, serves: bool = True) -> None:
        self.number = number
        self.serves = serves
        self.gone = False
        self.late = False
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self._open: list[tuple[str, Deferred[Any]]] = []

    @property
    def channel(self) -> FakeProcess:
        return self

    def ask(self, message: object) -> Deferred[Any]:
        if self.gone:
            return fail(ConnectionLost())
        name = message.name if isinstance(message, Operate) else type(message).__name__
        self.asked.append(name)
        answer: Deferred[Any] = Deferred()
        if name in self.answers:
            answer.callback(self.answers[name])
        else:
            self._open.append((name, answer))
        return answer

    def answer(self, name: str, answer: Answer) -> None:
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
        operations = WholeOperations(cast(Any, self), self.crew, self.made).all
        self.operations: dict[str, Operation] = {each.name: each for each in operations}

    def begin(self, name: str, places: Any = None, query: Any = None, body: Any = None) -> Asking:
        """Run an operation."""
        context = Context(self.clock, cast(Any, self), "1")
        run = cast(Callable[..., Any], self.operations[name].run)
        return Asking(self.clock, run(context, Asked(places or {}, query, body)))


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


def is_met(whole: Whole, until: str) -> bool:
    query = ForWhat(until, "" if until == "no-sessions" else "web", NAME, timeout=0.5)
    return bool(whole.begin("wait", query=query).json()["met"])


CONDITIONS = ("server-up", "server-down", "server-drained", "server-gone", "no-sessions")


@pytest.mark.parametrize("until", CONDITIONS)
def test_nothing_holds_before_a_worker_serves(until: str) -> None:
    """A script that waits for a server must not go on before anybody listens."""
    assert not is_met(Whole(None, None), until)
    assert not is_met(Whole(FakeProcess(0, serves=False)), until)


def test_a_worker_that_starts_does_not_meet_a_condition() -> None:
    """It counts once it serves, or once it has gone for good."""
    serves, starts = FakeProcess(0), FakeProcess(1, serves=False)
    serves.answer("wait", OK)
    whole = Whole(serves, starts)
    assert not is_met(whole, "server-up")
    whole.stops = True
    assert is_met(whole, "server-up")


@pytest.mark.parametrize(
    ("until", "met"), [("no-sessions", True), ("server-gone", True), ("server-up", False)]
)
def test_conditions_after_a_drain(until: str, met: bool) -> None:
    """Without any worker there are no sessions, and no server that is up."""
    whole = Whole(None, None)
    whole.stops = True
    assert is_met(whole, until) == met


CHANGES = [
    ("add_server", {"pool": "web"}, UpstreamServer(NAME)),
    ("weigh_server", PLACES, NewWeight(7)),
    ("drain_server", PLACES, None),
    ("remove_server", PLACES, None),
    ("end_sessions", PLACES, None),
]


@pytest.mark.parametrize(("name", "places", "body"), CHANGES)
def test_no_change_before_a_worker_serves(name: str, places: Any, body: Any) -> None:
    """The answer says so, and nothing is changed later."""
    starts = FakeProcess(0, serves=False)
    whole = Whole(starts, None)
    with pytest.raises(Problem, match=r"^no worker serves yet$") as raised:
        whole.begin(name, places, body=body).json()
    assert raised.value.code == 503
    assert raised.value.code in whole.operations[name].problems
    assert (list(whole.made), starts.asked) == ([], [])


FOUND = as_json({})


def starting(whole: Whole, number: int) -> FakeProcess:
    """A process begins, and gets the changes, as from `evproxy.workers.supervisor`."""
    process = FakeProcess(number, serves=False)
    whole.slots[number].process = process
    whole.crew.repeat(cast(Any, process), whole.made)
    return process


def test_a_process_that_starts_during_a_change_gets_it() -> None:
    """It gets the change once: from those made so far, or as one that starts."""
    one, early = FakeProcess(0), FakeProcess(1, serves=False)
    one.answer("show_server", FOUND)
    whole = Whole(one, early, None)
    change = whole.begin("remove_server", PLACES)
    late = starting(whole, 2)
    assert not change.over
    one.answer("remove_server", as_json({"sessions": 0}))
    assert change.json() == {"removed": True, "sessions": 0}
    assert (early.asked, late.asked) == (["remove_server"], ["remove_server"])


def test_a_worker_that_hangs_during_a_change_is_replaced_by_one_that_makes_it() -> None:
    """The others have made the change, so a process in its place makes it, too."""
    one, hung = FakeProcess(0), FakeProcess(1)
    for each in (one, hung):
        each.answer("show_server", FOUND)
    one.answer("remove_server", as_json({"sessions": 0}))
    whole = Whole(one, hung)
    with pytest.raises(Problem, match="no answer within 5 s from worker 2"):
        whole.begin("remove_server", PLACES).json()
    assert starting(whole, 1).asked == ["remove_server"]


def test_a_worker_that_dies_during_a_change_is_no_problem() -> None:
    """The process in its place makes the change."""
    one, dies = FakeProcess(0), FakeProcess(1)
    for each in (one, dies):
        each.answer("show_server", FOUND)
    one.answer("remove_server", as_json({"sessions": 3}))
    whole = Whole(one, dies)
    change = whole.begin("remove_server", PLACES)
    dies.dies()
    assert change.over
    assert change.json()["sessions"] == 3
    assert starting(whole, 1).asked == ["remove_server"]


def test_all_workers_die_during_a_change() -> None:
    """The answer says who makes the change."""
    dies = FakeProcess(0)
    dies.answer("show_server", FOUND)
    whole = Whole(dies)
    change = whole.begin("drain_server", PLACES)
    dies.dies()
    with pytest.raises(Problem, match=r"every worker has died: .* make this change"):
        change.json()
    assert starting(whole, 0).asked == ["drain_server"]


def test_all_workers_die_before_a_change() -> None:
    """Nobody knows whether there is such a server, so nothing is changed."""
    dies = FakeProcess(0)
    whole = Whole(dies)
    change = whole.begin("drain_server", PLACES)
    dies.dies()
    with pytest.raises(Problem, match="no worker serves yet"):
        change.json()
    assert list(whole.made) == []


REFUSAL = Problem(409, "in use").answer


def test_a_change_that_all_workers_refuse() -> None:
    """Nothing has changed, and what it would have replaced is made again."""
    one = FakeProcess(0)
    one.answer("show_server", FOUND)
    one.answer("drain_server", REFUSAL)
    whole = Whole(one)
    before = [Operate("resume_server", PLACES), Operate("weigh_server", PLACES, None, NewWeight(7))]
    for each in before:
        whole.made.add(each)
    with pytest.raises(Problem, match=r"^in use$"):
        whole.begin("drain_server", PLACES).json()
    assert sorted(whole.made, key=repr) == sorted(before, key=repr)


def test_a_change_that_one_worker_refuses() -> None:
    """The others have made it, so a process that is new makes it, too."""
    one, other = FakeProcess(0), FakeProcess(1)
    for each in (one, other):
        each.answer("show_server", FOUND)
    one.answer("drain_server", FOUND)
    other.answer("drain_server", REFUSAL)
    whole = Whole(one, other)
    with pytest.raises(Problem, match=r"^worker 2 refuses: in use$"):
        whole.begin("drain_server", PLACES).json()
    assert starting(whole, 1).asked == ["drain_server"]


@pytest.mark.parametrize(("code", "lines"), [(200, 0), (400, 1), (404, 0), (409, 0), (500, 1)])
def test_a_change_that_a_new_process_refuses(code: int, lines: int) -> None:
    """The log says so, unless the server is gone by now, or there already."""
    whole = Whole(FakeProcess(0))
    whole.made.add(Operate("add_server", {"pool": "web"}, None, UpstreamServer(NAME)))
    with capturedLogs() as logged:
        starting(whole, 0).answer("add_server", Problem(code, "endpoint: bad").answer)
    texts = [formatEvent(each) for each in logged]
    line = "worker 1 does not repeat add_server of pool web: endpoint: bad"
    assert texts == [line] * lines
