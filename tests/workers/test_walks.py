"""What several workers see of their sessions, as one."""

from __future__ import annotations

import pickle
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from evproxy.admin.live.chosen import ChosenSessions, Found
from evproxy.admin.live.interval import Interval, sample_of
from evproxy.admin.live.orders import SORTS
from evproxy.admin.live.question import Question
from evproxy.admin.live.walk import Seen, Walker
from evproxy.engine.slices import SLICE
from evproxy.errors import SettingsError
from evproxy.model import Phase
from evproxy.records import SessionStatus
from evproxy.workers.messages import Walk
from evproxy.workers.walking import Walking
from evproxy.workers.walks import Walks, merged
from tests.support.admin import ANY_PORT
from tests.support.services import Ground


def interval(**fields: Any) -> Interval:
    """An interval of a second in which nothing happened, except for `fields`."""
    nothing = Interval(100.0, 1.0, 0, 0, 0, 0, 0, 0.0, 0.0, None)
    return nothing._replace(**fields)


@pytest.mark.parametrize(
    ("field", "parts", "whole"),
    [
        ("sessions", [{"sessions": 2}, {"sessions": 3}], 5),
        ("started", [{"started": 3}, {"started": 4}], 3.5),
        ("to_upstream", [{"to_upstream": 10}, {"to_upstream": 10, "seconds": 0.5}], 10.0),
        ("to_downstream", [{"to_downstream": 7}, {}], 3.5),
        (
            "connect_mean",
            [{"connects": 1, "connect_sum": 0.1}, {"connects": 3, "connect_sum": 0.7}],
            0.2,
        ),
        ("connect_mean", [{}, {}], None),
        (
            "connect_most",
            [{"connects": 1, "connect_most": 0.1}, {"connects": 3, "connect_most": 0.4}],
            0.4,
        ),
        ("connect_most", [{}, {}], None),
        ("lag", [{"lag": 0.1}, {"lag": 0.3}, {}], 0.3),
        ("lag", [{}, {}], None),
        ("at", [{}, {}], 7.5),
        ("sessions", [], 0),
        ("connect_mean", [], None),
    ],
)
def test_the_sample_of_workers(field: str, parts: list[dict[str, Any]], whole: object) -> None:
    """Sessions and bytes add up, however long a worker's own interval was."""
    sample = sample_of([interval(**each) for each in parts], 7.5, 2.0)
    assert getattr(sample, field) == (whole if whole is None else pytest.approx(whole))


def now(coroutine: Any) -> Any:
    """What `coroutine` returns without waiting."""
    found: list[Any] = []
    Deferred.fromCoroutine(coroutine).addCallback(found.append)
    [result] = found
    return result


def status(number: int, size: int) -> SessionStatus:
    """A session; many of them have the same size."""
    return SessionStatus(
        number,
        "web",
        f"10.0.0.{size}:1",
        Phase.RELAYING,
        "default",
        f"10.0.1.{size % 3}:80",
        "socket",
        1,
        0.0,
        0.001,
        float(size),
        size,
        size,
        route=f"r{size % 2}",
    )


def found_in(question: Question, sessions: list[SessionStatus]) -> Found:
    """The sessions that `question` means among `sessions`."""
    chosen = ChosenSessions(question)
    for each in sessions:
        chosen.look(each, float(each.bytes_to_upstream), 0.0)
    found: Found = now(chosen.found(Clock()))
    return found


@given(
    sizes=st.lists(st.integers(0, 5), max_size=40),
    workers=st.integers(1, 4),
    sort=st.sampled_from(sorted(SORTS)),
    order=st.sampled_from(["", "reversed"]),
    limit=st.integers(1, SLICE - 1),
    words=st.sampled_from(["", "r1", "10.0.1.2", "nowhere"]),
)
def test_the_same_sessions_as_in_one_process(
    sizes: list[int], workers: int, sort: str, order: str, limit: int, words: str
) -> None:
    """Filter, order and limit hold for the sessions of all workers."""
    question = Question(words, sort, order, limit)
    sessions = [status(number, size) for number, size in enumerate(sizes, 1)]
    one = found_in(question, sessions)
    parts = [
        Seen(found={question: found_in(question, sessions[number::workers])})
        for number in range(workers)
    ]
    whole = now(merged(Clock(), [question], parts)).found[question]
    assert whole.matching == one.matching
    assert list(whole.entries) == list(one.entries)


