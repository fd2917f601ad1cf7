"""A session with faults or filters leaves nothing to the collector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.task import deferLater

from evproxy.faults import Faults, half_open, latency, limit, reset, slicer, stall, timeout
from evproxy.relay.stages import StagesOfSession
from evproxy.stages import FilteredSession, filtered
from tests.support.collector import alive, garbage
from tests.support.proxies import Proxied

pytestmark = [
    pytest.mark.usefixtures("no_collector"),
    pytest.mark.parametrize("proxied", ["socket", "socket-twisted"], indirect=True),
]


class Keeping:
    """A filter that keeps its session."""

    def __init__(self, status: object) -> None:
        """Nothing to keep yet."""

    def started(self, session: FilteredSession) -> None:
        self.session = session


def filters(reactor: Any) -> Sequence[StagesOfSession]:
    return [filtered(Keeping, Keeping)]


def delays(reactor: Any) -> Sequence[StagesOfSession]:
    return [Faults(reactor, [latency(0.01, stream="both"), slicer(100), stall(lasts=0.01)])]


def waits(reactor: Any) -> Sequence[StagesOfSession]:
    return [Faults(reactor, [timeout(3600.0, after=3600.0), half_open(after=3600.0)])]


def cuts(reactor: Any) -> Sequence[StagesOfSession]:
    return [Faults(reactor, [limit(500)])]


def resets(reactor: Any) -> Sequence[StagesOfSession]:
    return [Faults(reactor, [reset(500, delay=0.01)])]


@pytest.mark.parametrize("stages", [filters, delays, waits, cuts, resets])
async def test_nothing_is_left(proxied: Proxied, stages: Any) -> None:
    """Every object of a session is gone once the session has ended, by itself or by a fault."""

    async def session(count: int) -> None:
        client, server = await proxied.pair()
        await server.send(b"x" * 1000)
        server.end()
        await client.rest()
        client.close()
        await server.rest()
        await proxied.observed.ended(count)
        await deferLater(proxied.reactor, 0)

    await proxied.start(stages=stages(proxied.reactor))
    await session(1)
    assert not garbage()
    before = alive()
    await session(2)
    assert not alive() - before
    assert not garbage()
