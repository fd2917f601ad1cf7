"""The viewers of the live page."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from study.live.page import PATIENCE, Viewers, site
from study.live.stage import Stage
from tests.support.peers import RESET, Peer, connect


async def until(peer: Peer, text: bytes) -> None:
    """Read until `text` has come."""
    got = b""
    while text not in got:
        got = got[-len(text) :] + await peer.some()


async def watch(reactor: Any, port: int) -> Peer:
    """A viewer who has got the first events."""
    peer = connect(reactor, ("127.0.0.1", port))
    await peer.send(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
    await until(peer, b"block")
    return peer


async def test_a_viewer_who_does_not_read(reactor: Any) -> None:
    """After `PATIENCE` seconds it is reset, and the others go on."""
    clock = Clock()
    clock.callFromThread = reactor.callFromThread  # type: ignore[attr-defined]
    viewers = Viewers(clock)
    stage = Stage(viewers.tell, [], 0, 0)
    port = reactor.listenTCP(0, site(stage, viewers), interface="127.0.0.1")
    reads, stuck = [await watch(reactor, port.getHost().port) for _ in range(2)]
    for number in range(20):
        viewers.tell({"kind": "large", "text": "x" * 500_000, "end": f"<{number}>"})
        await until(reads, b"<%d>" % number)
    clock.advance(PATIENCE + 1)
    viewers.tell({"kind": "last"})
    await until(reads, b"last")
    assert (await stuck.rest())[1] == RESET
    viewers.close()
    reads.close()
    stuck.close()
    await maybeDeferred(port.stopListening)
