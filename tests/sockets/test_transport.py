"""`SocketTransport`, without a relay, keeps the promises of Twisted's TCP transport."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableDescriptor,
    IPushProducer,
    ISystemHandle,
    ITCPTransport,
)
from zope.interface.verify import verifyObject

from tests.support.leaks import LoggedErrors
from tests.support.peers import END, RESET, Peer
from tests.support.transports import HalfCloseable, Plain, Producer, Workbench

pytestmark = [pytest.mark.deadline(20), pytest.mark.oldest_twisted, pytest.mark.every_reactor]

MANY = bytes(range(256)) * 65536  # 16 MiB


async def test_it_has_the_interfaces_that_it_claims(workbench: Workbench) -> None:
    """It provides all interfaces of Twisted's own TCP transport."""
    transport, _ = workbench.connect(Plain())
    for interface in (
        *(ITCPTransport, IConsumer, IPushProducer),
        *(IHalfCloseableDescriptor, ISystemHandle),
    ):
        assert verifyObject(interface, transport)


@pytest.mark.parametrize(("host", "kind"), [("127.0.0.1", IPv4Address), ("::1", IPv6Address)])
async def test_addresses(host: str, kind: Any, workbench: Workbench) -> None:
    """It has both addresses, in Twisted's form."""
    transport, peer = workbench.connect(Plain(), host)
    assert transport.getPeer() == kind("TCP", *peer.socket.getsockname())
    assert transport.getHost() == kind("TCP", *peer.socket.getpeername())


async def test_unix_addresses(workbench: Workbench) -> None:
    """A UNIX socket without a name has an address without one."""
    ours, theirs = socket.socketpair()
    transport, _ = workbench.take(ours, "", Plain(), Peer(workbench.reactor, theirs))
    assert transport.getPeer() == transport.getHost() == UNIXAddress(None)


async def test_options_of_the_socket(workbench: Workbench) -> None:
    """No delay and keepalive can be set and read."""
    transport, _ = workbench.connect(Plain())
    for value in (True, False):
        transport.setTcpNoDelay(value)
        transport.setTcpKeepAlive(value)
        assert transport.getTcpNoDelay() is transport.getTcpKeepAlive() is value
    assert transport.getHandle().fileno() == transport.fileno()


async def test_writes_keep_their_order_under_pressure(workbench: Workbench) -> None:
    """All that was written is sent in order, and before loseConnection closes the connection."""
    protocol = Plain()
    transport, peer = workbench.connect(protocol)
    transport.write(MANY)
    transport.writeSequence([b"one", b"", b"two"])
    transport.write(b"three")
    transport.loseConnection()
    transport.loseConnection()
    assert await peer.rest() == (MANY + b"onetwothree", END)
    assert await protocol.end() is ConnectionDone


async def test_only_bytes_can_be_written(workbench: Workbench) -> None:
    """A write of text raises an exception at once, as in Twisted."""
    transport, _ = workbench.connect(Plain())
    with pytest.raises(TypeError):
        transport.write("text")  # type: ignore[arg-type]


async def test_a_push_producer_is_paused_and_resumed(workbench: Workbench) -> None:
    """It is paused while bytes are kept, and resumed when all are sent; closing waits for it."""
    protocol, producer = Plain(), Producer()
    transport, peer = workbench.connect(protocol)
    transport.registerProducer(producer, True)
    with pytest.raises(RuntimeError):
        transport.registerProducer(Producer(), True)
    transport.write(b"small")
    assert producer.asked == []
    transport.write(MANY)
    assert producer.asked == ["pause"]
    transport.loseConnection()
    assert await peer.receive(5 + len(MANY)) == b"small" + MANY
    await workbench.turns()
    assert producer.asked == ["pause", "resume"]
    assert protocol.lost is None
    transport.write(b"last")
    transport.unregisterProducer()
    assert await peer.rest() == (b"last", END)
    assert await protocol.end() is ConnectionDone


async def test_a_pull_producer_is_asked_for_each_piece(workbench: Workbench) -> None:
    """The transport asks it at once, and again whenever all is sent, until it is unregistered."""
    pieces = [b"a" * 100, MANY, b"z"]

    def resumed() -> None:
        if pieces:
            transport.write(pieces.pop(0))
            transport.startWriting()
        else:
            transport.unregisterProducer()
            transport.loseConnection()

    protocol, producer = Plain(), Producer(resumed)
    transport, peer = workbench.connect(protocol)
    transport.registerProducer(producer, False)
    assert await peer.rest() == (b"a" * 100 + MANY + b"z", END)
    assert producer.asked == ["resume"] * 4
    assert await protocol.end() is ConnectionDone


