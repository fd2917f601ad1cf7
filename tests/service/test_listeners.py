"""The listeners of a `ProxyService`: how they bind, late or not at all, and how they close."""

from __future__ import annotations

import errno
import os
import pwd
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.internet.endpoints import TCP4ServerEndpoint, serverFromString
from twisted.internet.error import CannotListenError
from twisted.logger import formatEvent

from tests.support.inherited import hand_over
from tests.support.leaks import LoggedErrors
from tests.support.services import ANY_PORT, Ground, listens, until

pytestmark = pytest.mark.oldest_twisted


@pytest.mark.parametrize("lost", ["path", "lock", "both"])
async def test_a_path_that_is_gone_is_closed_all_the_same(
    ground: Ground, tmp_path: Path, warnings_logged: list[str], lost: str
) -> None:
    """During the drain, a UNIX listener accepts nobody, even if its path or lock was removed."""
    path, other = tmp_path / "socket", tmp_path / "other"
    service = ground.service(f"unix:{path}", drain_timeout=3600)
    service.startService()
    client, server = await ground.session(service)
    other.hardlink_to(path)
    for name in [path] * (lost != "lock") + [Path(f"{path}.lock")] * (lost != "path"):
        name.unlink()
    stopped = service.stopService()
    await until(ground.reactor, lambda: not listens(UNIXAddress(bytes(other))))
    client.close()
    await server.rest()
    server.close()
    await stopped
    assert list(tmp_path.iterdir()) == [other]
    line = f"What the UNIX listener {path} put there cannot be removed: No such file or directory"
    assert warnings_logged == [line] * (2 if lost == "both" else 1)
    service.startService()
    await ground.session(service)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its user")
async def test_a_path_that_may_not_be_removed(
    ground: Ground, tmp_path: Path, warnings_logged: list[str]
) -> None:
    """A UNIX listener that was bound as root can be closed by another user (``--uid``)."""
    path = tmp_path / "socket"
    service = ground.service(f"unix:{path}:lockfile=0")
    service.startService()
    nobody = pwd.getpwnam("nobody").pw_uid
    os.seteuid(nobody)
    try:
        await service.stopService()
    finally:
        os.seteuid(0)
    assert not listens(UNIXAddress(bytes(path)))
    [line] = warnings_logged
    assert line.endswith("cannot be removed: Permission denied")


class Port:
    """A double of a listening port; the test decides how it closes."""

    def __init__(self, stop: Callable[[], Any]) -> None:
        self.stopListening = stop


class Endpoint:
    """A server endpoint whose Deferred the test fires."""

    def __init__(self) -> None:
        self.factory: Any = None
        self.bound: Deferred[Any] = Deferred()

    def listen(self, factory: Any) -> Deferred[Any]:
        self.factory = factory
        return self.bound

    async def bind(self, reactor: Any) -> Any:
        """Bind a port, late; return its address."""
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self.factory)
        address = port.getHost()
        self.bound.callback(port)
        return address


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    """The endpoint for the description ``late:``, as if it came from a plugin."""
    endpoint = Endpoint()

    def from_string(reactor: Any, description: str) -> Any:
        return endpoint if description == "late:" else serverFromString(reactor, description)

    monkeypatch.setattr("evproxy.service.listener.serverFromString", from_string)
    return endpoint


async def test_a_listener_that_cannot_be_closed_is_told(
    ground: Ground, endpoint: Endpoint, logged_errors: LoggedErrors
) -> None:
    """An error while ports close is logged once, and the stop finishes."""
    service = ground.service(ANY_PORT, "late:")
    endpoint.bound.callback(Port(lambda: fail(ZeroDivisionError())))
    service.startService()
    await service.stopService()
    [event] = logged_errors.flush()
    assert event["log_failure"].check(ZeroDivisionError)


async def test_a_listener_that_binds_late_serves(ground: Ground, endpoint: Endpoint) -> None:
    """While an endpoint binds late, the others serve; then the late listener serves too."""
    service = ground.service("late:", ANY_PORT)
    service.startService()
    [prompt] = service.addresses
    await ground.session(service)
    late = await endpoint.bind(ground.reactor)
    assert service.addresses == [late, prompt]
    await ground.session(service, 0)
    await service.drain(0)
    assert not listens(late)


async def test_one_who_does_not_wait_for_a_listener_any_more(
    ground: Ground, endpoint: Endpoint
) -> None:
    """A timeout is a timeout, others still wait, and the listener serves when it is bound."""
    service = ground.service("late:", ANY_PORT)
    service.startService()
    impatient, patient = service.when_listening(), service.when_listening()
    impatient.addTimeout(0, ground.reactor)
    with pytest.raises(TimeoutError):
        await impatient
    await endpoint.bind(ground.reactor)
    await patient
    await ground.session(service, 0)


