"""The sums of what the workers count."""

from __future__ import annotations

from typing import Any

import pytest

from evproxy.model import UpstreamServer
from evproxy.service.listener import ListenerStatus
from evproxy.service.status import Status
from evproxy.settings import Settings
from evproxy.upstream.pool.status import PoolStatus, ServerStatus
from evproxy.workers.totals import Totals


def status(total: int = 0, state: str = "up", refused: int = 0, sessions: int = 0) -> Status:
    """What one worker tells."""
    server = ServerStatus(
        spec=UpstreamServer("127.0.0.1:1", max_sessions=2),
        name="127.0.0.1:1",
        state=state,
        why="",
        since=1.0,
        until=None,
        weight=1.0,
        sessions=sessions,
        sessions_total=total,
        connect_failures=1,
        ejections=0,
        connect_time=0.0,
    )
    listener = ListenerStatus(name="web", address="127.0.0.1:80", refused={"deny": refused})
    return Status(
        listeners=(listener,),
        pools=(PoolStatus(name="default", servers=(server,), waiting=1),),
        sessions=(),
        session_count=sessions,
        max_sessions=10,
        draining=False,
    )


def whole(totals: Totals) -> tuple[Status, Any]:
    """The sums, and those of the only server."""
    found = totals.status(Settings(), False, 256)
    return found, found.pools[0].servers[0]


def test_sums() -> None:
    """Counts and bounds are added; checks are counted where they are done."""
    totals = Totals(2, lambda pool, server: (7, 3))
    totals.told(0, status(total=5, sessions=2, refused=1))
    totals.told(1, status(total=6, sessions=3, refused=4))
    found, server = whole(totals)
    assert (found.session_count, found.max_sessions, found.pools[0].waiting) == (5, 20, 2)
    assert dict(found.listeners[0].refused) == {"deny": 5}
    assert (server.sessions, server.sessions_total, server.connect_failures) == (5, 11, 2)
    assert server.spec.max_sessions == 4
    assert (server.checks_passed, server.checks_failed) == (7, 3)


def test_dead_worker() -> None:
    """What a worker had counted stays when it dies; its sessions are gone."""
    totals = Totals(2)
    for worker in range(2):
        totals.told(worker, status(total=5, sessions=2, refused=1))
    totals.died(0)
    found, server = whole(totals)
    assert (found.session_count, found.max_sessions) == (2, 10)
    assert (server.sessions, server.sessions_total) == (2, 10)
    assert dict(found.listeners[0].refused) == {"deny": 2}
    totals.told(0, status(total=1))
    totals.died(0)
    totals.died(0)
    assert whole(totals)[1].sessions_total == 11


@pytest.mark.parametrize(
    ("states", "state"),
    [(("up", "ejected"), "up"), (("ejected", "down"), "ejected"), (("down", "down"), "down")],
)
def test_states(states: tuple[str, str], state: str) -> None:
    """A server is up if it is for one of the workers."""
    totals = Totals(2)
    for worker, each in enumerate(states):
        totals.told(worker, status(state=each))
    assert whole(totals)[1].state == state


def test_no_worker() -> None:
    """Without any worker there is nothing to show."""
    assert Totals(2).status(Settings(), True, 256).draining