async def test_a_producer_is_stopped_with_the_connection(workbench: Workbench) -> None:
    """A producer is stopped when nothing can be written any more, even if it registers late."""
    protocol, producer, late = Plain(), Producer(), Producer()
    transport, peer = workbench.connect(protocol)
    transport.registerProducer(producer, True)
    peer.reset()
    assert await protocol.end() is ConnectionLost
    assert producer.asked == ["stop"]
    transport.registerProducer(late, True)
    assert late.asked == ["stop"]
    transport.write(b"nobody")


async def test_an_abort_resets(workbench: Workbench) -> None:
    """An aborted connection is reset at once, whatever is kept or produced."""
    protocol, producer = Plain(), Producer()
    transport, peer = workbench.connect(protocol)
    transport.registerProducer(producer, True)
    transport.write(MANY)
    transport.abortConnection()
    assert protocol.lost is None
    received, end = await peer.rest()
    assert end == RESET
    assert MANY.startswith(received)
    assert await protocol.end() is ConnectionAborted
    assert producer.asked == ["pause", "stop"]


async def test_each_stream_ends_alone(workbench: Workbench) -> None:
    """Half-close: the protocol is notified of each end, and the other direction goes on."""
    protocol = HalfCloseable()
    transport, peer = workbench.connect(protocol)
    transport.write(MANY)
    transport.loseWriteConnection()
    transport.write(b"too late")
    assert protocol.told == []
    assert await peer.rest() == (MANY, END)
    assert protocol.told == ["write"]
    transport.startWriting()
    await workbench.turns()
    await peer.send(b"answer")
    peer.end()
    await protocol.until(lambda: "read" in protocol.told)
    assert protocol.received == b"answer"
    assert protocol.lost is None
    transport.loseConnection()
    assert await protocol.end() is ConnectionDone
    assert protocol.told == ["write", "read"]


async def test_an_end_closes_what_cannot_be_half_closed(workbench: Workbench) -> None:
    """A protocol without half-close loses its connection when the peer ends its stream."""
    protocol = Plain()
    _, peer = workbench.connect(protocol)
    await peer.send(b"bye")
    peer.end()
    assert await protocol.end() is ConnectionDone
    assert protocol.received == b"bye"


async def test_what_came_before_a_reset_is_delivered(workbench: Workbench) -> None:
    """The peer's last bytes arrive even if a write finds out about the reset before."""
    protocol = Plain()
    transport, peer = workbench.connect(protocol)
    await peer.send(b"last words")
    peer.reset()
    transport.write(b"nobody hears this")
    transport.write(b"nor this")
    assert await protocol.end() is ConnectionLost
    assert protocol.received == b"last words"


async def test_a_reset_while_it_is_paused(workbench: Workbench) -> None:
    """While it is paused, nothing is read but a reset is reported; the bytes are read later."""
    protocol = Plain()
    transport, peer = workbench.connect(protocol)
    transport.pauseProducing()
    await peer.send(b"last words")
    await workbench.turns()
    assert protocol.received == b""
    peer.reset()
    await protocol.until(lambda: protocol.told == ["peer reset"])
    assert protocol.received == b""
    transport.resumeProducing()
    assert await protocol.end() is ConnectionLost
    assert protocol.received == b"last words"


async def test_losing_a_connection_that_hung_up_while_paused(workbench: Workbench) -> None:
    """A connection that was reset while it was paused can still be closed."""
    protocol = Plain()
    transport, peer = workbench.connect(protocol)
    transport.pauseProducing()
    transport.write(MANY)
    peer.reset()
    await protocol.until(lambda: protocol.told == ["peer reset"])
    transport.stopProducing()
    assert await protocol.end() in (ConnectionDone, ConnectionLost)


@pytest.mark.parametrize("method", ["dataReceived", "readConnectionLost", "connectionLost"])
async def test_a_protocol_that_breaks(
    method: str, workbench: Workbench, logged_errors: LoggedErrors
) -> None:
    """An exception in a protocol is logged, and closes only its own connection."""

    def broken(*arguments: object) -> None:
        raise LookupError("a mistake")

    breaking, well = HalfCloseable(), HalfCloseable()
    setattr(breaking, method, broken)
    _, bad_peer = workbench.connect(breaking)
    other, good_peer = workbench.connect(well)
    bad_peer.send_now(b"x")
    good_peer.send_now(b"y")
    if method == "connectionLost":
        bad_peer.reset()
    else:
        bad_peer.end()
        assert (await bad_peer.rest())[0] == b""
    await well.until(lambda: well.received == b"y")
    await workbench.turns()
    other.write(b"still here")
    assert await good_peer.receive(10) == b"still here"
    assert len(logged_errors.flush(LookupError)) == 1
