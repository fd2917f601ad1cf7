"""Many sessions of one server end: at once in batches, or spread over a time."""

from __future__ import annotations

from evproxy.session.spread import SpreadEnds
from tests.support.peers import RESET, Listening
from tests.support.proxies import Observed
from tests.support.services import Ground


async def test_they_end_evenly(ground: Ground) -> None:
    """The oldest session ends at once, and the last one near the end of the time."""
    observed = Observed()
    service = ground.service(observers=[observed])
    service.startService()
    peers = [await ground.session(service) for _ in range(10)]
    name = f"127.0.0.1:{ground.upstream.port}"
    started = ground.reactor.seconds()
    assert await service.end_sessions_of("default", name, 0.5) == 10
    await observed.ended(10)
    took = ground.reactor.seconds() - started
    assert 0.44 < took < 10
    assert [record.id for record in observed.records] == list(range(1, 11))
    durations = [record.started + record.duration - started for record in observed.records]
    assert durations[0] < durations[5] - 0.2
    for client, server in peers:
        assert await client.rest() == (b"", RESET)
        assert await server.rest() == (b"", RESET)


async def test_only_those_of_one_server(ground: Ground) -> None:
    """Sessions of other servers, and of the same server in other pools, go on."""
    service = ground.service()
    service.startService()
    client, server = await ground.session(service)
    assert await service.end_sessions_of("default", "127.0.0.1:1") == 0
    assert await service.end_sessions_of("other", f"127.0.0.1:{ground.upstream.port}") == 0
    await client.send(b"still here")
    assert await server.receive(10) == b"still here"


async def test_sessions_that_begin_later_go_on(ground: Ground) -> None:
    """Only the sessions of the moment of the call end."""
    observed = Observed()
    service = ground.service(observers=[observed])
    service.startService()
    await ground.session(service)
    await ground.session(service)
    counting = service.end_sessions_of("default", f"127.0.0.1:{ground.upstream.port}", 0.2)
    client, server = await ground.session(service)
    assert await counting == 2
    await observed.ended(2)
    await client.send(b"still here")
    assert await server.receive(10) == b"still here"


async def test_the_end_of_the_service(ground: Ground) -> None:
    """A service that stops leaves no timer of sessions that were to end later."""
    service = ground.service()
    service.startService()
    await ground.session(service)
    await ground.session(service)
    name = f"127.0.0.1:{ground.upstream.port}"
    assert await service.end_sessions_of("default", name, 3600) == 2
    await service.drain(0)
    spread = SpreadEnds(ground.reactor, service.admission.sessions)
    counting = spread.end("default", name, 0)
    spread.stop()
    assert await counting == 0


async def test_a_server_that_left(ground: Ground) -> None:
    """The sessions of a server that has left its pool end too."""
    other = Listening.tcp(ground.reactor)
    service = ground.service()
    service.startService()
    client, _ = await ground.session(service)
    name = f"127.0.0.1:{ground.upstream.port}"
    service.pools["default"].add(f"127.0.0.1:{other.port}")
    service.pools["default"].remove(name)
    assert await service.end_sessions_of("default", name) == 1
    assert await client.rest() == (b"", RESET)
    other.close()
