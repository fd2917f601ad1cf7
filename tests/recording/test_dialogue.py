"""The order of a replay, and its comparison, as tables."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproxy.replay.dialogue import Dialogue, Over, Play, Wait
from evproxy.wire.recording import Event, Kind

SESSION = [
    Event(0.0, Kind.DATA, "downstream", b"hel"),
    Event(0.5, Kind.DATA, "downstream", b"lo"),
    Event(1.0, Kind.DATA, "upstream", b"world"),
    Event(1.5, Kind.END, "upstream"),
    Event(2.0, Kind.END, "downstream"),
    Event(2.0, Kind.CLOSED, text="upstream finished relaying"),
]


def server(*events: Event) -> Dialogue:
    """The player of the server."""
    return Dialogue(iter(events or SESSION), "upstream")


def test_the_server_answers_after_the_question() -> None:
    """The player waits for all that came before, and keeps the recorded time from there."""
    dialogue = server()
    assert dialogue.step() == Wait()
    dialogue.receive(b"hell")
    assert dialogue.step() == Wait()
    dialogue.receive(b"o")
    assert dialogue.step() == Play(SESSION[2], 0.5)
    assert dialogue.step() == Play(SESSION[3], 0.5)
    assert dialogue.step() == Wait()
    dialogue.end()
    assert dialogue.step() == Over()
    assert (dialogue.sent, dialogue.received) == (5, 5)


@given(st.lists(st.integers(0, 5), max_size=4))
def test_pieces_do_not_count(cuts: list[int]) -> None:
    """The bytes of the peer may come in other pieces."""
    dialogue = server()
    places = [0, *sorted(cuts), 5]
    for start, end in pairwise(places):
        assert dialogue.step() == (Wait() if start < 5 else Play(SESSION[2], 0.5))
        if start >= 5:
            return
        dialogue.receive(b"hello"[start:end])
    assert dialogue.step() == Play(SESSION[2], 0.5)


WHERE = "the stream of the client differs at offset "


@pytest.mark.parametrize(
    ("acts", "difference"),
    [
        ([b"heLlo"], "2: expected b'l', got b'Llo'"),
        ([b"help"], "3: expected b'lo', got b'p'"),
        ([b"hel", "end"], "3: expected b'lo', got the end of the stream"),
        (["reset"], "0: expected b'hel', got a reset"),
        ([b"hello!"], "5: expected the end of the stream, got b'!'"),
        ([b"hello", "reset"], "5: expected the end of the stream, got a reset"),
        ([b"hello"], "5: expected the end of the stream, got nothing"),
        ([b"he"], "2: expected b'l', got nothing"),
    ],
)
def test_differences(acts: list[bytes | str], difference: str) -> None:
    """The first difference has its offset, and what was expected."""
    dialogue = server()
    for act in acts:
        if isinstance(act, bytes):
            dialogue.receive(act)
        elif act == "end":
            dialogue.end()
        else:
            dialogue.reset()
    while isinstance(step := dialogue.step(), Play):
        pass
    if step == Wait():
        step = dialogue.missing()
    assert step == Over(difference=WHERE + difference)


@pytest.mark.parametrize(
    ("event", "act", "over"),
    [
        (Event(0, Kind.RESET, "downstream"), "reset", Over()),
        (
            Event(0, Kind.RESET, "downstream"),
            "end",
            Over(WHERE + "0: expected a reset, got the end of the stream"),
        ),
        (Event(0, Kind.STOPPED, text="full"), "", Over(note="the recording stops here: full")),
        (None, "", Over(note="the recording has been cut off")),
    ],
)
def test_ends(event: Event | None, act: str, over: Over) -> None:
    """A reset is no end, and a recording that is not whole says so."""
    closed = Event(0, Kind.CLOSED, text="proxy idle relaying")
    dialogue = Dialogue(iter([event, closed] if event else []), "upstream")
    if act:
        getattr(dialogue, act)()
    assert dialogue.step() == over


@pytest.mark.parametrize(
    ("recorded", "got", "says"),
    [
        (b"HELO", b"\x16\x03\x01\x02\x00", True),
        (b"HELO", b"\x15\x03\x01", True),
        (b"HELO", b"\x16", True),
        (b"HELO", b"\x16\x04\x01", False),
        (b"\x16\x03\x01\x00", b"\x16\x03\x01\x02", False),
    ],
)
def test_a_peer_that_speaks_tls(recorded: bytes, got: bytes, says: bool) -> None:
    """The difference says so where the recording has none: a recording has what is inside."""
    dialogue = server(Event(0.0, Kind.DATA, "downstream", recorded))
    dialogue.receive(got)
    over = dialogue.step()
    assert isinstance(over, Over)
    assert ("give an endpoint with TLS" in over.difference) == says


@pytest.mark.parametrize("kind", [Kind.END, Kind.RESET])
def test_a_connection_that_is_lost(kind: Kind) -> None:
    """It is an end and a reset; bytes that are missing are missing."""
    dialogue = server(Event(0.0, kind, "downstream"))
    dialogue.lose()
    assert dialogue.step() == Over(note="the recording has been cut off")
    dialogue = server(Event(0.0, Kind.DATA, "downstream", b"x"), Event(0.0, kind, "downstream"))
    dialogue.lose()
    over = dialogue.step()
    assert isinstance(over, Over)
    assert over.difference.endswith("expected b'x', got the end of the stream")


@pytest.mark.parametrize(
    ("counts", "end", "over"),
    [
        ([3, 2], Kind.CLOSED, Over("the client was gone, 5 bytes were not sent")),
        ([0, 2], Kind.CLOSED, Over("the client was gone, 2 bytes were not sent")),
        ([0], Kind.CLOSED, Over("the client was gone, it did not get all bytes")),
        (
            [1],
            Kind.STOPPED,
            Over("the client was gone, 1 bytes were not sent", "the recording stops here: full"),
        ),
        # The client of the recording left in the same way.
        ([5], Kind.RESET, Over()),
    ],
)
def test_a_peer_that_was_gone(counts: list[int], end: Kind, over: Over) -> None:
    """Bytes without a receiver do not count as sent, and are a difference."""
    side = "downstream" if end is Kind.RESET else ""
    last = Event(0, end, side, text="full")
    closed = Event(0, Kind.CLOSED, text="upstream finished relaying")
    dialogue = server(Event(0, Kind.DATA, "upstream", b"12345"), last, closed)
    assert isinstance(dialogue.step(), Play)
    dialogue.reset()
    for count in counts:
        dialogue.not_sent(count)
    assert dialogue.step() == over
    assert dialogue.sent == 5 - sum(counts)


def test_more_than_recorded() -> None:
    """Bytes after the last event are a difference."""
    dialogue = Dialogue(iter([Event(0, Kind.CLOSED, text="proxy idle relaying")]), "upstream")
    dialogue.receive(b"x" * 20)
    expected = "0: expected nothing more, got b'" + "x" * 16 + "'..."
    assert dialogue.step() == Over(difference=WHERE + expected)
