"""
The formats of a line in the access log, text and JSON; ``docs/reference.md`` describes both.

This module is pure, except that it remembers the last second.  Text from outside cannot break a
line: the formats escape what is not printable, and cut strings to `LONGEST` characters.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol

from evproxy.escape import printable
from evproxy.model import CloseReason, SessionRecord

LONGEST = 1000
"""The most characters of a string in a line."""

_plain: Callable[[str], object] = re.compile(r'[^\x00- "\\\x7f-\U0010ffff]+').fullmatch
"""Whether a string is ASCII that needs no escapes; this check is cheap."""


class Format(Protocol):
    """Formats lines, each with its newline."""

    def session(self, ended: float, record: SessionRecord) -> str:
        """Return the line of a session that ended at `ended`, in seconds since 1970."""

    def dropped(self, now: float, lines: int) -> str:
        """Return the line that says that `lines` lines before it were dropped."""


class Stamps:
    """Times as ISO 8601 in UTC, with milliseconds: ``2026-11-24T07:03:11.204Z``."""

    def __init__(self) -> None:
        self._second = -1
        self._shown = ""

    def of(self, when: float) -> str:
        """Return `when`, in seconds since 1970, as text."""
        milliseconds = int(when * 1000)
        second = milliseconds // 1000
        if second != self._second:
            self._second = second
            self._shown = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._shown}.{milliseconds % 1000:03}Z"


class TextFormat:
    """A line of words: seven fields by position, then numbers by name, then the error."""

    def __init__(self) -> None:
        self._stamps = Stamps()

    def session(self, ended: float, record: SessionRecord) -> str:
        connect, first = record.connect_time, record.first_byte_time
        return (
            f"{self._stamps.of(ended)} {_name(record.listener)} {word(record.peer)}"
            f" {_name(record.upstream)} {_reason(record.reason)}"
            f" bytes_to_upstream={record.bytes_to_upstream}"
            f" bytes_to_downstream={record.bytes_to_downstream}"
            f" connect_time={'-' if connect is None else f'{connect:.6f}'}"
            f" first_byte_time={'-' if first is None else f'{first:.6f}'}"
            f" duration={record.duration:.6f} attempts={record.attempts}"
            f" relay={record.relay or '-'} id={record.id}{_client(record)}"
            f'error="{_quoted(record.error)}"\n'
        )

    def dropped(self, now: float, lines: int) -> str:
        return f"{self._stamps.of(now)} - - - proxy dropped - lines={lines}\n"


class JsonFormat:
    """One JSON object a line, in ASCII."""

    def __init__(self) -> None:
        self._stamps = Stamps()

    def session(self, ended: float, record: SessionRecord) -> str:
        reason, connect, first = record.reason, record.connect_time, record.first_byte_time
        # `json.dumps` of the whole record takes three times as long.
        return (
            f'{{"time": "{self._stamps.of(ended)}", "listener": {_json(record.listener)},'
            f' "peer": {_json(record.peer)}, "upstream": {_json(record.upstream)},'
            f' "reason_by": "{reason.by.value}", "reason_how": "{reason.how.value}",'
            f' "reason_phase": "{reason.phase.value}",'
            f' "bytes_to_upstream": {record.bytes_to_upstream},'
            f' "bytes_to_downstream": {record.bytes_to_downstream},'
            f' "connect_time": {"null" if connect is None else f"{connect:.6f}"},'
            f' "first_byte_time": {"null" if first is None else f"{first:.6f}"},'
            f' "duration": {record.duration:.6f}, "attempts": {record.attempts},'
            f' "relay": "{record.relay}", "id": {record.id}, "via": {_json(record.via)},'
            f' "server_name": {_json(record.server_name)},{_client_in_json(record)}'
            f' "route": {_json(record.route)},'
            f' "error": {_json(record.error)}}}\n'
        )

    def dropped(self, now: float, lines: int) -> str:
        return f'{{"time": "{self._stamps.of(now)}", "dropped": {lines}}}\n'


FORMATS: dict[str, Callable[[], Format]] = {"text": TextFormat, "json": JsonFormat}
"""The class of each format, by its name in the settings."""


def word(text: str) -> str:
    r"""`text` as one word: ``-`` if it is empty, a space as ``\x20``."""
    if not text:
        return "-"
    if _plain(text) and len(text) <= LONGEST:
        return text if text != "-" else r"\x2d"
    return _quoted(text).replace(" ", r"\x20")


def _client(record: SessionRecord) -> str:
    """What a PROXY header, TLS and a route said, with a space around it; mostly nothing."""
    tls = record.tls
    if not (record.via or record.server_name or record.route or tls):
        return ' via=- server_name=- route="" '
    subject = f" client_subject={word(tls.client_subject)}" if tls and tls.client_subject else ""
    names = f" via={word(record.via)} server_name={word(record.server_name)}"
    return f'{names}{subject} route="{_quoted(record.route)}" '


def _client_in_json(record: SessionRecord) -> str:
    tls = record.tls
    return f' "client_subject": {_json(tls.client_subject)},' if tls and tls.client_subject else ""


_name = lru_cache(maxsize=1024)(word)
"""The same for names, which are few."""


@lru_cache(maxsize=256)
def _reason(reason: CloseReason) -> str:
    return f"{reason.by.value} {reason.how.value} {reason.phase.value}"


def _quoted(text: str) -> str:
    """Return `text` for use between quotes: line ends and direction marks are escaped."""
    if not text:
        return text
    return printable(_cut(text).replace("\\", r"\\").replace('"', r"\""))


def _json(text: str) -> str:
    if not text:
        return '""'
    if _plain(text) and len(text) <= LONGEST:
        return f'"{text}"'
    return json.dumps(_cut(text))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
