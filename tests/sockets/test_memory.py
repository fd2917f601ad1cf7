"""A connection inside the process behaves as a TCP connection does for Twisted."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableDescriptor,
    IPushProducer,
    ITCPTransport,
)
from zope.interface.verify import verifyObject

from evproxy.sockets.memory import ROOM, connected_pair
from tests.support.endpoint_programs import HalfCloseable, Recorder
from tests.support.leaks import LoggedErrors
from tests.support.peers import turn


def pair(first: Recorder, second: Recorder) -> None:
    here, there = connected_pair(reactor, UNIXAddress("here"), UNIXAddress("there"))
    here.start(first)
    there.start(second)


async def reset(*protocols: Recorder) -> None:
    protocols[0].transport.abortConnection()
    for each in protocols:
        await each.over()


async def test_it_has_the_interfaces_that_it_claims() -> None:
    """Both ends have the interfaces, and each has the address of the other one."""
    pair(one := HalfCloseable(), two := HalfCloseable())
    for interface in (ITCPTransport, IConsumer, IPushProducer, IHalfCloseableDescriptor):
        assert verifyObject(interface, one.transport)
    assert one.transport.getHost() == two.transport.getPeer() == UNIXAddress("here")
    assert one.transport.getPeer() == two.transport.getHost() == UNIXAddress("there")
    await reset(one, two)


async def test_nothing_comes_within_a_call() -> None:
    """What one end writes, the other one reads in a later turn, in order."""
    pair(one := HalfCloseable(), two := HalfCloseable())
    one.transport.write(b"a")
    one.transport.writeSequence([b"b", b"c"])
    assert two.received == b""
    assert await two.read(3) == b"abc"
    with pytest.raises(TypeError):
        one.transport.write("text")
    await reset(one, two)


async def test_each_stream_ends_alone() -> None:
    """After the end of one stream, the other one goes on; then both ends close in order."""
    pair(one := HalfCloseable(), two := HalfCloseable())
    one.transport.write(b"question")
    one.transport.loseWriteConnection()
    one.transport.write(b"ignored")
    await two.until(lambda: two.ends == 1)
    assert two.received == b"question"
    two.transport.write(b"answer")
    two.transport.loseConnection()
    await one.until(lambda: one.ends == 1)
    assert one.received == b"answer"
    one.transport.loseConnection()
    for each in (one, two):
        assert (await each.over()).check(ConnectionDone)


async def test_an_end_closes_a_protocol_that_knows_no_half_close() -> None:
    """What that protocol has written before still arrives, and then the end."""
    pair(one := HalfCloseable(), two := Recorder())
    two.transport.write(b"answer")
    one.transport.loseWriteConnection()
    assert (await two.over()).check(ConnectionDone)
    await one.until(lambda: one.ends == 1)
    assert one.received == b"answer"
    one.transport.loseConnection()
    assert (await one.over()).check(ConnectionDone)


async def test_a_reset_discards_what_is_unread() -> None:
    """Each end learns of it in its own words, even while it does not read."""
    pair(one := HalfCloseable(), two := HalfCloseable())
    two.transport.pauseProducing()
    one.transport.write(b"unread")
    one.transport.abortConnection()
    assert (await one.over()).check(ConnectionAborted)
    assert (await two.over()).check(ConnectionLost)
    assert (two.received, two.ends) == (b"", 0)


async def test_an_end_that_closes_reads_no_more() -> None:
    """What it has not read holds up nobody: the other end closes, and its producer goes on."""
    pair(one := HalfCloseable(), two := HalfCloseable())
    two.transport.pauseProducing()
    one.transport.write(b"unread")
    two.transport.loseConnection()
    assert (await two.over()).check(ConnectionDone)
    await one.until(lambda: one.ends == 1)
    one.transport.loseConnection()
    assert (await one.over()).check(ConnectionDone)
    assert two.received == b""


async def test_to_write_to_an_end_that_is_gone_is_a_reset() -> None:
    """As for a socket whose peer has closed."""
    pair(one := HalfCloseable(), two := HalfCloseable())
    one.transport.loseConnection()
    await two.until(lambda: two.ends == 1)
    await one.over()
    two.transport.write(b"late")
    assert (await two.over()).check(ConnectionLost)


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_producer_waits_for_the_reader(streaming: bool) -> None:
    """At most `ROOM` bytes and one write wait to be read, and the close waits for the producer."""
    pair(one := HalfCloseable(), two := HalfCloseable())
    two.transport.pauseProducing()

    class Producer:
        written = 0
        paused = False

        def resumeProducing(self) -> None:
            self.paused = False
            self.produce()

        def produce(self) -> None:
            while self.written < 4 * ROOM and not self.paused:
                self.written += ROOM // 4
                one.transport.write(bytes(ROOM // 4))
                if not streaming:
                    return
            if self.written == 4 * ROOM:
                one.transport.unregisterProducer()

        def pauseProducing(self) -> None:
            self.paused = True

        def stopProducing(self) -> None:
            self.paused = True

    producer = Producer()
    one.transport.registerProducer(producer, streaming)
    with pytest.raises(RuntimeError, match="never unregistered"):
        one.transport.registerProducer(producer, streaming)
    if streaming:
        producer.produce()
    one.transport.loseConnection()
    for _ in range(10):
        await turn(reactor)
    assert producer.written == (ROOM if streaming else ROOM // 4)
    assert one.lost is None
    two.transport.resumeProducing()
    await one.over()
    await two.until(lambda: two.ends == 1)
    assert len(two.received) == 4 * ROOM
    two.transport.loseConnection()
    await two.over()


@pytest.mark.parametrize("method", ["connectionMade", "dataReceived"])
async def test_a_protocol_that_breaks_resets(method: str, logged_errors: LoggedErrors) -> None:
    """The exception is logged, and both ends are reset."""

    def broken(*arguments: Any) -> None:
        raise ZeroDivisionError

    one, two = HalfCloseable(), HalfCloseable()
    setattr(one, method, broken)
    pair(one, two)
    two.transport.write(b"x")
    assert (await one.over()).check(ConnectionAborted)
    assert (await two.over()).check(ConnectionLost)
    assert len(logged_errors.flush(ZeroDivisionError)) == 1
