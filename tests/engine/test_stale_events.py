"""Stale events: true when their batch was polled, and no longer true when they are handled."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from evproxy.model import Ending, Side
from evproxy.relay.socket_relay import SocketRelay
from tests.support.batches import Trigger
from tests.support.bulk import BULK
from tests.support.peers import END, Peer
from tests.support.transports import HalfCloseable, Listener, Plain, Workbench

pytestmark = pytest.mark.deadline(10)


def narrow(workbench: Workbench) -> tuple[Any, Peer]:
    """Return a transport with a small send buffer."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        peer = Peer(workbench.reactor, socket.socket())
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.socket.setblocking(True)
        peer.socket.connect(listening.getsockname())
        peer.socket.setblocking(False)
        return workbench.take(*listening.accept(), Plain(), peer)


async def test_more_comes_in_the_batch_in_which_it_is_joined(workbench: Workbench) -> None:
    """
    Bytes that are ready in the batch of the join are read only when there is room.

    The early bytes of the client do not all fit, and its next bytes are ready in the same batch.
    No byte is lost or out of order.
    """
    down, client = workbench.connect(HalfCloseable())
    up, server = narrow(workbench)
    listener = Listener()
    relay = SocketRelay(workbench.engine, down, up, listener)
    early, later = BULK[:60_000], BULK[60_000:130_000]
    joined = Trigger(workbench.engine, lambda: relay.start(early, False))
    joined.pull()
    client.send_now(later)
    await workbench.turns()
    assert relay.bytes_to_upstream < len(early)
    client.end()
    assert await server.rest() == (early + later, END)
    server.end()
    assert await listener.closed == (Side.DOWNSTREAM, Ending.FINISHED)
