"""The fixture `evproxy_twisted`: proxies in the reactor of the tests."""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Callable, Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import CannotListenError

from evproxy.errors import SettingsError
from evproxy.testing import FaultyProxy
from tests.support.peers import END, RESET, Listening, Peer, connect

ROOT = Path(__file__).resolve().parents[2]
ProxyMaker = Callable[..., FaultyProxy]


@pytest.fixture
def server(reactor: Any) -> Iterator[Listening]:
    """A server."""
    listening = Listening.tcp(reactor)
    yield listening
    listening.close()


@pytest.fixture
def proxy(evproxy_twisted: ProxyMaker, server: Listening) -> FaultyProxy:
    """A proxy in front of the server."""
    return evproxy_twisted("127.0.0.1", server.port)


@pytest.fixture
def client(reactor: Any, proxy: FaultyProxy) -> Iterator[Peer]:
    """A client of the proxy."""
    peer = connect(reactor, (proxy.host, proxy.port))
    yield peer
    peer.close()


async def test_faults_and_waits(proxy: FaultyProxy, client: Peer, server: Listening) -> None:
    """A test awaits what passes."""
    peer = await server.accept()
    with proxy.stall():
        await client.send(b"hello")
        await proxy.until_sessions(1)
        (session,) = proxy.sessions
        await proxy.until(lambda: session.sent == b"hello")
        assert not session.over
    assert await peer.receive(5) == b"hello"
    proxy.reset()
    assert await client.rest() == (b"", RESET)
    await proxy.until(lambda: session.over)


async def test_a_wait_that_fails(proxy: FaultyProxy) -> None:
    """The error says what the proxy has seen."""
    with pytest.raises(TimeoutError, match="there was no session"):
        await proxy.until(lambda: False, timeout=0.01)


async def test_a_cut_for_a_moment(
    reactor: Any, proxy: FaultyProxy, client: Peer, server: Listening
) -> None:
    """A cut that is over in the same turn leaves the port open."""
    await server.accept()
    await proxy.until_sessions(1)
    with proxy.cut():
        assert await client.rest() == (b"", RESET)
    with proxy.refuse():
        pass
    with proxy.hang():
        pass
    await proxy.open_door()
    other = connect(reactor, (proxy.host, proxy.port))
    peer = await server.accept()
    await peer.send(b"x")
    peer.close()
    assert await other.rest() == (b"x", END)
    other.close()


async def test_wrong_addresses(evproxy_twisted: ProxyMaker, server: Listening) -> None:
    """Each has an error of one line, and leaves nothing behind."""
    with pytest.raises(CannotListenError):
        evproxy_twisted("127.0.0.1", 1, host="127.0.0.1", port=server.port)
    with pytest.raises(SettingsError, match="upstream"):
        evproxy_twisted("tcp:")


async def test_a_proxy_on_ipv6(reactor: Any, evproxy_twisted: ProxyMaker) -> None:
    """Both sides may be IPv6."""
    server = Listening.tcp(reactor, "::1")
    proxy = evproxy_twisted("::1", server.port, host="::1")
    assert proxy.address == f"[::1]:{proxy.port}"
    client = connect(reactor, ("::1", proxy.port))
    peer = await server.accept()
    await peer.send(b"x")
    assert await client.receive(1) == b"x"
    client.close()
    server.close()


async def test_sessions_are_returned(proxy: FaultyProxy, client: Peer, server: Listening) -> None:
    """The wait for sessions has them as its result."""
    (await server.accept()).close()
    (session,) = await proxy.until_sessions(1)
    assert session is proxy.sessions[0]


@pytest.mark.parametrize("name", ["", "slow"])
async def test_an_injection_removes_only_its_own_fault(proxy: FaultyProxy, name: str) -> None:
    """An injection that `heal` has removed leaves a later one of the same name alone."""
    before = proxy.latency(1, name=name)
    proxy.heal()
    with proxy.latency(2, name=name):
        before.remove()
        assert [fault.latency for fault in proxy.faults.current.values()] == [2]
    assert proxy.faults.current == {}


async def test_a_stopped_proxy_stays_stopped(proxy: FaultyProxy) -> None:
    """What is removed after the stop does not open the port again."""
    with proxy.refuse(), proxy.hang():
        await proxy.stop()
    with socket.socket() as client:
        assert client.connect_ex((proxy.host, proxy.port)) == errno.ECONNREFUSED


def test_the_page_has_the_names_of_arguments() -> None:
    """Each method in the tables of docs/testing.md can be called with the names that they show."""
    shown = re.findall(r"`(\w+)\(([^)`]*)\)`", (ROOT / "docs" / "testing.md").read_text())
    methods = [(name, names) for name, names in shown if hasattr(FaultyProxy, name)]
    assert ("latency", "latency, jitter") in methods
    for name, names in methods:
        known = signature(getattr(FaultyProxy, name)).parameters
        for each in re.findall(r"(?<![\"\w])[a-z]\w*(?![\"\w])", names.partition("function")[0]):
            assert each in known, f"{name}({names})"


@pytest.mark.parametrize("wrong", [-1, "1", None])
async def test_numbers_that_are_wrong(proxy: FaultyProxy, wrong: Any) -> None:
    """The error names the argument, and nothing waits or is injected."""
    with pytest.raises(SettingsError, match=r"^timeout: expected a number of seconds"):
        proxy.until(lambda: True, wrong)
    with pytest.raises(SettingsError, match=r"^count: expected a whole number"):
        proxy.reset_next(wrong)
    with pytest.raises(SettingsError, match=r"^bytes: expected a whole number|^after_bytes: "):
        proxy.reset_next(bytes=wrong)
