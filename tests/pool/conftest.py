"""A clock, and pools that run by it."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from twisted.internet.task import Clock

from evproxy.model import (
    UpstreamServer,
)
from evproxy.upstream.pool.pool import Pool
from tests.support.pool_doubles import Doctor, Events, NoDialer, PoolMaker


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def make(clock: Clock, events: Events) -> Iterator[PoolMaker]:
    """Makes pools that, stopped at the end, have to leave nothing in the clock."""
    pools = []

    def make(*servers: str | UpstreamServer, **options: Any) -> Pool:
        options = {"name": "web", "observer": events, "random": Random(1), **options}
        pools.append(Pool(clock, servers, dialer_for=lambda spec: NoDialer(), **options))
        return pools[-1]

    yield make
    for pool in pools:
        pool.stop()
    assert clock.getDelayedCalls() == []


@pytest.fixture
def doctor(clock: Clock) -> Doctor:
    return Doctor(seconds=clock.seconds)
