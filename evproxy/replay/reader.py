"""
Reads the file of a recording, line by line, so that it may be longer than the memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from evproxy.wire.recording import (
    LONGEST_LINE,
    Event,
    MalformedRecording,
    RecordedSession,
    event_of,
    session_of,
)

PCAPNG = b"\x0a\x0d\x0d\x0a"
"""The first bytes of a pcapng file (draft-ietf-opsawg-pcapng, section 4.1)."""


def recorded_events(file: BinaryIO) -> tuple[RecordedSession, Iterator[Event]]:
    """
    Return the session of the recording in `file`, and its events as they are read.

    :raises MalformedRecording: if `file` has no recording; the iterator raises it at a line that is
        not an event.  The message begins with the number of the line.
    """
    first = file.readline(LONGEST_LINE)
    if first == PCAPNG[:1] and file.read(3) == PCAPNG[1:]:
        raise MalformedRecording(
            'line 1: only recordings with record_format = "json" can be played'
        )
    try:
        session = session_of(first)
    except MalformedRecording as error:
        raise MalformedRecording(f"line 1: {error}") from None
    return session, _events(file)


def _events(file: BinaryIO) -> Iterator[Event]:
    number = 1
    while line := file.readline(LONGEST_LINE):
        number += 1
        try:
            if not line.endswith(b"\n"):
                if len(line) == LONGEST_LINE:
                    raise MalformedRecording("the line is too long")
                # evproxy was killed here: the recording has been cut off.
                return
            event = event_of(line)
        except MalformedRecording as error:
            raise MalformedRecording(f"line {number}: {error}") from None
        yield event
