"""Changes of servers that discovery has not found yet, in a worker that is new."""

from __future__ import annotations

import pytest

from evproxy import (
    Discover,
    ListenerSettings,
    Pool,
    PoolSettings,
    ProxyService,
    Settings,
    UpstreamServer,
)
from evproxy.admin.servers import NewWeight
from evproxy.workers.admin.local import operate
from evproxy.workers.late_changes import LateChanges
from evproxy.workers.messages import Operate
from tests.support.services import ANY_PORT, Ground, until

NAME = "127.0.0.1:1"
PLACES = {"pool": "web", "server": NAME}
DRAIN = Operate("drain_server", PLACES)
WEIGH = Operate("weigh_server", PLACES, None, NewWeight(7))
REMOVE = Operate("remove_server", PLACES)
ADD = Operate("add_server", {"pool": "web"}, None, UpstreamServer(NAME))


class Joining:
    """A proxy with a pool of no servers yet, and the changes that wait for them."""

    def __init__(self, ground: Ground) -> None:
        self.reactor = ground.reactor
        discover = Discover("file", path="/nonexistent/servers.json")
        pool = PoolSettings(name="web", discover=discover)
        listener = ListenerSettings(ANY_PORT, pool="web")
        settings = Settings(listeners=(listener,), pools=(pool,))
        self.service = ProxyService.from_settings(ground.reactor, settings)
        ground.services.append(self.service)
        self.turns = 0
        self.late = LateChanges(
            ground.reactor, lambda change: operate(ground.reactor, self.service, change)
        )
        self.service.observe(self.late)

    async def join(self, *names: str) -> list[tuple[str, str, int]]:
        """Discovery finds the servers of these names; return those of the pool afterwards."""
        pool = self.service.pools["web"]
        assert isinstance(pool, Pool)
        pool.set_servers([UpstreamServer(name) for name in names])
        turns: list[None] = []
        self.reactor.callLater(0, turns.append, None)
        await until(self.reactor, lambda: bool(turns))
        return [(each.name, each.state, each.spec.weight) for each in pool.each_server()]


@pytest.fixture
def joining(ground: Ground) -> Joining:
    return Joining(ground)


@pytest.mark.parametrize("changes", [(DRAIN,), (DRAIN, WEIGH), (WEIGH, DRAIN)])
async def test_changes_follow_their_server(joining: Joining, changes: tuple[Operate, ...]) -> None:
    """Each is made once, when the server joins for the first time."""
    weight = 7 if WEIGH in changes else 1
    for change in changes:
        assert (await joining.late.make(change, True)).code == 404
    other = ("127.0.0.1:2", "up", 1)
    assert await joining.join("127.0.0.1:2") == [other]
    assert await joining.join("127.0.0.1:2", NAME) == [other, (NAME, "draining", weight)]
    await joining.join()
    assert await joining.join(NAME) == [(NAME, "up", 1)]


async def test_a_removal_follows_its_server(joining: Joining) -> None:
    """The server leaves the pool in the turn after it joined."""
    await joining.late.make(REMOVE, True)
    assert await joining.join(NAME) == []


async def test_a_server_that_is_added_after_its_removal(joining: Joining) -> None:
    """What was done before the server was added does not follow it, and what comes later does."""
    await joining.late.make(REMOVE, True)
    await joining.late.make(DRAIN, True)
    assert (await joining.late.make(ADD, True)).code == 200
    assert (await joining.late.make(WEIGH, True)).code == 200
    assert await joining.join("127.0.0.1:2", NAME) == [(NAME, "up", 7), ("127.0.0.1:2", "up", 1)]


async def test_a_server_that_is_gone_again(joining: Joining) -> None:
    """There is nothing to change any more."""
    await joining.late.make(DRAIN, True)
    pool = joining.service.pools["web"]
    assert isinstance(pool, Pool)
    pool.set_servers([UpstreamServer(NAME)])
    assert await joining.join() == []


async def test_a_server_that_is_there(joining: Joining) -> None:
    """The change is made at once, and not again."""
    await joining.join(NAME)
    assert (await joining.late.make(DRAIN, True)).code == 200
    await joining.join()
    assert await joining.join(NAME) == [(NAME, "up", 1)]


async def test_a_pool_without_discovery(joining: Joining) -> None:
    """Nobody waits for a server that does not come."""
    assert (await joining.late.make(DRAIN, False)).code == 404
    assert await joining.join(NAME) == [(NAME, "up", 1)]


async def test_many_changes(joining: Joining, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a bound on those that wait; those that were made make room."""
    monkeypatch.setattr("evproxy.workers.late_changes.MOST_LATE", 1)
    await joining.late.make(DRAIN, True)
    await joining.late.make(WEIGH, True)
    assert await joining.join(NAME) == [(NAME, "draining", 1)]
    await joining.join()
    await joining.late.make(WEIGH, True)
    assert await joining.join(NAME) == [(NAME, "up", 7)]
