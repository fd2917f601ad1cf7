"""The numbers of sessions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from evproxy.session.live import LiveSessions


def numbers(worker: int, workers: int, after: int) -> list[int]:
    """The numbers of the first three sessions."""
    sessions, found = LiveSessions(Clock()), []
    sessions.number_as(worker, workers, after)
    for _ in range(3):
        session: Any = SimpleNamespace(id=0)
        sessions.opened(session)
        found.append(session.id)
    assert sessions.last_id == found[-1]
    return found


def test_the_first_numbers() -> None:
    """Each worker has its own numbers, the first ones that there are."""
    assert numbers(0, 1, 0) == [1, 2, 3]
    assert [numbers(worker, 3, 0) for worker in range(3)] == [[1, 4, 7], [2, 5, 8], [3, 6, 9]]


@given(st.data(), st.integers(1, 256), st.integers(0, 10**9))
def test_numbers_after_others(data: st.DataObject, workers: int, after: int) -> None:
    """A replaced worker goes on after a number, with none of another worker's."""
    worker = data.draw(st.integers(0, workers - 1))
    first, second, _ = numbers(worker, workers, after)
    assert after < first <= after + workers
    assert (first - 1) % workers == worker
    assert second == first + workers