async def test_a_listener_that_fails_late_is_told(
    ground: Ground, endpoint: Endpoint, logged_errors: LoggedErrors
) -> None:
    """A late error of an endpoint is logged; the other listeners serve."""
    service = ground.service("late:", ANY_PORT)
    service.startService()
    endpoint.bound.errback(OSError("no more"))
    [event] = logged_errors.flush(OSError)
    assert formatEvent(event) == "Cannot listen on late:"
    await ground.session(service)


async def test_a_listener_that_binds_after_the_stop_is_closed(
    ground: Ground, endpoint: Endpoint
) -> None:
    """If an endpoint binds after the service has stopped, its port is closed."""
    service = ground.service("late:")
    service.startService()
    await service.stopService()
    late = await endpoint.bind(ground.reactor)
    assert service.addresses == []
    await until(ground.reactor, lambda: not listens(late))


async def test_a_listener_that_binds_after_another_failed_is_closed(
    ground: Ground, endpoint: Endpoint
) -> None:
    """If one listener cannot be bound, no listener stays bound, not even a late one."""
    taken = f"tcp:{ground.upstream.port}:interface=127.0.0.1"
    service = ground.service("late:", taken, upstreams=["127.0.0.1:1"])
    with pytest.raises(CannotListenError):
        service.startService()
    assert not service.running
    late = await endpoint.bind(ground.reactor)
    assert service.addresses == []
    await until(ground.reactor, lambda: not listens(late))


@pytest.mark.parametrize("lock", ["lockfile=1", "lockfile=0"])
async def test_a_path_that_was_taken_is_bound_once_it_is_free(
    ground: Ground, tmp_path: Path, lock: str
) -> None:
    """After a UNIX listener fails to bind, nothing it leaves prevents the next start."""
    path = tmp_path / "socket"
    service = ground.service(f"unix:{path}:{lock}")
    path.touch()
    with pytest.raises(CannotListenError) as raised:
        service.startService()
    assert raised.value.socketError.errno == errno.EADDRINUSE
    assert list(tmp_path.iterdir()) == [path]
    path.unlink()
    service.startService()
    await ground.session(service)


async def test_a_lock_that_another_listener_holds_stays(ground: Ground, tmp_path: Path) -> None:
    """A listener whose path is in use removes neither the lock nor the path of its holder."""
    description = f"unix:{tmp_path}/socket"
    holder, other = (ground.service(description) for _ in range(2))
    holder.startService()
    held = set(tmp_path.iterdir())
    for _ in range(2):
        with pytest.raises(
            CannotListenError, match="Address already in use: a process listens there"
        ):
            other.startService()
        # evproxy has connected to the holder, to check whether it listens.
        (await ground.upstream.accept()).close()
    assert set(tmp_path.iterdir()) == held
    await ground.session(holder)


async def test_an_inherited_socket_pauses_at_the_bound(ground: Ground, inherited: Any) -> None:
    """A client over the bound on sessions waits in the accept queue of a ``systemd:`` listener."""
    service = ground.service("systemd:domain=INET:name=web", max_sessions=1)
    service.startService()
    client, server = await ground.session(service)
    waiting = ground.client(service)
    await waiting.send(b"!")
    client.close()
    await server.rest()
    server.close()
    assert await (await ground.upstream.accept()).receive(1) == b"!"


async def test_an_inherited_socket_listens_on_for_its_owner(ground: Ground, inherited: Any) -> None:
    """After a stop, the owner's socket still listens, and the next process can serve."""
    service = ground.service("systemd:domain=INET:name=web")
    service.startService()
    [address] = service.addresses
    await ground.session(service)
    await service.drain(0)
    assert listens(address)


async def test_an_inherited_path_stays_as_it_is(ground: Ground, inherited_path: Path) -> None:
    """evproxy neither changes the mode of an inherited UNIX socket's path nor removes the path."""
    service = ground.service("systemd:domain=UNIX:name=web")
    service.startService()
    await ground.session(service)
    assert stat.S_IMODE(inherited_path.stat().st_mode) == 0o600
    await service.drain(0)
    assert listens(UNIXAddress(bytes(inherited_path)))


async def test_an_inherited_socket_that_does_not_listen(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection in place of a listener (``Accept=yes`` of systemd) is refused at the start."""
    one, other = socket.socketpair()
    with one, other:
        descriptor = hand_over(monkeypatch, one)
        service = ground.service("systemd:domain=UNIX:name=web")
        with pytest.raises(CannotListenError, match="does not listen"):
            service.startService()
        # The endpoint closes only sockets that it could adopt.
        os.close(descriptor)
