"""More bytes than any buffer holds, and checks of byte counts."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from evproxy.model import Ending, Side
from tests.support.peers import Peer
from tests.support.proxies import Proxied

BULK = random.Random(1).randbytes(8 * 1024 * 1024 + 12345)
ENDLESS = memoryview(BULK * 9)
"""More than the kernel ever takes while nobody reads."""

MANY = bytes(range(256)) * 4096
"""1 MiB: more than one read, and sent in a moment."""


def counted(proxied: Proxied) -> tuple[int, int, Ending]:
    """Return the byte counts in the record of the only session."""
    [record] = proxied.observed.records
    return record.bytes_to_upstream, record.bytes_to_downstream, record.reason.how


async def fill(reactor: Any, sender: Peer) -> int:
    """Send until no more bytes are taken; return how many bytes of `ENDLESS` were taken."""
    sent = quiet = 0
    while quiet < 20:
        taken = sender.send_now(ENDLESS[sent:])
        sent += taken
        quiet = 0 if taken else quiet + 1
        await deferLater(reactor, 0.001)
    assert sent < len(ENDLESS)
    return sent


def roles(side: Side, client: Peer, server: Peer) -> tuple[Peer, Peer]:
    """Return the peer at `side`, and the other peer."""
    return (client, server) if side is Side.DOWNSTREAM else (server, client)


async def passes(one: Any, other: Any) -> None:
    """Check that many bytes from one peer arrive at the other."""
    sending = Deferred.fromCoroutine(one.send(MANY))
    assert await other.receive(len(MANY)) == MANY
    await sending
