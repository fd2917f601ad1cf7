"""Which bytes count as moved for the idle timeout, on each kind of relay."""

from __future__ import annotations

import socket

import pytest
from twisted.internet.task import deferLater

from evproxy.model import Ending, Side
from evproxy.relay.delivery import unsent
from evproxy.settings import Timeouts
from tests.support.bulk import BULK, roles
from tests.support.peers import RESET, converse
from tests.support.proxies import Proxied

pytestmark = [pytest.mark.deadline(15), pytest.mark.every_reactor]

IDLE = 0.2
PAUSE = IDLE / 5


@pytest.mark.parametrize("side", [Side.DOWNSTREAM, Side.UPSTREAM])
async def test_a_slow_reader_that_takes_what_the_kernel_holds(proxied: Proxied, side: Side) -> None:
    """
    After evproxy has passed everything on, bytes still move while the reader takes some.

    Once the reader takes no more, the session is idle.
    """
    await proxied.start(timeouts=Timeouts(idle=IDLE))
    client, server = await proxied.pair()
    await converse(client, server)
    sender, reader = roles(side, client, server)
    reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sent = BULK[:400_000]
    await sender.send(sent)
    [session] = proxied.admission.sessions
    relay = session.relay
    assert relay is not None
    while relay.bytes_to_upstream + relay.bytes_to_downstream < 2 + len(sent):
        await deferLater(proxied.reactor, 0)
    while unsent(sender.socket.fileno()):
        await deferLater(proxied.reactor, 0)
    passed_on = proxied.reactor.seconds()
    received = b""
    while proxied.reactor.seconds() - passed_on < 3 * IDLE:
        received += await reader.some(8192)
        await deferLater(proxied.reactor, PAUSE)
    assert not proxied.observed.records
    assert received == sent[: len(received)]
    assert len(received) < len(sent) // 2
    await proxied.observed.ended()
    [record] = proxied.observed.records
    assert record.reason.how is Ending.IDLE
    assert record.bytes_to_upstream + record.bytes_to_downstream == 2 + len(sent)
    assert (await sender.rest())[1] == RESET
