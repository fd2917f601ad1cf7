"""`Systemd`: what a service tells systemd, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.task import Clock
from zope.interface import implementer

from evproxy import ProxyService, SettingsError, Systemd
from evproxy.service.notify_socket import MOST_WAITING, RETRY, NotifySocket
from evproxy.service.systemd import watchdog_interval
from tests.support.peers import turn
from tests.support.service_manager import Manager
from tests.support.services import ANY_PORT, Ground

pytestmark = pytest.mark.oldest_twisted


@implementer(IStreamServerEndpoint)
class Late:
    """An endpoint that listens when the test says so."""

    def __init__(self, reactor: Any) -> None:
        self._endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        self.go: Deferred[None] = Deferred()

    def listen(self, factory: Any) -> Deferred[IListeningPort]:
        return self.go.addCallback(lambda _: self._endpoint.listen(factory))


def systemd(ground: Ground, manager: Manager, service: ProxyService) -> Systemd:
    return Systemd(ground.reactor, service, {"NOTIFY_SOCKET": manager.address})


async def test_ready_when_every_listener_listens(ground: Ground, manager: Manager) -> None:
    """A listener that needs time delays ``READY=1``."""
    late = Late(ground.reactor)
    service = ground.service(ANY_PORT, late)
    notifies = systemd(ground, manager, service)
    notifies.startService()
    service.startService()
    await turn(ground.reactor)
    with pytest.raises(BlockingIOError):
        manager.receive(0)
    late.go.callback(None)
    assert manager.receive(0) == {"FDSTORE": "1", "FDNAME": "evproxy"}
    assert manager.receive(0) == {"READY": "1", "STATUS": "0 sessions"}
    await maybeDeferred(notifies.stopService)
    assert manager.receive(0) == {"STOPPING": "1"}


async def test_the_status_has_the_sessions(ground: Ground, manager: Manager) -> None:
    """``READY=1`` after a reload has the number of sessions."""
    service = ground.service(drain_timeout=0)
    notifies = systemd(ground, manager, service)
    service.startService()
    notifies.startService()
    await turn(ground.reactor)
    manager.drain()
    await ground.session(service)
    await service.reload(evolve(service.settings, max_sessions=5))
    assert manager.receive(0)["RELOADING"] == "1"
    assert manager.receive(0) == {"READY": "1", "STATUS": "1 session"}
    await maybeDeferred(notifies.stopService)
    assert service.addresses == []


@pytest.mark.parametrize("stops", [False, True])
async def test_a_reload_that_comes_too_late(ground: Ground, manager: Manager, stops: bool) -> None:
    """A proxy that drains is ready again at once; one that stops does not begin to reload."""
    service = ground.service(drain_timeout=3600)
    notifies = systemd(ground, manager, service)
    service.startService()
    notifies.startService()
    await turn(ground.reactor)
    client, _ = await ground.session(service)
    service.drain(None)
    stopped = maybeDeferred(notifies.stopService) if stops else None
    manager.drain()
    with pytest.raises(SettingsError, match="evproxy stops"):
        await service.reload(service.settings)
    if stopped is None:
        assert manager.receive(0)["RELOADING"] == "1"
        assert manager.receive(0)["READY"] == "1"
    with pytest.raises(BlockingIOError):
        manager.receive(0)
    client.reset()
    await (stopped or maybeDeferred(notifies.stopService))
    await service.stopService()


async def test_the_reason_is_cut(ground: Ground, manager: Manager) -> None:
    """A refused reload is in the status in one line, however many problems there are."""
    service = ground.service()
    notifies = systemd(ground, manager, service)
    service.startService()
    notifies.startService()
    await turn(ground.reactor)
    manager.drain()
    notifies.reload_refused(["x\n" * 1000, "y"])
    status = manager.receive(0)["STATUS"]
    assert status.startswith("0 sessions; not reloaded: x\\nx")
    assert status.endswith("… (and 1 more)")
    assert len(status) < 300
    await maybeDeferred(notifies.stopService)


async def test_nothing_without_an_address(ground: Ground) -> None:
    """Without the variable, the service does nothing."""
    service = ground.service()
    notifies = Systemd(ground.reactor, service, {})
    notifies.startService()
    service.startService()
    assert notifies.stopService() is None
    assert len(service.addresses) == 1


def test_the_variables_are_removed(ground: Ground, manager: Manager) -> None:
    """A child process must not notify systemd."""
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1", "A": "b"}
    Systemd(ground.reactor, ground.service(), environ)
    assert environ == {"A": "b"}


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "2000000"}, 1.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({"WATCHDOG_USEC": "0"}, 0.0),
    ],
)
def test_the_interval_of_the_watchdog(environ: dict[str, str], seconds: float) -> None:
    """Half of what systemd allows, if it is for this process."""
    assert watchdog_interval(dict(environ)) == seconds


def test_what_waits_is_sent_later_and_in_order(tmp_path: Path) -> None:
    """What counts is kept while nobody is there, the last messages only; the rest is dropped."""
    clock, address = Clock(), str(tmp_path / "notify")
    notifies = NotifySocket(clock, address)
    for number in range(MOST_WAITING + 2):
        notifies.send(f"A={number}")
        notifies.send("WATCHDOG=1", lasting=False)
    manager = Manager(address)
    found = []
    for _ in range(MOST_WAITING):
        # The kernel takes only some at a time (net.unix.max_dgram_qlen).
        clock.advance(RETRY)
        found.append(manager.receive(0))
    assert found == [{"A": str(number + 2)} for number in range(MOST_WAITING)]
    notifies.send("WATCHDOG=1", lasting=False)
    assert manager.receive(0) == {"WATCHDOG": "1"}
    notifies.close()
    manager.close()
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize("address", ["", "vsock:1:2", "relative"])
def test_an_address_that_is_none(address: str) -> None:
    """Only paths and abstract names are addresses."""
    with pytest.raises(SettingsError, match="NOTIFY_SOCKET"):
        NotifySocket(Clock(), address)
