"""The fixture `evproxy`: proxies for plain tests and for tests of asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from evproxy.errors import SettingsError
from evproxy.faults import truncate
from evproxy.model import Ending
from evproxy.testing import ThreadedProxy
from evproxy.testing.seen import MOST_SESSIONS
from tests.support.echo import EchoServer

ProxyMaker = Callable[..., ThreadedProxy]


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    """A server that sends back what it gets, in threads."""
    with EchoServer() as server:
        yield server


@pytest.fixture
def proxy(evproxy: ProxyMaker, echo: EchoServer) -> ThreadedProxy:
    """A proxy in front of the echo server."""
    return evproxy("127.0.0.1", echo.port)


@contextlib.contextmanager
def client_of(proxy: ThreadedProxy, timeout: float = 5.0) -> Iterator[socket.socket]:
    """A client of `proxy`."""
    with socket.create_connection((proxy.host, proxy.port), timeout=timeout) as client:
        yield client


def echoes(client: socket.socket, data: bytes = b"hello") -> bool:
    """Whether the server answers with the same bytes."""
    client.sendall(data)
    return client.recv(len(data)) == data


def test_latency(proxy: ThreadedProxy) -> None:
    """As a context manager, a fault is over at the end of the block."""
    with client_of(proxy) as client:
        with proxy.latency(0.3):
            began = time.monotonic()
            assert echoes(client)
            assert time.monotonic() - began >= 0.3
        began = time.monotonic()
        assert echoes(client)
        assert time.monotonic() - began < 0.3


def test_two_faults_of_a_kind(proxy: ThreadedProxy) -> None:
    """Two latencies add up, and each is removed by itself."""
    with client_of(proxy) as client, proxy.latency(0.05) as first, proxy.latency(0.05):
        began = time.monotonic()
        assert echoes(client)
        assert time.monotonic() - began >= 0.1
        first.remove()
        first.remove()
        assert echoes(client)


def test_a_server_that_refuses_and_one_that_hangs(proxy: ThreadedProxy) -> None:
    """The client is reset; or its answer comes once the server can be reached."""
    with (
        proxy.server_refuses(),
        # The reset may come while the client still connects.
        pytest.raises(ConnectionResetError),
        client_of(proxy) as client,
    ):
        client.recv(1)
    with proxy.server_hangs() as hanging, client_of(proxy) as client:
        client.sendall(b"hello")
        hanging.remove()
        assert client.recv(5) == b"hello"


def test_a_cut(proxy: ThreadedProxy) -> None:
    """Sessions are reset, new connections are refused on the same port, and then accepted."""
    with client_of(proxy) as client:
        assert echoes(client)
        with proxy.cut():
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((proxy.host, proxy.port), timeout=5)
    with client_of(proxy) as client:
        assert echoes(client)


def test_refused(proxy: ThreadedProxy) -> None:
    """Sessions go on while new connections are refused."""
    with client_of(proxy) as client:
        assert echoes(client)
        with proxy.refuse():
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((proxy.host, proxy.port), timeout=5)
            assert echoes(client)


def test_a_connect_that_hangs(proxy: ThreadedProxy) -> None:
    """An attempt to connect gets no answer, until that is over."""
    with proxy.hang(), pytest.raises(TimeoutError):
        socket.create_connection((proxy.host, proxy.port), timeout=0.2)
    with client_of(proxy) as client:
        assert echoes(client)


def test_a_stall(proxy: ThreadedProxy) -> None:
    """Nothing passes, and everything afterwards."""
    with client_of(proxy, timeout=0.2) as client:
        with proxy.stall():
            client.sendall(b"hello")
            with pytest.raises(TimeoutError):
                client.recv(5)
        client.settimeout(5)
        assert client.recv(5) == b"hello"


def test_the_next_sessions_are_reset(proxy: ThreadedProxy) -> None:
    """Not the running one, and not a later one."""
    with client_of(proxy) as running:
        assert echoes(running)
        proxy.reset_next(2, bytes=3)
        for _ in range(2):
            with client_of(proxy) as client:
                client.sendall(b"hello")
                assert client.recv(5) == b"hel"
                with pytest.raises(ConnectionResetError):
                    client.recv(5)
        assert echoes(running)
    with client_of(proxy) as client:
        assert echoes(client)


def test_live_sessions_are_reset(proxy: ThreadedProxy) -> None:
    """`reset` says how many there were."""
    with client_of(proxy) as client:
        assert echoes(client)
        assert proxy.reset() == 1
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_everything_is_healed(proxy: ThreadedProxy) -> None:
    """`heal` removes what nobody has removed."""
    proxy.stall()
    proxy.limit(1)
    proxy.corrupt(1.0)
    proxy.refuse()
    proxy.heal()
    with client_of(proxy) as client:
        assert echoes(client)


@pytest.mark.parametrize(
    "inject",
    [
        lambda proxy: proxy.bandwidth(10**9),
        lambda proxy: proxy.slicer(2),
        lambda proxy: proxy.slow_close(0.01),
        lambda proxy: proxy.timeout(after=3600),
        lambda proxy: proxy.half_open(after=3600),
        lambda proxy: proxy.end(100),
        lambda proxy: proxy.truncate(100),
        lambda proxy: proxy.tls_failure(probability=0.5),
        lambda proxy: proxy.tls_stall(name="no_handshake"),
    ],
)
def test_every_other_fault(proxy: ThreadedProxy, inject: Callable[[ThreadedProxy], object]) -> None:
    """Each can be injected; here none of them breaks five bytes."""
    inject(proxy)
    with client_of(proxy) as client:
        client.sendall(b"hello")
        assert client.recv(1) == b"h"


def test_what_passed(proxy: ThreadedProxy) -> None:
    """A session has the bytes of its client, and how it ended."""
    with proxy.truncate(4):
        with client_of(proxy) as client:
            client.sendall(b"hello")
            assert client.recv(5) == b"hell"
            proxy.wait_for(lambda: proxy.sessions[0].sent == b"hello")
            (session,) = proxy.sessions
            assert (session.sent, session.received, session.over) == (b"hello", b"hell", False)
        proxy.wait_for(lambda: session.over)
    assert session.client_ended
    assert session.server_ended
    assert session.reason is not None
    assert session.reason.how is Ending.FINISHED
    assert "sent 5 bytes, received 4" in repr(session)


def test_a_wait_that_fails(proxy: ThreadedProxy) -> None:
    """The error says what the proxy has seen."""
    with pytest.raises(TimeoutError, match=r"after 0\.05 s: there was no session"):
        proxy.wait_for(lambda: False, timeout=0.05)


def test_sessions_are_awaited(proxy: ThreadedProxy) -> None:
    """A test waits for a number of sessions."""
    with client_of(proxy), client_of(proxy):
        assert len(proxy.wait_for_sessions(2)) == 2


def test_a_wait_with_asyncio(proxy: ThreadedProxy) -> None:
    """The same proxy serves a test of asyncio, whose loop is not blocked."""

    async def test() -> None:
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        with proxy.stall():
            writer.write(b"hello")
            (session,) = await proxy.until_sessions(1)
            await proxy.until(lambda: session.sent == b"hello")
            assert session.received == b""
        assert await reader.readexactly(5) == b"hello"
        with pytest.raises(TimeoutError):
            await proxy.until(lambda: False, timeout=0.05)
        writer.close()
        await writer.wait_closed()

    asyncio.run(test())


def test_one_seed_gives_one_proxy_the_same_seed(evproxy: ProxyMaker, echo: EchoServer) -> None:
    """A proxy with a given seed has it; others have seeds of the test."""
    assert evproxy("127.0.0.1", echo.port, seed=7).seed == 7
    assert evproxy(f"127.0.0.1:{echo.port}").seed != evproxy("127.0.0.1", echo.port).seed


def test_a_fault_for_some_sessions(proxy: ThreadedProxy) -> None:
    """`inject` takes a predicate."""
    proxy.inject(truncate(1), where=lambda status: status.id == 2)
    with client_of(proxy) as first:
        assert echoes(first)
        with client_of(proxy) as second:
            second.sendall(b"hello")
            second.shutdown(socket.SHUT_WR)
            assert second.recv(5) == b"h"


def test_a_condition_that_raises(proxy: ThreadedProxy) -> None:
    """Who waits gets the exception, now or later; no session is touched, and no later wait."""
    with pytest.raises(ZeroDivisionError):
        proxy.wait_for(lambda: 1 / 0)

    async def wait() -> None:
        waiting = asyncio.ensure_future(proxy.until(lambda: proxy.sessions and 1 / 0))
        await asyncio.sleep(0)
        with client_of(proxy) as client:
            assert await asyncio.to_thread(echoes, client)
            with pytest.raises(ZeroDivisionError):
                await waiting
            assert await asyncio.to_thread(echoes, client)

    asyncio.run(wait())
    proxy.wait_for_sessions(1)


def test_a_wait_that_is_cancelled(proxy: ThreadedProxy) -> None:
    """It is forgotten: what makes its condition true later disturbs nobody."""

    async def wait() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(proxy.until_sessions(1), 0.05)
        with client_of(proxy) as client:
            assert await asyncio.to_thread(echoes, client)
        assert await proxy.until_sessions(1) == proxy.sessions

    asyncio.run(wait())


def test_doors_are_closed_more_than_once(proxy: ThreadedProxy) -> None:
    """Connections are accepted once nothing refuses them any more."""
    first, second = proxy.cut(), proxy.refuse()
    for injection in (first, second):
        with pytest.raises(ConnectionRefusedError), client_of(proxy):
            pass
        injection.remove()
    with client_of(proxy) as client:
        assert echoes(client)


def test_resets_of_next_sessions_add_up(proxy: ThreadedProxy) -> None:
    """Two calls reset two sessions."""
    proxy.reset_next()
    proxy.reset_next()
    for _ in range(2):
        with client_of(proxy) as client, pytest.raises(ConnectionResetError):
            echoes(client)
    with client_of(proxy) as client:
        assert echoes(client)


def test_the_reactor_of_the_process() -> None:
    """A second reactor does not make Twisted believe that the first one runs in its thread."""
    program = """
