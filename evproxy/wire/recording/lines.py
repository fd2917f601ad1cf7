"""
Recordings as JSON lines: one object with the session, then one for each event.

The bytes are in base64 (RFC 4648, section 4).  ``docs/recording.md`` describes the format.
"""

from __future__ import annotations

import json
from base64 import b64encode
from binascii import Error, a2b_base64
from collections.abc import Callable
from math import isfinite
from typing import Any

from attrs import asdict, fields

from evproxy.wire.recording.events import SIDES, Event, Kind, RecordedSession

VERSION = 1
"""The version of the format, in the first line."""

PIECE = 512 * 1024
"""The most bytes of a session in one line; an event with more has several lines."""

LONGEST_LINE = 1024 * 1024
"""The most bytes of a line: several times as many as an event of one read needs."""


_KINDS = {kind.value: kind for kind in Kind if kind is not Kind.SECRETS}


class MalformedRecording(ValueError):
    """A line is not one of a recording."""


class LinesEncoder:
    """
    Encodes one recording as JSON lines.

    :param session: which session the recording is of.
    """

    def __init__(self, session: RecordedSession) -> None:
        self._session = session

    def begin(self) -> bytes:
        return _line({"recording": VERSION, **asdict(self._session)})

    def mark(self) -> Callable[[], None]:
        # No line depends on those before.
        return lambda: None

    def encode(self, event: Event) -> bytes:
        line: dict[str, Any] = {"time": round(event.time, 6), "event": event.kind.value}
        if event.side:
            line["side"] = event.side
        if event.text:
            line["reason"] = event.text
        if event.kind is not Kind.DATA:
            return _line(line)
        data = event.data
        pieces = (data[start : start + PIECE] for start in range(0, max(1, len(data)), PIECE))
        return b"".join(_line({**line, "data": b64encode(each).decode("ascii")}) for each in pieces)


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"


def session_of(line: bytes) -> RecordedSession:
    """
    Return the session of the first line of a recording.

    :raises MalformedRecording: if `line` is not the first line of a recording.
    """
    value = _object(line)
    if value.get("recording") != VERSION:
        raise MalformedRecording("this is not a recording, or one of another version")
    found: dict[str, Any] = {}
    for field in fields(RecordedSession):
        name = field.name
        given = value.get(name)
        if name == "started":
            found[name] = _number(given, name)
        elif name == "id":
            if type(given) is not int:
                raise MalformedRecording("id: expected a whole number")
            found[name] = given
        else:
            found[name] = _text(given, name)
    return RecordedSession(**found)


def event_of(line: bytes) -> Event:
    """
    Return the event of any later line of a recording.

    :raises MalformedRecording: if `line` is not an event.
    """
    value = _object(line)
    time = _number(value.get("time"), "time")
    try:
        kind = _KINDS[value["event"]]
    except (KeyError, TypeError):
        raise MalformedRecording("event: unknown") from None
    if kind in (Kind.CLOSED, Kind.STOPPED):
        return Event(time, kind, text=_text(value.get("reason", ""), "reason"))
    side = value.get("side")
    if side not in SIDES:
        raise MalformedRecording('side: expected "downstream" or "upstream"')
    if kind is not Kind.DATA:
        return Event(time, kind, side)
    text = _text(value.get("data"), "data")
    try:
        data = a2b_base64(text, strict_mode=True)
    except (Error, ValueError):
        raise MalformedRecording("data: expected base64") from None
    return Event(time, kind, side, data)


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise MalformedRecording("this is not JSON") from None
    if not isinstance(value, dict):
        raise MalformedRecording("expected an object")
    return value


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedRecording(f"{name}: expected a number")
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if not isfinite(number) or number < 0:
        raise MalformedRecording(f"{name}: expected a number from 0")
    return number


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise MalformedRecording(f"{name}: expected text")
    return value
