"""The socket relay alone, with events in orders that are rare in real sessions."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from twisted.internet.defer import Deferred

from evproxy.engine.loop import CHUNK, ERR, HANG_UP, IN, IN_VAIN
from evproxy.model import Ending, Side
from evproxy.relay.socket_relay import SocketRelay
from tests.support.batches import Trigger
from tests.support.peers import END, RESET
from tests.support.transports import HalfCloseable, Listener, Plain, Workbench

pytestmark = [pytest.mark.deadline(10), pytest.mark.every_reactor]


async def test_both_are_reset_and_are_told_of_in_different_batches(workbench: Workbench) -> None:
    """
    One end finds that nothing can be sent to the other, and hangs up before the other end is
    handled: nothing can be delivered, so the session is over.
    """
    (down, client), (up, server) = workbench.connect(Plain()), workbench.connect(Plain())
    listener = Listener()
    relay = SocketRelay(workbench.engine, down, up, listener)
    relay.start(b"", False)
    client.send_now(b"x")
    server.send_now(b"y")
    client.reset()
    server.reset()
    down.event(IN | ERR | HANG_UP)
    down.event(ERR | HANG_UP)
    up.event(IN | ERR | HANG_UP)
    assert await listener.closed == (Side.UPSTREAM, Ending.RESET)


async def test_an_end_that_came_before_is_passed_on_once(workbench: Workbench) -> None:
    """A client that ended its stream before it was joined is half-closed once."""
    (down, client), (up, server) = workbench.connect(HalfCloseable()), workbench.connect(Plain())
    client.end()
    await workbench.turns()
    listener = Listener()
    relay = SocketRelay(workbench.engine, down, up, listener)
    relay.start(b"question", True)
    assert await server.rest() == (b"question", END)
    assert listener.half_closed == [Side.DOWNSTREAM]
    server.end()
    assert await listener.closed == (Side.DOWNSTREAM, Ending.FINISHED)


async def in_batch(workbench: Workbench, call: Callable[[], None]) -> None:
    """Call `call` in a batch of the engine, and go on before the next one."""
    over: Deferred[None] = Deferred()

    def called() -> None:
        workbench.engine.after_batch(lambda: over.callback(None))
        call()

    Trigger(workbench.engine, called).pull()
    await over


async def speak_first(workbench: Workbench, says: bytes) -> bool:
    """Whether bytes that a client sends before its relay begins are passed on in that batch."""
    (down, client), (up, server) = workbench.connect(Plain()), workbench.connect(Plain())
    relay = SocketRelay(workbench.engine, down, up, Listener())

    def begin() -> None:
        client.send_now(says)
        relay.start(b"", False)

    await in_batch(workbench, begin)
    try:
        return server.socket.recv(100) == says
    except BlockingIOError:
        assert relay.bytes_to_upstream == 0
        return False


async def test_the_first_bytes_are_there(workbench: Workbench) -> None:
    """They need no event, but after a silent client the next few are not read early."""
    for _ in range(3):
        assert await speak_first(workbench, b"hello")
    assert not await speak_first(workbench, b"")
    for _ in range(IN_VAIN):
        assert not await speak_first(workbench, b"hello")
    for _ in range(3):
        assert await speak_first(workbench, b"hello")


async def test_the_first_bytes_are_not_asked_for(workbench: Workbench) -> None:
    """Then they come with an event, and also if a relay begins outside of a batch."""
    assert not await speak_first(workbench, b"")
    (down, client), (up, server) = workbench.connect(Plain()), workbench.connect(Plain())
    relay = SocketRelay(workbench.engine, down, up, Listener())
    client.send_now(b"hello")
    await in_batch(workbench, lambda: relay.start(b"", False))
    assert await server.receive(5) == b"hello"
    (down, client), (up, server) = workbench.connect(Plain()), workbench.connect(Plain())
    client.send_now(b"hello")
    SocketRelay(workbench.engine, down, up, Listener()).start(b"", False)
    assert await server.receive(5) == b"hello"


async def test_the_first_bytes_of_another(workbench: Workbench) -> None:
    """Bytes that the caller of `start` passes on come before bytes that are read early."""
    (down, client), (up, server) = workbench.connect(Plain()), workbench.connect(Plain())
    relay = SocketRelay(workbench.engine, down, up, Listener())

    def begin() -> None:
        client.send_now(b"world")
        relay.start(b"", False)
        down.received(b"hello ")

    await in_batch(workbench, begin)
    assert await server.receive(11) == b"hello world"


async def test_it_is_reset_before_its_first_bytes_are_read(workbench: Workbench) -> None:
    """A relay that ends in the batch in which it began reads nothing."""
    (down, client), (up, server) = workbench.connect(Plain()), workbench.connect(Plain())
    listener = Listener()
    relay = SocketRelay(workbench.engine, down, up, listener)

    def begin() -> None:
        client.send_now(b"hello")
        relay.start(b"", False)
        relay.reset(Side.PROXY, Ending.ERROR)

    await in_batch(workbench, begin)
    assert await listener.closed == (Side.PROXY, Ending.ERROR)
    assert await server.rest() == (b"", RESET)


@pytest.mark.parametrize("says", [b"", b"hello"])
async def test_the_end_is_there(workbench: Workbench, says: bytes) -> None:
    """An end in order that comes with the first bytes is not lost."""
    (down, client), (up, server) = workbench.connect(Plain()), workbench.connect(Plain())
    listener = Listener()
    relay = SocketRelay(workbench.engine, down, up, listener)

    def begin() -> None:
        client.send_now(says)
        client.end()
        relay.start(b"", False)

    await in_batch(workbench, begin)
    assert await server.rest() == (says, END)
    server.end()
    assert await listener.closed == (Side.DOWNSTREAM, Ending.FINISHED)


async def test_the_reset_is_there(workbench: Workbench) -> None:
    """A reset that comes with the first bytes is not lost."""
    (down, client), (up, server) = workbench.connect(Plain()), workbench.connect(Plain())
    listener = Listener()
    relay = SocketRelay(workbench.engine, down, up, listener)

    def begin() -> None:
        client.reset()
        relay.start(b"", False)

    await in_batch(workbench, begin)
    assert (await server.rest())[1] == RESET
    assert await listener.closed == (Side.DOWNSTREAM, Ending.RESET)


async def test_small_writes_behind_a_large_one(workbench: Workbench) -> None:
    """A write behind a large backlog does not copy the backlog."""
    (down, _), (up, server) = workbench.connect(Plain()), workbench.connect(Plain())
    SocketRelay(workbench.engine, down, up, Listener()).start(b"", False)
    large = bytes(16 * 1024 * 1024)
    up.write(large)
    # This write may make the buffer larger.
    up.write(b"!")
    tracemalloc.start()
    up.write(b"!")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < CHUNK
    assert await server.receive(len(large) + 2) == large + b"!!"