from twisted.internet import reactor
from twisted.python.threadable import isInIOThread
from evproxy.testing.thread import ReactorThread

def look():
    assert isInIOThread()
    thread = ReactorThread()
    found.append(isInIOThread())
    thread.stop()
    reactor.stop()

found = []
reactor.callWhenRunning(look)
reactor.run()
assert found == [True]
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_next_session_after_many(proxy: ThreadedProxy) -> None:
    """A running session is not the next one, also if it is not among those that are kept."""
    with client_of(proxy) as old:
        assert echoes(old)
        for _ in range(MOST_SESSIONS):
            with client_of(proxy) as client:
                assert echoes(client)
        proxy.reset_next()
        with client_of(proxy) as following, pytest.raises(ConnectionResetError):
            echoes(following)
        assert echoes(old)


def test_resets_are_used_up(proxy: ThreadedProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them leaves nothing behind once its session is over."""
    monkeypatch.setattr("evproxy.faults.faults.MOST_FAULTS", 3)
    for _ in range(5):
        proxy.reset_next()
        with client_of(proxy) as client, pytest.raises(ConnectionResetError):
            echoes(client)
        proxy.wait_for(lambda: all(each.over for each in proxy.sessions))
        with client_of(proxy) as client:
            assert echoes(client)


def test_a_reset_that_is_healed(proxy: ThreadedProxy) -> None:
    """It takes no session from the next one."""
    proxy.reset_next(5)
    proxy.heal()
    proxy.reset_next()
    with client_of(proxy) as client, pytest.raises(ConnectionResetError):
        echoes(client)
    with client_of(proxy) as client:
        assert echoes(client)


def test_what_is_no_fault(proxy: ThreadedProxy) -> None:
    """Errors name the argument."""
    wrong: Any = "latency"
    with pytest.raises(SettingsError, match=r"^fault: expected a FaultSettings, got 'latency'$"):
        proxy.inject(wrong)
    with pytest.raises(SettingsError, match=r"^timeout: expected a number of seconds"):
        proxy.wait_for(lambda: True, wrong)