def test_listeners_and_rates_add_up() -> None:
    """Also those that only one worker has."""
    one = Seen({"a": 1, "b": 2}, {("p", "x"): (1.0, 2.0), ("p", "y"): (4.0, 0.0)})
    other = Seen({"b": 5}, {("p", "x"): (10.0, 20.0), ("q", "x"): (3.0, 3.0)})
    whole = now(merged(Clock(), [], [one, other]))
    assert whole.listeners == {"a": 1, "b": 7}
    assert whole.rates == {
        ("p", "x"): (11.0, 22.0),
        ("p", "y"): (4.0, 0.0),
        ("q", "x"): (3.0, 3.0),
    }


def test_no_worker_answers() -> None:
    """Then there is nothing to see, and every question has its answer."""
    question = Question()
    assert now(merged(Clock(), [question], [])).found == {question: Found([], 0)}


class Joined:
    """A worker and a supervisor with a channel of their own; messages are pickled as there."""

    number = 0

    def __init__(self, reactor: Any) -> None:
        self.walks = Walks()
        self.walking = Walking(reactor, self.tell)
        self.most = 0

    @property
    def channel(self) -> Joined:
        return self

    def ask(self, message: Walk) -> Deferred[Interval]:
        return self.walking.walk(copied(message))

    def tell(self, message: Any) -> None:
        self.most = max(self.most, *map(len, (message.entries, message.rates, message.listeners)))
        self.walks.received(self.number, copied(message))

    def walk(self, *questions: Question) -> Deferred[tuple[Interval, Seen]]:
        return self.walks.ask(cast(Any, self), questions)


def copied(message: Any) -> Any:
    return pickle.loads(pickle.dumps(message))


async def test_parts_become_a_whole_again(ground: Ground) -> None:
    """The supervisor sees what the worker has seen, with few sessions in each message."""
    service = ground.service(admin=ANY_PORT, max_sessions=100)
    service.startService()
    joined = Joined(ground.reactor)
    joined.walking.begin(service)
    for _ in range(SLICE + 3):
        await ground.session(service)
    few, many = Question(sort="id", limit=2), Question(sort="id", order="reversed", limit=500)
    # Both walk in turn, though they are asked for at once.
    first, second = joined.walk(few, many), joined.walk()
    told, seen = await first
    assert (told.sessions, told.started) == (SLICE + 3, SLICE + 3)
    assert list(seen.listeners.values()) == [SLICE + 3]
    assert len(seen.rates) == 1
    assert [number for _, number, _ in seen.found[few].entries] == [SLICE + 3, SLICE + 2]
    assert [number for _, number, _ in seen.found[many].entries] == [*range(1, SLICE + 4)]
    assert {each.matching for each in seen.found.values()} == {SLICE + 3}
    assert joined.most == SLICE
    next_one, seen = await second
    assert (next_one.started, next_one.to_upstream, seen) == (0, 0, Seen())
    assert told.until < next_one.until


async def test_a_worker_without_an_admin_interface(ground: Ground) -> None:
    """It has no traffic to tell, and pays nothing for it."""
    service = ground.service()
    joined = Joined(ground.reactor)
    joined.walking.begin(service)
    with pytest.raises(SettingsError, match="no admin interface"):
        await joined.walk()


async def test_sessions_of_a_replaced_worker(ground: Ground) -> None:
    """Those that began before, with the numbers in between, do not count as started."""
    service = ground.service(admin=ANY_PORT)
    service.admission.sessions.number_as(1, 3, after=1_000_000)
    service.startService()
    walker = Walker(ground.reactor, service)
    for _ in range(2):
        await ground.session(service)
    told, _ = await walker.walk(())
    assert told.started == 2
