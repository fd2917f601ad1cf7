"""What becomes of a session whose faults are removed or replaced after they have acted."""

from __future__ import annotations

import pytest

from evproxy.faults import (
    Faults,
    FaultSettings,
    end,
    half_open,
    latency,
    limit,
    reset,
    stall,
    truncate,
)
from tests.support.faulty_stage import FaultySession
from tests.support.peers import END, RESET, turn
from tests.support.proxies import Proxied

BYTES = bytes(range(100))


@pytest.mark.parametrize(
    ("fault", "event"),
    [(truncate(10), "closed"), (reset(10, delay=5.0), "reset")],
    ids=lambda value: getattr(value, "kind", None),
)
@pytest.mark.parametrize("by", [None, latency(0.0), FaultSettings("timeout")])
def test_no_byte_arrives_after_a_gap(
    fault: FaultSettings, event: str, by: FaultSettings | None
) -> None:
    """A cut that has dropped bytes ends its session, if it is removed or if another kind comes."""
    session = FaultySession(fault)
    session.download(BYTES)
    if by is None:
        session.faults.remove(fault.called)
    else:
        session.faults.replace(fault.called, by)
    session.download(BYTES)
    assert session.client.received == BYTES[:10]
    assert session.client.events == [(event, 10)]
    assert session.timers == 0


@pytest.mark.parametrize("fault", [truncate(10), reset(10, delay=5.0)])
def test_a_cut_without_a_gap_is_removed(fault: FaultSettings) -> None:
    """Exactly the bytes before the cut have come: nothing is missing, and the session goes on."""
    session = FaultySession(fault)
    session.download(BYTES[:10])
    session.faults.remove(fault.called)
    session.download(BYTES[10:])
    session.clock.advance(10.0)
    assert (session.client.received, session.client.events) == (BYTES, [])


def test_a_reset_that_swallowed_an_end() -> None:
    """The session is reset, though no byte is missing."""
    for sent in (BYTES[:10], b""):
        session = FaultySession(reset(len(sent), delay=5.0))
        session.download(sent)
        session.server_ends()
        session.faults.clear()
        assert session.client.events == [("reset", len(sent))]
        assert session.timers == 0


def test_a_reset_that_hid_a_loss() -> None:
    """The client notices at once that the server is gone."""
    for sent in (BYTES[:10], b""):
        session = FaultySession(reset(len(sent), delay=5.0))
        session.download(sent)
        assert session.server_resets()
        session.faults.clear()
        assert session.client.events == [("reset", len(sent))]


def test_a_reset_that_is_replaced_during_its_delay() -> None:
    """The delay of the new one counts, and nothing passes meanwhile."""
    session = FaultySession(reset(10, delay=5.0))
    session.download(BYTES)
    session.clock.advance(4.0)
    session.faults.replace("reset_downstream", reset(50, delay=3.0))
    session.download(BYTES)
    session.clock.advance(2.5)
    assert session.client.events == []
    session.clock.advance(0.5)
    assert session.client.received == BYTES[:10]
    assert session.client.events == [("reset", 10)]


def test_a_truncated_stream_stays_truncated() -> None:
    """A larger truncation passes no byte after a gap; without a gap, it passes the difference."""
    for first, passed in ((20, 10), (10, 30)):
        session = FaultySession(truncate(10))
        session.download(BYTES[:first])
        session.faults.replace("truncate_downstream", truncate(30))
        session.download(BYTES[first:])
        session.server_ends()
        assert session.client.received == BYTES[:passed]
        assert session.client.events == [("end", passed)]


@pytest.mark.parametrize("behind", [stall(), half_open()], ids=lambda fault: fault.kind)
@pytest.mark.parametrize("change", ["remove", "replace"])
def test_an_ended_stream_stays_ended(behind: FaultSettings, change: str) -> None:
    """The other stream goes on; no byte comes after the end, whatever holds the end."""
    session = FaultySession(end(10), behind)
    session.download(BYTES)
    if change == "remove":
        session.faults.remove("end_downstream")
    else:
        session.faults.replace("end_downstream", end(50))
    session.download(BYTES)
    session.upload(BYTES)
    session.faults.remove(behind.called)
    assert session.client.events == [("end", 10)]
    assert session.client.received[:10] == BYTES[:10]
    assert (session.server.received, session.server.events) == (BYTES, [])


def test_a_limit_behind_a_stall_stays_a_limit() -> None:
    """The session ends after exactly so many bytes, though the limit has been replaced."""
    session = FaultySession(limit(10), stall())
    session.download(BYTES)
    session.faults.replace("limit_downstream", limit(50))
    session.download(BYTES)
    session.faults.remove("stall_downstream")
    assert session.client.received == BYTES[:10]
    assert session.client.events == [("closed", 10)]


@pytest.mark.parametrize("proxied", ["socket", "socket-twisted"], indirect=True)
@pytest.mark.parametrize(
    ("fault", "how", "gone"),
    [
        (truncate(10), END, False),
        (reset(10, delay=3600.0), RESET, False),
        (reset(10, delay=3600.0), RESET, True),
    ],
    ids=["truncate", "reset", "reset of a server that is gone"],
)
async def test_connections_after_the_removal(
    proxied: Proxied, fault: FaultSettings, how: str, gone: bool
) -> None:
    """The client gets the bytes before the cut, and the session ends, also if the server reset."""
    faults = Faults(proxied.reactor, [fault])
    await proxied.start(stages=[faults])
    client, server = await proxied.pair()
    await client.send(b"?")
    await server.receive(1)
    await server.send(BYTES)
    assert await client.receive(10) == BYTES[:10]
    if gone:
        server.reset()
        for _ in range(20):
            await turn(proxied.reactor)
    faults.clear()
    assert await client.rest() == (b"", how)
    client.close()
    server.close()
    await proxied.observed.ended()
