"""Recordings of sessions as bytes: what a recording holds, and its two formats."""

from evproxy.wire.recording.events import Event, Kind, RecordedSession
from evproxy.wire.recording.lines import (
    LONGEST_LINE,
    LinesEncoder,
    MalformedRecording,
    event_of,
    session_of,
)
from evproxy.wire.recording.pcapng import PcapngEncoder

__all__ = [
    "LONGEST_LINE",
    "Event",
    "Kind",
    "LinesEncoder",
    "MalformedRecording",
    "PcapngEncoder",
    "RecordedSession",
    "event_of",
    "session_of",
]
