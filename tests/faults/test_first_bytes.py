"""TLS faults look at the first byte of a stream, whenever they come into the session."""

from __future__ import annotations

import pytest

from evproxy.faults import FaultSettings, latency, stall, tls_failure, tls_stall
from evproxy.faults.links import HANDSHAKE_FAILURE
from tests.support.faulty_stage import FaultySession

HELLO = bytes((22, 3, 1, 0, 2, 1, 1))
KINDS = [tls_failure(), tls_stall()]


@pytest.fixture(params=KINDS, ids=lambda fault: fault.kind)
def fault(request: pytest.FixtureRequest) -> FaultSettings:
    """A fault of TLS handshakes."""
    kind: FaultSettings = request.param
    return kind


def acted(session: FaultySession, passed: bytes = b"") -> bool:
    """Whether the fault acted on a ClientHello, and only `passed` came before."""
    failed = session.client.received == HANDSHAKE_FAILURE and bool(session.server.events)
    if session.server.received != passed + HELLO:
        assert session.server.received == passed
        return failed or session.held_upload() == len(HELLO)
    assert not failed
    return False


def test_a_fault_that_is_added_before_the_first_byte(fault: FaultSettings) -> None:
    """It acts, also if the session runs already, and if another fault holds the first byte."""
    session = FaultySession()
    session.faults.add(fault)
    session.upload(HELLO)
    assert acted(session)

    session = FaultySession(stall(stream="upstream"))
    session.upload(HELLO)
    session.faults.add(fault)
    session.faults.remove("stall_upstream")
    assert acted(session)


@pytest.mark.parametrize("how", ["add", "replace", "replace itself", "after"])
def test_a_fault_that_begins_in_mid_stream(fault: FaultSettings, how: str) -> None:
    """A later byte that looks like a handshake is left alone."""
    before = {
        "add": [],
        "replace": [latency(0.0, stream="upstream", name="x", after=3600.0)],
        "replace itself": [fault],
        "after": [FaultSettings(fault.kind, stream="upstream", after=1.0)],
    }[how]
    session = FaultySession(*before)
    session.upload(b"QUIT")
    session.clock.advance(1.0)
    if how == "add":
        session.faults.add(fault)
    elif how != "after":
        session.faults.replace(before[0].called, fault)
    session.upload(HELLO)
    assert not acted(session, b"QUIT")
    assert session.server.received == b"QUIT" + HELLO


def test_a_fault_that_begins_behind_the_bytes_of_another_protocol(fault: FaultSettings) -> None:
    """With `after_bytes`, the first byte behind them counts, and no other one."""
    session = FaultySession(FaultSettings(fault.kind, stream="upstream", after_bytes=4))
    session.upload(b"\x16\x16")
    session.upload(b"\x16\x16" + HELLO)
    assert acted(session, b"\x16" * 4)


def test_a_stalled_handshake_whose_fault_is_replaced_by_itself() -> None:
    """What it holds goes on, and what follows in the handshake is held."""
    session = FaultySession(tls_stall())
    session.upload(HELLO)
    session.faults.replace("tls-stall_upstream", tls_stall())
    assert session.server.received == HELLO
    session.upload(b"more")
    assert session.server.received == HELLO
    session.faults.clear()
    assert session.server.received == HELLO + b"more"
