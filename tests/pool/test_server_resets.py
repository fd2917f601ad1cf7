"""Servers that accept every session and reset it, which only the sessions can tell."""

from __future__ import annotations

from typing import Any

from evproxy import Ejection
from tests.support.peers import RESET, Listening
from tests.support.pools import Pooled


async def test_resets_before_any_answer_eject(reactor: Any, pooled: Pooled) -> None:
    """Three sessions in a row that a server resets before it sent a byte take it out."""
    bad, good = (pooled.closes(Listening.tcp(reactor)) for _ in range(2))
    address = f"127.0.0.1:{bad.port}"
    pooled.start(address, f"127.0.0.1:{good.port}", ejection=Ejection(base_time=60.0))
    for answered in (b"", b"", b"answer", b"", b"", b""):
        client, beside = pooled.client(), pooled.client()
        server = await bad.accept()
        await good.accept()
        await server.send(answered)
        assert await client.receive(len(answered)) == answered
        server.reset()
        assert await client.rest() == (b"", RESET)
        beside.reset()
    assert pooled.heard.lines == [f"{address} ejected: reset before any answer (3 of 3), for 60 s"]
