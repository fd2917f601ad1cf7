"""
The formats of a line in the access log, by name; ``docs/reference.md`` describes them.

Text and JSON are here, HAProxy's own in `evproxy.observe.tcplog`.  Most sessions have no PROXY
header, no TLS and no route, so the lines of most sessions do without the fields for these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

from evproxy.model import TLSFacts
from evproxy.observe.line_text import (
    Stamps,
    is_plain,
    json_string,
    name_json,
    name_word,
    quoted,
    utc,
    word,
)
from evproxy.observe.tcplog import TcplogFormat
from evproxy.records import SessionRecord, SessionStatus, Waited


class Format(Protocol):
    """Formats lines, each with its newline."""

    wants_counts: bool
    """Whether the lines have the numbers of sessions: `SessionRecord.counts`."""

    def session(self, ended: float, record: SessionRecord) -> str:
        """Return the line of a session that ended at `ended`, in seconds since 1970."""

    def under_way(self, now: float, event: str, status: SessionStatus) -> str:
        """
        Return the line of a session that is not over, at `now`, in seconds since 1970.

        `event` is ``start`` or ``interval``.
        """

    def dropped(self, now: float, lines: int) -> str:
        """Return the line that says that `lines` lines before it were dropped."""


_NOTHING_MORE = ' via=- server_name=- route="" error=""\n'


class TextFormat:
    """A line of words: seven fields by position, then the others by name, at last the error."""

    wants_counts = False

    def __init__(self) -> None:
        self._stamps = Stamps(utc)

    def session(self, ended: float, record: SessionRecord) -> str:
        return self._line(ended, record.reason.code, record)

    def under_way(self, now: float, event: str, status: SessionStatus) -> str:
        facts = [getattr(status, name, None) for name in SessionRecord._fields]
        return self._line(now, f"- {event} {status.phase.value}", facts)

    def dropped(self, now: float, lines: int) -> str:
        return f"{self._stamps.of(now)}Z - - - proxy dropped - lines={lines}\n"

    def _line(self, when: float, why: str, facts: Sequence[Any]) -> str:
        # Unpacked at once: this takes a fifth less than an attribute for each field.
        (
            listener,
            peer,
            upstream,
            relay,
            attempts,
            started,
            connect,
            duration,
            to_upstream,
            to_downstream,
            _,
            error,
            first_byte,
            number,
            via,
            server_name,
            route,
            tls,
            pool,
            tried,
            route_time,
            waited,
            cause,
            unique_id,
            *_,
        ) = facts
        if via or server_name or route or tls or tried or route_time or waited or cause or error:
            some = _some(tls, route_time, waited, started + duration, tried, cause)
            fields = "".join([f" {name}={_value(value, word)}" for name, value in some])
            rest = (
                f" via={word(via)} server_name={word(server_name)}{fields}"
                f' route="{quoted(route)}" error="{quoted(error)}"\n'
            )
        else:
            rest = _NOTHING_MORE
        return (
            f"{self._stamps.of(when)}Z {name_word(listener)}"
            f" {peer if is_plain(peer) and peer != '-' else word(peer)} {name_word(upstream)} {why}"
            f" bytes_to_upstream={to_upstream} bytes_to_downstream={to_downstream}"
            f" connect_time={'-' if connect is None else f'{connect:.6f}'}"
            f" first_byte_time={'-' if first_byte is None else f'{first_byte:.6f}'}"
            f" duration={duration:.6f} attempts={attempts} relay={relay or '-'} id={number}"
            f" unique_id={unique_id or '-'} pool={name_word(pool)}{rest}"
        )


class JsonFormat:
    """One JSON object a line, in ASCII."""

    wants_counts = False

    def __init__(self) -> None:
        self._stamps = Stamps(utc)

    def session(self, ended: float, record: SessionRecord) -> str:
        return self._line(ended, _reason_members(record.reason.code), record)

    def under_way(self, now: float, event: str, status: SessionStatus) -> str:
        why = f'"reason_by": "", "reason_how": "{event}", "reason_phase": "{status.phase.value}"'
        return self._line(now, why, status)

    def dropped(self, now: float, lines: int) -> str:
        return f'{{"time": "{self._stamps.of(now)}Z", "dropped": {lines}}}\n'

    def _line(self, when: float, why: str, record: SessionRecord | SessionStatus) -> str:
        connect, first = record.connect_time, record.first_byte_time
        # `json.dumps` of the whole record takes three times as long.
        return (
            f'{{"time": "{self._stamps.of(when)}Z", "listener": {name_json(record.listener)},'
            f' "peer": {json_string(record.peer)}, "upstream": {name_json(record.upstream)},'
            f' {why}, "bytes_to_upstream": {record.bytes_to_upstream},'
            f' "bytes_to_downstream": {record.bytes_to_downstream},'
            f' "connect_time": {"null" if connect is None else f"{connect:.6f}"},'
            f' "first_byte_time": {"null" if first is None else f"{first:.6f}"},'
            f' "duration": {record.duration:.6f}, "attempts": {record.attempts},'
            f' "relay": "{record.relay}", "id": {record.id},'
            f' "unique_id": {json_string(record.unique_id)}, "pool": {name_json(record.pool)},'
            f' "via": {json_string(record.via)},'
            f' "server_name": {json_string(record.server_name)},{_some_in_json(record)}'
            f' "route": {json_string(record.route)}, "error": {json_string(record.error)}}}\n'
        )


FORMATS: dict[str, Callable[[], Format]] = {
    "text": TextFormat,
    "json": JsonFormat,
    "tcplog": TcplogFormat,
}
"""The class of each format, by its name in the settings."""


@lru_cache(maxsize=256)
def _reason_members(code: str) -> str:
    by, how, phase = code.split(" ")
    return f'"reason_by": "{by}", "reason_how": "{how}", "reason_phase": "{phase}"'


def _some(
    tls: TLSFacts | None,
    route_time: float | None,
    waited: Waited | None,
    now: float,
    tried: str,
    cause: str,
) -> list[tuple[str, str | float]]:
    """The fields that only some sessions have: their names and values."""
    found: list[tuple[str, str | float]] = []
    if tls:
        found += [(name, value) for name, value in _tls(tls) if value]
    if route_time:
        found.append(("route_time", route_time))
    if waited is not None:
        found += [("queue_time", waited.until(now)), ("queue_ahead", waited.ahead)]
    if tried:
        found.append(("tried", tried))
    if cause:
        found.append(("cause", cause))
    return found


def _tls(tls: TLSFacts) -> tuple[tuple[str, str], ...]:
    return (
        ("tls_version", tls.version),
        ("tls_cipher", tls.cipher),
        ("tls_protocol", tls.protocol),
        ("client_subject", tls.client_subject),
    )


def _some_in_json(record: SessionRecord | SessionStatus) -> str:
    tls, route_time, waited = record.tls, record.route_time, record.waited
    tried, cause = record.tried, record.cause
    if not (tls or route_time or waited or tried or cause):
        return ""
    some = _some(tls, route_time, waited, record.started + record.duration, tried, cause)
    return "".join([f' "{name}": {_value(value, json_string)},' for name, value in some])


def _value(value: str | float, as_text: Callable[[str], str]) -> str:
    if isinstance(value, str):
        return as_text(value)
    return f"{value:.6f}" if isinstance(value, float) else str(value)
