"""The parts of limits: they add up to the limit, and no worker has none."""

from __future__ import annotations

from math import isclose

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from evproxy.config.sharing import (
    part,
    share,
    share_discovered,
    sharing_problems,
    whole_part,
)
from evproxy.model import UpstreamServer
from evproxy.settings import ListenerSettings, PoolSettings, Settings

WORKERS = st.integers(1, 256)


@given(st.integers(0, 10**9), WORKERS)
def test_whole_parts_add_up(limit: int, workers: int) -> None:
    """The parts of a whole number add up to it, and differ by at most one."""
    parts = [whole_part(limit, each, workers) for each in range(workers)]
    assert sum(parts) == limit
    assert max(parts) - min(parts) <= 1


@given(st.floats(0, 10**9), WORKERS)
def test_parts_of_rates_add_up(limit: float, workers: int) -> None:
    """The parts of a rate add up to it, and every worker has one if there is a rate."""
    parts = [part(limit, each, workers) for each in range(workers)]
    assert isclose(sum(parts), limit, rel_tol=1e-9)
    assert all(parts) or limit < 1e-300


@given(st.integers(1, 10**9).map(float), WORKERS)
def test_parts_of_whole_rates_add_up_exactly(limit: float, workers: int) -> None:
    """A rate that is a whole number is divided without a rounding error."""
    if limit >= workers:
        assert sum(part(limit, each, workers) for each in range(workers)) == limit


LIMITED = Settings(
    listeners=(
        ListenerSettings(
            max_sessions=7, new_sessions_per_second=5.0, bytes_per_second_per_session=100
        ),
    ),
    pools=(PoolSettings(upstreams=(UpstreamServer("127.0.0.1:1", max_sessions=5),), queue_size=1),),
    max_sessions=11,
    workers=2,
)


def test_share() -> None:
    """Each worker has its part of every limit; what holds for one session stays."""
    first, second = (share(LIMITED, worker, 2) for worker in range(2))
    assert (first.max_sessions, second.max_sessions) == (6, 5)
    assert [each.listeners[0].max_sessions for each in (first, second)] == [4, 3]
    assert [each.listeners[0].new_sessions_per_second for each in (first, second)] == [3.0, 2.0]
    assert {each.listeners[0].bytes_per_second_per_session for each in (first, second)} == {100}
    assert [each.pools[0].queue_size for each in (first, second)] == [1, 0]
    assert [each.pools[0].upstreams[0].max_sessions for each in (first, second)] == [3, 2]


def test_no_limit_stays_none() -> None:
    """0 is no limit, for every worker."""
    settings = Settings(pools=(PoolSettings(upstreams=(UpstreamServer("127.0.0.1:1"),)),))
    shared = share(settings, 1, 3)
    assert evolve(shared, pools=settings.pools) == settings
    assert shared.pools[0].upstreams == settings.pools[0].upstreams


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (Settings(max_sessions=2), "max_sessions"),
        (Settings(listeners=(ListenerSettings(max_sessions_per_peer=1),)), "listeners[0].max_s"),
        (Settings(listeners=(ListenerSettings(bytes_per_second=2),)), "listeners[0].bytes_per"),
        (
            Settings(pools=(PoolSettings(upstreams=(UpstreamServer("h:1", max_sessions=1),)),)),
            "pools.default.upstreams[0].max_sessions",
        ),
    ],
)
def test_problems(settings: Settings, key: str) -> None:
    """A limit below the number of workers is refused, and what only one process can have."""
    (problem,) = sharing_problems(settings, 3)
    assert str(problem).startswith(key)
    assert list(sharing_problems(settings, 1)) == []


def test_discovered_servers() -> None:
    """The bound of a discovered server is divided too; each worker may have one session."""
    server = UpstreamServer("127.0.0.1:1", max_sessions=5)
    assert [share_discovered(server, each, 2).max_sessions for each in range(2)] == [3, 2]
    assert share_discovered(evolve(server, max_sessions=1), 1, 2).max_sessions == 1
    assert share_discovered(evolve(server, max_sessions=0), 1, 2).max_sessions == 0
