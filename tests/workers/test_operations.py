"""The operations of the admin interface on all workers, some of which do not serve."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent

from evproxy.admin import servers, sessions, waits, whole
from evproxy.admin.answers import Problem, as_json
from evproxy.admin.metrics import Scrape
from evproxy.admin.servers import HowToEnd, NewWeight
from evproxy.admin.sessions import Which
from evproxy.admin.waits import ForWhat
from evproxy.model import UpstreamServer
from evproxy.workers.admin.metrics import AllWorkers
from evproxy.workers.admin.operations import OWN
from evproxy.workers.messages import Operate
from tests.support.fake_workers import FakeProcess, Whole
from tests.workers.test_totals import numbers

OK = as_json({"met": True})
NAME = "127.0.0.1:1"
PLACES = {"pool": "web", "server": NAME}


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
    said = "from worker 2: each worker makes the change, one that hangs when it goes on$"
    with pytest.raises(Problem, match=said):
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


def test_a_list_of_sessions_needs_every_worker() -> None:
    """A list without the sessions of a worker that hangs would look as if they had ended."""
    one, hung = FakeProcess(0), FakeProcess(1)
    one.answer("list_sessions", as_json({"sessions": [{"id": 1}], "next": None, "total": 1}))
    whole = Whole(one, hung)
    with pytest.raises(Problem, match="no answer within 5 s from worker 2") as raised:
        whole.begin("list_sessions", query=Which()).json()
    assert raised.value.code in whole.operations["list_sessions"].problems
    asking = whole.begin("list_sessions", query=Which())
    hung.dies()
    assert asking.json()["total"] == 1


def test_processes_that_start_have_no_sessions_to_end() -> None:
    """Only workers that serve are asked to end the sessions of a server."""
    one, starts = FakeProcess(0), FakeProcess(1, serves=False)
    one.answer("end_sessions", as_json({"sessions": 3}))
    running = Whole(one, starts)
    assert running.begin("end_sessions", PLACES, body=HowToEnd()).json()["sessions"] == 3
    assert starts.asked == []


def test_two_scrapes_at_once() -> None:
    """Each says which workers have answered to itself."""
    one, other = FakeProcess(0), FakeProcess(1)
    whole = Whole(one, other)
    source = AllWorkers(whole.context, cast(Any, whole), whole.crew)
    scrapes: list[Scrape] = []

    def scrape() -> None:
        Deferred.fromCoroutine(source.numbers()).addCallback(scrapes.append)

    for each in (one, other):
        each.answer("Measure", numbers())
    scrape()
    del other.answers["Measure"]
    scrape()
    other.dies()
    up = [
        [value for _, _, value in family.samples]
        for each in scrapes
        for _, families in source.more(each)
        for family in families()
        if family.name == "evproxy_worker_up"
    ]
    assert up == [[1, 1], [1, 0]]


def test_every_operation_is_one_of_all_workers() -> None:
    """None of one process runs against the supervisor, except for those that it can run."""
    declared = (*whole.OPERATIONS, *servers.OPERATIONS, *sessions.OPERATIONS, *waits.OPERATIONS)
    shared = {each.name: each for each in Whole().operations.values()}
    same = [each.name for each in declared if shared[each.name].run is each.run]
    assert (sorted(same), len(shared)) == (sorted(OWN), len(declared))
