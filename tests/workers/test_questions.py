"""Questions to workers that are answered in parts."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost

from evproxy.workers.measures import Measures
from evproxy.workers.messages import AT_THE_END, Measured
from evproxy.workers.questions import Questions
from tests.support.fake_workers import FakeProcess
from tests.workers.test_totals import KEY, numbers


class Words:
    """The parts of an answer."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def add(self, part: str) -> None:
        self.words.append(part)

    def joined(self, answer: str) -> str:
        return " ".join([*self.words, answer])


class Asking:
    """A worker that is asked twice at once."""

    def __init__(self) -> None:
        self.questions: Questions[str, str] = Questions()
        self.process = FakeProcess(1)
        self.numbers: list[int] = []
        self.first, self.second = self.ask(), self.ask()

    def ask(self) -> Deferred[str]:
        return self.questions.ask(cast(Any, self.process), self.message, Words())

    def message(self, number: int) -> object:
        self.numbers.append(number)
        return number


def test_parts_of_two_questions() -> None:
    """Each question gets its own parts, and none of another worker."""
    asking = Asking()
    first, second = asking.numbers
    for worker, number, word in (
        (1, second, "c"),
        (1, first, "a"),
        (0, first, "x"),
        (1, first, "b"),
        (1, second + 1, "y"),
    ):
        asking.questions.received(worker, number, word)
    found: list[str] = []
    asking.first.addCallback(found.append)
    asking.second.addCallback(found.append)
    asking.process.answer("int", "!")
    asking.questions.received(1, first, "late")
    assert found == ["a b !", "c !"]


def test_a_worker_that_dies() -> None:
    """The question fails, and what follows is ignored."""
    asking = Asking()
    failures: list[Any] = []
    for each in (asking.first, asking.second):
        each.addErrback(failures.append)
    asking.questions.received(1, asking.numbers[0], "a")
    asking.process.dies()
    with pytest.raises(ConnectionLost):
        failures[0].raiseException()
    asking.questions.received(1, asking.numbers[0], "b")
    assert len(failures) == 2


def test_measurements_that_nobody_asked_for() -> None:
    """The last numbers of a worker have their parts, unless it died before it told them."""
    measures, told = Measures(), numbers(total=1, sessions=3)
    parts = Measured(AT_THE_END, tuple(told.servers), ((KEY, 1, 2),))
    measures.received(0, parts)
    measures.received(1, parts)
    measures.died(1)
    last = measures.at_the_end(0, told)
    assert (list(last.servers), last.live.server_bytes) == (told.servers, {KEY: [1, 2]})
    for worker in range(2):
        assert not list(measures.at_the_end(worker, told).servers)
