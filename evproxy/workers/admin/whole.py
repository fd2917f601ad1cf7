"""
The proxy of all workers, as the operations of the admin interface see it.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any, Protocol

from attrs import asdict, evolve
from twisted.internet.defer import Deferred

from evproxy.observe.metrics.families import Numbers
from evproxy.observe.watchdog.status import LoopStatus
from evproxy.settings import Settings
from evproxy.workers.admin.crew import Crew
from evproxy.workers.slot import Slot


class Whole(Protocol):
    """What the operations need of the supervisor."""

    settings: Settings

    @property
    def slots(self) -> Sequence[Slot]: ...

    @property
    def stops(self) -> bool:
        """Whether the workers drain, or have drained."""

    @property
    def has_drained(self) -> bool:
        """Whether no worker is left."""

    @property
    def session_count(self) -> int:
        """How many sessions the workers had at the last look."""

    def loop_status(self) -> LoopStatus | None:
        """What a watchdog knows of the loop of this process; ``None``: there is none."""

    def drain(self, deadline: float | None) -> Deferred[None]: ...


def state_of(proxy: Whole) -> str:
    """``running``, ``draining`` or ``drained``."""
    if proxy.has_drained:
        return "drained"
    return "draining" if proxy.stops else "running"


async def numbers_of(proxy: Whole, crew: Crew) -> tuple[Numbers, set[int]]:
    """
    Return the numbers of the whole now, and which workers have told theirs, from 0 on.

    Of a worker that has not, they have the last ones that it told.
    """
    answered = await crew.look()
    return _as_drained(proxy, await crew.totals.whole()), answered


async def known_numbers(proxy: Whole, crew: Crew) -> Numbers:
    """Return the numbers of the whole, as the workers have told them last."""
    return _as_drained(proxy, await crew.totals.known())


def _as_drained(proxy: Whole, numbers: Numbers) -> Numbers:
    drained = proxy.has_drained
    status = evolve(numbers.status, draining=proxy.stops and not drained, drained=drained)
    return evolve(numbers, status=status)


def shown_workers(proxy: Whole, crew: Crew, answered: Container[int]) -> list[dict[str, Any]]:
    """Return the objects that show the workers; `answered`: those that have, from 0 on."""
    return [
        {**asdict(each), "answered": each.number - 1 in answered}
        for each in crew.totals.workers(proxy.slots)
    ]
