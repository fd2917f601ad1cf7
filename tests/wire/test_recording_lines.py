"""Recordings as JSON lines."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproxy.wire.recording import (
    Event,
    Kind,
    LinesEncoder,
    MalformedRecording,
    RecordedSession,
    event_of,
    session_of,
)
from evproxy.wire.recording.lines import LONGEST_LINE, PIECE

SESSION = RecordedSession("a1-1", 1, "web", "127.0.0.1:5", "default", "127.0.0.1:80", 1700000000.25)

TIMES = st.integers(0, 10**12).map(lambda micros: micros / 10**6)
SIDES = st.sampled_from(["downstream", "upstream"])
EVENTS = st.one_of(
    st.tuples(TIMES, st.just(Kind.DATA), SIDES, st.binary()),
    st.tuples(TIMES, st.sampled_from([Kind.END, Kind.RESET]), SIDES),
    st.tuples(
        TIMES,
        st.sampled_from([Kind.CLOSED, Kind.STOPPED]),
        st.just(""),
        st.just(b""),
        st.text(),
    ),
).map(lambda values: Event(*values))


def test_the_lines_are_as_documented() -> None:
    """The text of each kind of line is part of the format."""
    encoder = LinesEncoder(SESSION)
    assert encoder.begin() == (
        b'{"recording":1,"unique_id":"a1-1","id":1,"listener":"web","peer":"127.0.0.1:5",'
        b'"pool":"default","upstream":"127.0.0.1:80","started":1700000000.25}\n'
    )
    events = {
        Event(0.5, Kind.DATA, "downstream", b"hello"): (
            b'{"time":0.5,"event":"data","side":"downstream","data":"aGVsbG8="}\n'
        ),
        Event(1, Kind.END, "upstream"): b'{"time":1,"event":"end","side":"upstream"}\n',
        Event(2, Kind.CLOSED, text="upstream reset relaying"): (
            b'{"time":2,"event":"closed","reason":"upstream reset relaying"}\n'
        ),
    }
    for event, line in events.items():
        assert encoder.encode(event) == line


@given(EVENTS)
def test_events_survive(event: Event) -> None:
    """What is encoded is read again, and is one line."""
    line = LinesEncoder(SESSION).encode(event)
    assert line.count(b"\n") == 1
    read = event_of(line)
    assert read._replace(time=0) == event._replace(time=0)
    assert read.time == pytest.approx(event.time, abs=1e-6)


@pytest.mark.parametrize(
    ("size", "sizes"),
    [(0, [0]), (PIECE, [PIECE]), (2 * PIECE + 1, [PIECE, PIECE, 1])],
)
def test_large_events_are_several_lines(size: int, sizes: list[int]) -> None:
    """Filters send as much at once as they like, and a reader takes no longer lines."""
    event = Event(1.5, Kind.DATA, "upstream", bytes(size))
    lines = LinesEncoder(SESSION).encode(event).splitlines(keepends=True)
    assert max(map(len, lines)) <= LONGEST_LINE
    assert [event_of(line) for line in lines] == [
        Event(1.5, Kind.DATA, "upstream", bytes(each)) for each in sizes
    ]


def test_the_session_survives() -> None:
    """The first line says which session it is."""
    assert session_of(LinesEncoder(SESSION).begin()) == SESSION


@given(st.binary(max_size=200))
def test_any_line_is_read_or_refused(line: bytes) -> None:
    """There is one error, whatever the file has."""
    for read in (event_of, session_of):
        with suppress(MalformedRecording):
            read(line)


@given(
    st.dictionaries(
        st.sampled_from(["time", "event", "side", "data", "reason", "recording", "id", "started"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.sampled_from(["data", "end", "closed", "upstream", "====", "é"])
        | st.lists(st.integers(), max_size=1),
    )
)
def test_any_object_is_read_or_refused(value: dict[str, object]) -> None:
    """Wrong types of known keys are refused by the same error."""
    for read in (event_of, session_of):
        with suppress(MalformedRecording):
            read(json.dumps(value).encode())


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "this is not JSON"),
        (b"[]", "expected an object"),
        (b'{"time":-1,"event":"end","side":"upstream"}', "time: expected a number from 0"),
        (b'{"time":0,"event":"stall"}', "event: unknown"),
        (b'{"time":0,"event":"end","side":"proxy"}', 'side: expected "downstream" or "upstream"'),
        (b'{"time":0,"event":"data","side":"upstream","data":"%"}', "data: expected base64"),
        (b'{"time":0,"event":"data","side":"upstream"}', "data: expected text"),
    ],
)
def test_refused_lines(line: bytes, why: str) -> None:
    """The error names the key."""
    with pytest.raises(MalformedRecording) as error:
        event_of(line)
    assert str(error.value) == why


def test_another_version_is_refused() -> None:
    """A first line of a later version is not misread."""
    with pytest.raises(MalformedRecording, match="another version"):
        session_of(b'{"recording":2}')
