"""
HAProxy's own line for a session: its ``option tcplog``, for programs that read that.

The fields are those of HAProxy's configuration manual, 8.2.2 (TCP log format) and 8.5 (session
state at disconnection).  `TERMINATION` maps the reasons of evproxy to HAProxy's states.
"""

from __future__ import annotations

import re
import time
from functools import lru_cache

from evproxy.causes import Cause
from evproxy.model import CloseReason, Ending, Phase, Side
from evproxy.observe.line_text import Stamps, name_word
from evproxy.records import SessionCounts, SessionRecord, SessionStatus

_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

_address = re.compile(r"(?:([0-9.]+)|\[([0-9A-Za-z:.%_-]+)\]):([0-9]+)").fullmatch

_BY_SIDE = {Side.DOWNSTREAM: "C", Side.UPSTREAM: "S", Side.PROXY: "P"}
_BY_PHASE = {
    Phase.ACCEPTED: "R",
    Phase.INSPECTING: "R",
    Phase.CONNECTING: "C",
    Phase.RELAYING: "D",
    Phase.CLOSING: "L",
    Phase.CLOSED: "L",
}

TERMINATION: dict[Ending, str] = {
    Ending.FINISHED: "-",
    Ending.RESET: "",
    Ending.LEFT: "C",
    Ending.UNREACHABLE: "S",
    Ending.IDLE: "c",
    Ending.HALF_CLOSE: "c",
    Ending.DRAIN: "K",
    Ending.SERVER_DOWN: "D",
    Ending.REFUSED: "P",
    Ending.HANDSHAKE: "P",
    Ending.REQUESTED: "K",
    Ending.FAULT: "K",
    Ending.ERROR: "I",
}
"""The first letter of HAProxy's state, by how a session ended; empty: who ended it decides."""

TERMINATION_BY_CAUSE: dict[str, str] = {
    Cause.HANDSHAKE_TIMEOUT.value: "cR",
    Cause.QUEUE_TIMEOUT.value: "sQ",
    Cause.QUEUE_FULL.value: "SQ",
    Cause.CONNECT_TIMEOUT.value: "sC",
    Cause.SHORTAGE.value: "RC",
}
"""The whole state, by the cause, of a session that evproxy ended because of it."""


@lru_cache(maxsize=1024)
def termination(reason: CloseReason, cause: str = "") -> str:
    """The two letters with which HAProxy says how a session ended, such as ``--`` or ``cD``."""
    if reason.how is Ending.FINISHED:
        return "--"
    if reason.how in (Ending.UNREACHABLE, Ending.HANDSHAKE) and cause in TERMINATION_BY_CAUSE:
        return TERMINATION_BY_CAUSE[cause]
    phase = "Q" if cause == Cause.QUEUED.value else _BY_PHASE[reason.phase]
    return (TERMINATION[reason.how] or _BY_SIDE[reason.by]) + phase


def local(second: int) -> str:
    """As HAProxy's log has it, in local time: ``24/Nov/2026:08:03:11``."""
    at = time.localtime(second)
    # Not `strftime`: its names of months depend on the locale.
    return (
        f"{at.tm_mday:02}/{_MONTHS[at.tm_mon - 1]}/{at.tm_year:04}"
        f":{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}"
    )


class TcplogFormat:
    """HAProxy's line; what HAProxy does not have is left out."""

    wants_counts = True

    def __init__(self) -> None:
        self._stamps = Stamps(local)

    def session(self, ended: float, record: SessionRecord) -> str:
        return self._line(ended, "", termination(record.reason, record.cause), record)

    def under_way(self, now: float, event: str, status: SessionStatus) -> str:
        # As with HAProxy's ``option logasap``: what still grows has a plus sign.
        return self._line(now, "+", "--", status)

    def dropped(self, now: float, lines: int) -> str:
        """Return a line that no parser takes for a session's: HAProxy has none of this kind."""
        return f"evproxy dropped {lines} lines before [{self._stamps.of(now)}]\n"

    def _line(
        self, when: float, plus: str, state: str, record: SessionRecord | SessionStatus
    ) -> str:
        listener = name_word(record.listener)
        counts = record.counts or _UNCOUNTED
        waited, routed = record.waited, record.route_time
        queued, place, connect = -1, 0, -1
        if waited is not None:
            # HAProxy counts the session itself: 0 is for those that did not wait.
            place = waited.ahead + 1
            queued = int(waited.until(record.started + record.duration) * 1000)
        elif record.attempts:
            queued = 0
        if record.connect_time is not None and routed is not None:
            connect = max(0, int((record.connect_time - routed) * 1000) - queued)
        retries = max(0, record.attempts - 1)
        server = record.upstream or record.tried
        return (
            f"{_client(record.peer)} [{self._stamps.of(when - record.duration)}]"
            f" {listener}{'~' if record.tls else ''}"
            f" {name_word(record.pool) if record.pool else listener}"
            f"/{name_word(server) if server else '<NOSRV>'}"
            f" {queued}/{connect}/{plus}{int(record.duration * 1000)}"
            f" {plus}{record.bytes_to_downstream} {state}"
            f" {counts.all}/{counts.listener}/{counts.pool}/{counts.server}"
            f"/{'+' if retries else ''}{retries} 0/{place}\n"
        )


_UNCOUNTED = SessionCounts(0, 0, 0, 0)


def _client(peer: str) -> str:
    """HAProxy's ``ip:port``: no brackets around IPv6, and ``unix:1`` for any UNIX client."""
    found = _address(peer)
    return f"{found[1] or found[2]}:{found[3]}" if found is not None else "unix:1"
