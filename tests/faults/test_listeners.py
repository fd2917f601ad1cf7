"""Faults and filters of the listeners of a service."""

from __future__ import annotations

import pytest
from attrs import evolve

from evproxy import ListenerSettings, Pool, PoolSettings, ProxyService, Settings
from evproxy.faults import Faults, latency, slicer, truncate
from evproxy.model import UpstreamServer
from evproxy.settings import FaultSettings
from tests.support.certificates import Certificates
from tests.support.logged import logged_lines
from tests.support.peers import END, RESET, Peer
from tests.support.secured import CLOSED, SecuredPeer
from tests.support.services import ANY_PORT, Ground


def settings_with(ground: Ground, *faults: FaultSettings, **listener: object) -> Settings:
    """The settings of a service in front of the server of `ground`."""
    server = UpstreamServer(f"127.0.0.1:{ground.upstream.port}")
    return Settings(
        listeners=(
            ListenerSettings(
                ANY_PORT,
                name="web",
                faults=faults,
                **listener,  # type: ignore[arg-type]
            ),
        ),
        pools=(PoolSettings(upstreams=(server,)),),
    )


async def pair(ground: Ground, service: ProxyService) -> tuple[Peer, Peer]:
    """A client of the service, and its server; the client has sent a byte."""
    client = ground.client(service)
    server = await ground.upstream.accept()
    await client.send(b"?")
    await server.receive(1)
    return client, server


async def test_faults_of_a_listener_and_a_reload(ground: Ground) -> None:
    """The log has the seed; new sessions have the faults of the reload, old ones theirs."""
    settings = settings_with(ground, truncate(5), faults_seed=9)
    with logged_lines() as lines:
        service = ProxyService.from_settings(ground.reactor, settings)
    assert "The faults of listener web have the seed 9" in lines
    ground.services.append(service)
    service.startService()
    old, old_server = await pair(ground, service)
    listener = evolve(settings.listeners[0], faults=(latency(0.05),))
    await service.reload(evolve(settings, listeners=(listener,)))
    new, new_server = await pair(ground, service)
    for server in (old_server, new_server):
        await server.send(b"0123456789")
        server.end()
    assert await old.rest() == (b"01234", END)
    assert await new.rest() == (b"0123456789", END)


@pytest.mark.parametrize("ends", [True, False])
async def test_a_reload_while_a_fault_holds_bytes(ground: Ground, ends: bool) -> None:
    """A session keeps its faults, and every byte in its order; a reset stays one."""
    settings = settings_with(ground, latency(0.3))
    service = ProxyService.from_settings(ground.reactor, settings)
    ground.services.append(service)
    service.startService()
    client, server = await pair(ground, service)
    await server.send(b"01234")
    # The fault does not hold what clients send, so it has got what came before.
    await client.send(b"!")
    await server.receive(1)
    listener = evolve(settings.listeners[0], faults=())
    await service.reload(evolve(settings, listeners=(listener,)))
    if ends:
        await server.send(b"56789")
        server.end()
        assert await client.rest() == (b"0123456789", END)
    else:
        server.reset()
        assert (await client.rest())[1] == RESET


async def test_faults_of_a_listener_with_twisted_tls(
    ground: Ground, certificates: Certificates
) -> None:
    """They are about the bytes inside TLS, and the end is a close_notify."""
    pem = certificates.pem
    listen = f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}"
    settings = settings_with(ground, slicer(2), latency(0.02), truncate(7))
    settings = evolve(settings, listeners=(evolve(settings.listeners[0], listen=listen),))
    service = ProxyService.from_settings(ground.reactor, settings)
    ground.services.append(service)
    service.startService()
    client = SecuredPeer(ground.client(service), certificates.client)
    await client.send(b"question")
    server = await ground.upstream.accept()
    assert await server.receive(8) == b"question"
    await server.send(b"0123456789")
    server.end()
    assert await client.rest() == (b"0123456", CLOSED)


async def test_filters_of_a_listener(ground: Ground) -> None:
    """A file names filters; a reload that takes them away gives sessions the socket relay back."""
    settings = settings_with(ground, filters=("examples.filters:Banner",))
    service = ProxyService.from_settings(ground.reactor, settings)
    ground.services.append(service)
    service.startService()
    client, server = await pair(ground, service)
    await server.send(b"220 old\n")
    server.end()
    assert await client.rest() == (b"220 mail.example.org ready\r\n", END)
    listener = evolve(settings.listeners[0], filters=())
    await service.reload(evolve(settings, listeners=(listener,)))
    await ground.session(service)
    assert service.status().sessions[-1].relay == "socket"


async def test_stages_of_a_service(ground: Ground) -> None:
    """`ProxyService` takes faults, which may change while it runs."""
    faults = Faults(ground.reactor)
    service = ground.service(stages=[faults])
    service.startService()
    client, server = await pair(ground, service)
    faults.add(truncate(3))
    await server.send(b"0123456789")
    server.end()
    assert await client.rest() == (b"012", END)


async def test_faults_of_a_pool_and_a_reload(ground: Ground) -> None:
    """The pool's sessions have its faults; a reload changes them for new sessions."""
    settings = settings_with(ground, truncate(8))
    pool = evolve(settings.pools[0], faults=(truncate(5),), faults_seed=3)
    settings = evolve(settings, pools=(pool,))
    with logged_lines() as lines:
        service = ProxyService.from_settings(ground.reactor, settings)
    assert "The faults of pool default have the seed 3" in lines
    ground.services.append(service)
    service.startService()
    first, server = await pair(ground, service)
    await service.reload(evolve(settings, pools=(evolve(pool, faults=()),)))
    await server.send(b"0123456789")
    server.end()
    assert await first.rest() == (b"01234", END)
    second, server = await pair(ground, service)
    await server.send(b"0123456789")
    server.end()
    assert await second.rest() == (b"01234567", END)


async def test_faults_of_one_server_of_a_pool(ground: Ground) -> None:
    """A route that chooses a server itself keeps the faults of the pool."""
    pool = Pool(ground.reactor, [f"127.0.0.1:{ground.upstream.port}"], faults=[truncate(5)])
    one = pool.only(f"127.0.0.1:{ground.upstream.port}")
    assert list(one.stages) == list(pool.stages) != []
