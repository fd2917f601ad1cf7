"""Services that share a pool: each service starts, drains and stops independently."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from evproxy import HealthCheck, Pool
from evproxy.cli.demo import DemoService
from evproxy.interfaces import SharedPool
from tests.support.leaks import LoggedErrors
from tests.support.pool_doubles import Doctor, advance
from tests.support.services import Ground


class Watched:
    """A pool in front of the server of `ground`, with its own clock and with checks."""

    def __init__(self, ground: Ground, **options: Any) -> None:
        self.clock = Clock()
        self.doctor = Doctor(seconds=self.clock.seconds)
        self.name = f"127.0.0.1:{ground.upstream.port}"
        self.pool = Pool(
            self.clock,
            [self.name],
            health_check=self.doctor,
            check_timing=HealthCheck(interval=2.0, fall=1),
            **options,
        )

    @property
    def checked(self) -> bool:
        """Whether the server is checked in the next few seconds."""
        self.doctor.asked.clear()
        advance(self.clock, 5)
        return bool(self.doctor.asked)

    @property
    def at_rest(self) -> bool:
        """Whether no timer is left."""
        return not self.clock.getDelayedCalls()


async def test_a_service_that_never_started(ground: Ground) -> None:
    """The stop and the drain of a service that never started do not affect the other service."""
    watched = Watched(ground)
    runs, never = ground.service(pool=watched.pool), ground.service(pool=watched.pool)
    runs.startService()
    await never.stopService()
    await never.stopService()
    assert watched.checked
    await ground.session(runs)
    await runs.drain(0)
    assert watched.at_rest


async def test_a_service_that_was_only_bound(ground: Ground) -> None:
    """The stop of a service that was only bound leaves the other alone, and leaves no timers."""
    watched = Watched(ground)
    runs, bound = ground.service(pool=watched.pool), ground.service(pool=watched.pool)
    bound.privilegedStartService()
    runs.startService()
    await bound.drain(0)
    assert watched.checked
    await runs.drain(0)
    bound.privilegedStartService()
    assert watched.at_rest
    await bound.drain(0)
    assert watched.at_rest


async def test_a_service_that_is_started_twice(ground: Ground) -> None:
    """After two starts, one stop is enough, and the service can start again."""
    watched = Watched(ground)
    service = ground.service(pool=watched.pool)
    for _ in range(2):
        service.startService()
        service.startService()
        assert watched.checked
        await service.stopService()
        assert watched.at_rest
        await service.stopService()


async def test_a_pool_that_its_owner_has_started(ground: Ground) -> None:
    """A service does not stop a pool that its owner has started, whatever the order."""
    watched = Watched(ground)
    service = ground.service(pool=watched.pool)
    watched.pool.start()
    service.startService()
    await service.stopService()
    assert watched.checked
    service.startService()
    watched.pool.stop()
    watched.pool.stop()
    assert watched.checked
    await service.stopService()
    assert watched.at_rest


async def test_servers_that_stop_while_it_drains(ground: Ground) -> None:
    """If servers stop together with the proxy, the running sessions still finish."""
    watched = Watched(ground, on_down="reset")
    service = ground.service(pool=watched.pool, drain_timeout=3600)
    service.startService()
    client, server = await ground.session(service)
    stopped = service.stopService()
    ground.upstream.socket.close()
    watched.doctor.sick.add(watched.name)
    advance(watched.clock, 60)
    assert [status.state for status in watched.pool.servers] == ["up"]
    await server.send(b"the end")
    assert await client.receive(7) == b"the end"
    client.close()
    await server.rest()
    server.close()
    await stopped
    assert watched.at_rest


async def test_checks_end_when_both_drain(ground: Ground) -> None:
    """The checks of a shared pool end only when both services drain."""
    watched = Watched(ground)
    one, other = (ground.service(pool=watched.pool, drain_timeout=3600) for _ in range(2))
    ends = []
    for service in (one, other):
        service.startService()
    for service, go_on in ((one, True), (other, False)):
        client, server = await ground.session(service)
        ends.append((client, server, service.stopService()))
        assert watched.checked is go_on
    for client, server, stopped in ends:
        client.close()
        await server.rest()
        server.close()
        await stopped
    one.startService()
    assert watched.checked
    await one.drain(0)


class Plain:
    """A user's own pool, which does not distinguish its users."""

    name = "plain"
    candidates = claim = None
    """For sessions, of which there is none here."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")


async def test_a_pool_of_another_kind(ground: Ground) -> None:
    """A user's own pool is stopped as often as it was started, and not notified of a drain."""
    pool: Any = Plain()
    assert not isinstance(pool, SharedPool)
    service = ground.service(pool=pool)
    await service.stopService()
    service.privilegedStartService()
    await service.stopService()
    assert pool.calls == []
    service.startService()
    service.startService()
    await service.stopService()
    await service.stopService()
    service.startService()
    await service.stopService()
    assert pool.calls == ["start", "stop"] * 2


async def test_a_pool_that_breaks(ground: Ground, logged_errors: LoggedErrors) -> None:
    """If a user's own pool raises, the service still stops."""

    class Broken(Plain):
        def stop(self) -> None:
            raise ZeroDivisionError("on purpose")

    pool: Any = Broken()
    service = ground.service(pool=pool)
    service.startService()
    await service.stopService()
    assert len(logged_errors.flush(ZeroDivisionError)) == 1


@pytest.mark.parametrize(
    "starts", [["bind", "bind"], ["start", "start"], ["bind", "start", "bind"]]
)
async def test_the_demo_listens_once(reactor: Any, starts: list[str]) -> None:
    """However it starts, the server of the demo has one port, and no port after its stop."""
    ports: list[int] = []
    demo = DemoService(reactor, ports.append)
    for how in starts:
        {"bind": demo.privilegedStartService, "start": demo.startService}[how]()
    assert len(ports) == 1
    await demo.stopService()
    assert demo.stopService() is None
