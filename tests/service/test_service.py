"""`ProxyService` beside other services: its start, its stop, and its independence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import MultiService
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError

from evproxy import ProxyService, SettingsError
from evproxy.model import CloseReason, Ending, Phase, Side, UpstreamServer
from tests.support.peers import END, RESET, Listening, converse
from tests.support.proxies import Observed
from tests.support.services import ANY_PORT, Ground, called, listens, until
from tests.support.unreachable import Unanswered

pytestmark = pytest.mark.oldest_twisted


async def test_it_composes(ground: Ground) -> None:
    """In a `MultiService`, the proxy binds with privileges; it starts and stops with its parent."""
    parent = MultiService()
    service = ground.service()
    service.setServiceParent(parent)
    parent.privilegedStartService()
    [address] = service.addresses
    parent.startService()
    assert service.addresses == [address]
    client, server = await ground.session(service)
    client.end()
    assert await server.rest() == (b"", END)
    server.end()
    assert await client.rest() == (b"", END)
    await maybeDeferred(parent.stopService)
    assert service.addresses == []
    assert not listens(address)


async def test_it_binds_without_privileges_too(ground: Ground) -> None:
    """A parent that runs already only starts the service; the service still binds its ports."""
    parent = MultiService()
    parent.startService()
    service = ground.service()
    service.setServiceParent(parent)
    await ground.session(service)
    assert service.running


async def test_the_addresses_are_in_the_order_of_the_listeners(
    ground: Ground, tmp_path: Path
) -> None:
    """The address of each listener is known once it is bound, and the listener serves there."""
    path = str(tmp_path / "socket")
    service = ground.service(ANY_PORT, f"unix:{path}", "tcp:0:interface=127.0.0.1")
    assert service.addresses == []
    service.startService()
    one, two, three = service.addresses
    assert isinstance(one, IPv4Address)
    assert two == UNIXAddress(path.encode())
    assert isinstance(three, IPv4Address)
    assert one.port != three.port
    for listener in range(3):
        await ground.session(service, listener)


async def test_the_stop_waits_for_the_last_session(ground: Ground) -> None:
    """The Deferred of `stopService` fires when the last session is over, not before."""
    observed = Observed()
    service = ground.service(drain_timeout=3600, observers=[observed])
    service.startService()
    [address] = service.addresses
    one, first = await ground.session(service)
    two, second = await ground.session(service)
    stopped = service.stopService()
    fired = called(stopped)
    await until(ground.reactor, lambda: not listens(address))
    one.end()
    await first.rest()
    first.end()
    await observed.ended()
    assert not fired()
    await two.send(b"still here")
    assert await second.receive(10) == b"still here"
    two.end()
    await second.rest()
    second.end()
    await stopped
    assert [record.reason.how for record in observed.records] == [Ending.FINISHED] * 2


async def test_the_sessions_that_are_left_are_reset(ground: Ground) -> None:
    """At the drain deadline, here at once, both sides of each session are reset."""
    observed = Observed()
    service = ground.service(drain_timeout=0, observers=[observed])
    service.startService()
    sessions = [await ground.session(service) for _ in range(3)]
    await service.stopService()
    assert [record.reason.how for record in observed.records] == [Ending.DRAIN] * 3
    for client, server in sessions:
        assert await client.rest() == (b"", RESET)
        assert await server.rest() == (b"", RESET)


@pytest.mark.parametrize("patient", [False, True])
async def test_a_stop_brings_the_deadline_of_a_drain_forward(ground: Ground, patient: bool) -> None:
    """A drain without a deadline gets that of the stop, unless the service is patient."""
    service = ground.service(drain_timeout=0)
    service.startService()
    client, server = await ground.session(service)
    drained = service.drain(None)
    service.patient = patient
    stopped = service.stopService()
    if patient:
        await converse(client, server)
        service.drain(3600)
        await converse(client, server)
        service.drain(0)
    await stopped
    assert drained.called
    assert await client.rest() == (b"", RESET)


async def test_the_deadline_is_for_those_that_are_left(ground: Ground) -> None:
    """Sessions have until the drain deadline; a second `drain` waits for the same end."""
    service = ground.service(drain_timeout=0.3)
    service.startService()
    started = ground.reactor.seconds()
    client, _ = await ground.session(service)
    first, second = service.stopService(), service.drain(3600)
    await first
    assert 0.29 < ground.reactor.seconds() - started < 20
    await second
    assert await client.rest() == (b"", RESET)


at_the_deadline_or_before = pytest.mark.parametrize("end", ["deadline", "abort"])


async def stop(service: ProxyService, end: str) -> None:
    """Stop `service`; the remaining sessions are reset at the deadline, or by `abort`."""
    stopped = service.drain(0.05 if end == "deadline" else None)
    if end == "abort":
        service.abort()
    await stopped


@at_the_deadline_or_before
async def test_a_session_that_still_connects_is_reset(
    ground: Ground, unanswered: Unanswered, end: str
) -> None:
    """A session whose server does not answer still ends, and leaves no connect behind."""
    observed = Observed()
    service = ground.service(
        upstreams=[unanswered.name], connect_timeout=3600, observers=[observed]
    )
    service.startService()
    client = ground.client(service)
    await client.send(b"early")
    await until(ground.reactor, lambda: phases(service) == [Phase.CONNECTING])
    await stop(service, end)
    assert await client.rest() == (b"", RESET)
    [record] = observed.records
    assert record.reason == CloseReason(Side.PROXY, Ending.DRAIN, Phase.CONNECTING)
    pool: Any = service.pools["default"]
    assert [server.sessions for server in pool.servers] == [0]


@at_the_deadline_or_before
async def test_a_session_that_waits_for_a_slot_is_reset(ground: Ground, end: str) -> None:
    """A waiting session is reset, and does not get the slot of a session that is reset before."""
    observed = Observed()
    only = UpstreamServer(f"127.0.0.1:{ground.upstream.port}", max_sessions=1)
    service = ground.service(upstreams=[only], observers=[observed])
    service.startService()
    client, server = await ground.session(service)
    waiting = [ground.client(service) for _ in range(3)]
    await until(ground.reactor, lambda: phases(service).count(Phase.CONNECTING) == len(waiting))
    await stop(service, end)
    for peer in (client, server, *waiting):
        assert await peer.rest() == (b"", RESET)
    assert [record.reason.how for record in observed.records] == [Ending.DRAIN] * 4
    assert ground.upstream.nobody_waits()


async def test_a_session_may_still_connect_while_it_drains(ground: Ground) -> None:
    """A session that waits for a slot when the drain begins gets the slot, and is served."""
    only = UpstreamServer(f"127.0.0.1:{ground.upstream.port}", max_sessions=1)
    service = ground.service(upstreams=[only], drain_timeout=3600)
    service.startService()
    client, server = await ground.session(service)
    waiting = ground.client(service)
    await until(ground.reactor, lambda: phases(service).count(Phase.CONNECTING) == 1)
    stopped = service.stopService()
    client.end()
    await server.rest()
    server.close()
    next_server = await ground.upstream.accept()
    await waiting.send(b"served")
    waiting.end()
    assert await next_server.rest() == (b"served", END)
    next_server.end()
    assert await waiting.rest() == (b"", END)
    await stopped


async def test_a_stop_without_a_start_is_over_at_once(ground: Ground) -> None:
    """The stop of a service that never ran is over at once."""
    await ground.service().stopService()


async def test_it_starts_again_after_a_stop(ground: Ground) -> None:
    """A stopped service can start again, and serves on its new port."""
    service = ground.service(drain_timeout=0)
    for _ in range(3):
        service.startService()
        client, server = await ground.session(service)
        await service.stopService()
        assert await client.rest() == (b"", RESET)
        assert await server.rest() == (b"", RESET)


async def test_it_accepts_again_after_a_stop_at_the_bound(ground: Ground) -> None:
    """A pause does not outlive the stop."""
    service = ground.service(drain_timeout=0, max_sessions=1)
    for _ in range(2):
        service.startService()
        await ground.session(service)
        await service.stopService()


async def test_it_is_not_started_while_it_drains(ground: Ground) -> None:
    """A start before the stop is over is refused, and the stop goes on."""
    service = ground.service(drain_timeout=3600)
    service.startService()
    client, server = await ground.session(service)
    stopped = service.stopService()
    with pytest.raises(RuntimeError, match="still drains"):
        service.startService()
    client.close()
    await server.rest()
    server.close()
    await stopped
    service.startService()
    await ground.session(service)


async def test_a_parent_that_is_started_while_it_drains(ground: Ground) -> None:
    """A privileged start by a `MultiService` is refused as well, and nothing is bound."""
    parent = MultiService()
    service = ground.service(drain_timeout=3600)
    service.setServiceParent(parent)
    parent.startService()
    client, server = await ground.session(service)
    stopped = maybeDeferred(parent.stopService)
    with pytest.raises(RuntimeError, match="still drains"):
        parent.privilegedStartService()
    assert service.addresses == []
    client.close()
    await server.rest()
    server.close()
    await stopped


async def test_what_was_only_bound_is_closed_by_each_stop(ground: Ground) -> None:
    """A stop closes ports that were only bound with privileges, the second time too."""
    service = ground.service()
    for _ in range(2):
        service.privilegedStartService()
        [address] = service.addresses
        await service.stopService()
        assert not listens(address)
        service.startService()
        await service.stopService()


async def test_two_services_share_nothing(ground: Ground) -> None:
    """The bound, the sessions and the end of one service do not affect the other service."""
    one, two = ground.service(max_sessions=1, drain_timeout=0), ground.service()
    one.startService()
    two.startService()
    mine, _ = await ground.session(one)
    sessions = [await ground.session(two) for _ in range(3)]
    await one.stopService()
    assert await mine.rest() == (b"", RESET)
    for client, server in sessions:
        await client.send(b"x")
        assert await server.receive(1) == b"x"
    await ground.session(two)


async def test_all_listeners_or_none(ground: Ground) -> None:
    """If one of two listeners cannot be bound, the error is raised and the other is closed."""
    taken = ground.upstream.port
    free = Listening.tcp(ground.reactor)
    port = free.port
    free.close()
    service = ground.service(
        *(f"tcp:{each}:interface=127.0.0.1" for each in (port, taken)), upstreams=["127.0.0.1:1"]
    )
    with pytest.raises(CannotListenError) as raised:
        service.privilegedStartService()
    assert (raised.value.interface, raised.value.port) == ("127.0.0.1", taken)
    assert service.addresses == []
    await until(ground.reactor, lambda: not listens(IPv4Address("TCP", "127.0.0.1", port)))


async def test_what_cannot_be_listened_on_is_always_told_alike(
    ground: Ground, tmp_path: Path
) -> None:
    """If the lock file of a UNIX socket cannot be made, `CannotListenError` is raised too."""
    path = tmp_path / "missing" / "socket"
    service = ground.service(f"unix:{path}")
    with pytest.raises(CannotListenError) as raised:
        service.startService()
    assert raised.value.port == bytes(path)
    assert isinstance(raised.value.socketError, FileNotFoundError)


@pytest.mark.parametrize(
    "settings",
    [
        {"upstreams": ["nosuch:x"]},
        {"upstreams": ["a:0"]},
        {"balance": "fair"},
        {"relay": "fast"},
        {"listen": ["nosuch:1"]},
        {"listen": ["tcp:x"]},
    ],
)
def test_a_wrong_setting_is_refused(reactor: Any, settings: dict[str, Any]) -> None:
    """The constructor of the service raises an error for a wrong setting."""
    with pytest.raises(SettingsError):
        ProxyService(reactor, **{"upstreams": ["127.0.0.1:1"], **settings})


def phases(service: ProxyService) -> list[Phase]:
    """Return the phase of each session of `service`."""
    return [session.phase for session in service.admission.sessions]
