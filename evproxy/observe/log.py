"""
Logs sessions, pools and pressure as events of ``twisted.logger``.

There is one event for the end of a session, one for a failed connect, and one for a period of
pressure; none for a chunk.  The text and the fields of each event are safe to print, whatever a
peer or a user's own pool put into them: see `evproxy.escape`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from twisted.logger import Logger, LogLevel

from evproxy.config.changes import Changes
from evproxy.escape import printable
from evproxy.model import CloseReason
from evproxy.observe.loop_log import LoopLog
from evproxy.records import SessionRecord, SessionStatus

RELOADS = "evproxy.reload"
"""The namespace of what is logged of reloads."""

# Not attributes of the classes: a logger there would take the name of its class.
_sessions = Logger(namespace="evproxy.session")
_trouble = Logger(namespace="evproxy")
_reloads = Logger(namespace=RELOADS)


class SessionLog:
    """
    Logs the end of each session, in the namespace ``evproxy.session``.

    The event has every field of `SessionRecord` under its own name.  It also has `reason_by`,
    `reason_how` and `reason_phase`, and the whole record in words as `text`.

    A session that is not over has an event with the fields of `SessionStatus`, and `event`.
    """

    def session_ended(self, record: SessionRecord) -> None:
        reason = record.reason
        record = _printable(record)
        # The format string has one field, not ten: Twisted's formatting costs more than the
        # session's connect.  The event has all parts of the text as fields anyway.
        _sessions.info(
            "{text}",
            text=_text(record, reason),
            reason_by=reason.by.value,
            reason_how=reason.how.value,
            reason_phase=reason.phase.value,
            **record._asdict(),
        )

    def under_way(self, event: str, status: SessionStatus) -> None:
        """Log a session that is not over; `event` is ``start`` or ``interval``."""
        status = _printable(status)
        _sessions.info("{text}", text=_text(status, event), event=event, **status._asdict())


def _text(record: SessionRecord | SessionStatus, what: CloseReason | str) -> str:
    connect, first = record.connect_time, record.first_byte_time
    connected = "-" if connect is None else f"{connect:.3f} s"
    answered = "-" if first is None else f"{first:.3f} s"
    because = f", {record.error}" if record.error else ""
    return (
        f"{record.listener} {record.peer or '-'} -> {record.upstream or '-'}: {what}, "
        f"{record.bytes_to_upstream} bytes up, {record.bytes_to_downstream} bytes down, "
        f"connected in {connected}, first byte in {answered}, {record.duration:.3f} s in all, "
        f"{record.relay or 'no'} relay{because}"
    )


_Facts = TypeVar("_Facts", SessionRecord, SessionStatus)


def _printable(facts: _Facts) -> _Facts:
    """`facts` with all of their texts printable; a pool, a server or a route may have any name."""
    text = "".join([each for each in facts if isinstance(each, str)])
    if printable(text) == text:
        return facts
    return type(facts)._make(printable(each) if isinstance(each, str) else each for each in facts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


class TroubleLog(LoopLog):
    """
    Logs what an operator must know even if sessions are not logged: namespace ``evproxy``.

    What holds the loop is in the namespace ``evproxy.watchdog``, as in any other process.  Reloads
    have the namespace `RELOADS`.
    """

    def log_failed(self, where: str, why: str) -> None:
        _trouble.warn(
            "cannot write the access log to {where}: {why}",
            where=printable(where),
            why=printable(why),
        )

    def log_lines_dropped(self, where: str) -> None:
        _trouble.warn(
            "{where} takes the access log too slowly: lines are dropped", where=printable(where)
        )

    def log_written_again(self, where: str, dropped: int) -> None:
        _trouble.warn(
            "the access log is written to {where} again, {dropped} lines were dropped"
            if dropped
            else "the access log is written to {where} again",
            where=printable(where),
            dropped=dropped,
        )

    def log_not_reopened(self, where: str, why: str) -> None:
        _trouble.warn(
            "cannot open the access log {where} again: {why}; the one opened before is kept",
            where=printable(where),
            why=printable(why),
        )

    def log_lines_lost(self, where: str, lines: int) -> None:
        _trouble.warn(
            "the last {lines} lines of the access log could not be written to {where}",
            lines=lines,
            where=printable(where),
        )

    def certificates_loaded(self, listener: str) -> None:
        _trouble.info("{listener}: new certificates are in use", listener=printable(listener))

    def certificates_kept(self, listener: str, why: str) -> None:
        _trouble.warn(
            "{listener}: changed certificates cannot be used, those before are: {why}",
            listener=printable(listener),
            why=printable(why),
        )

    def certificate_expires(self, path: str, day: str, days_left: int) -> None:
        _trouble.warn(
            "the certificate in {path} ends on {day}: days left: {days}",
            path=printable(path),
            day=day,
            days=days_left,
        )

    def reloaded(self, changes: Changes) -> None:
        for change in changes.lines:
            _reloads.info("reload: {change}", change=str(change))
        _reloads.info(
            "reloaded: {what}",
            what="nothing has changed" if not changes else _count(len(changes.lines), "change"),
        )

    def reload_refused(self, problems: Sequence[str]) -> None:
        for problem in problems:
            _reloads.warn("reload: {problem}", problem=printable(problem))
        _reloads.warn(
            "not reloaded, nothing has changed: {count}", count=_count(len(problems), "problem")
        )

    def connect_failed(self, upstream: str, error: str) -> None:
        _trouble.warn(
            "cannot connect to {upstream}: {error}",
            upstream=printable(upstream),
            error=printable(error),
        )

    def accepting_paused(self, why: str) -> None:
        _trouble.warn("accepting is paused: {why}", why=printable(why))

    def accepting_resumed(self) -> None:
        _trouble.info("accepting again")

    def clients_refused(self, listener: str, reason: str, count: int, peer: str) -> None:
        _trouble.warn(
            "{listener} refused {clients}: {reason}, the last from {peer}",
            listener=printable(listener),
            clients="a client" if count == 1 else f"{count} clients",
            reason=reason,
            peer=printable(peer) or "a UNIX socket",
        )

    def pressure_began(self, what: str, remedy: str) -> None:
        _trouble.warn("{what}: {remedy}", what=printable(what), remedy=printable(remedy))

    def pressure_over(self, what: str) -> None:
        # The same level as `pressure_began`: who sees the beginning must see the end.
        _trouble.warn("over: {what}", what=printable(what))

    def server_changed(self, pool: str, server: str, state: str, why: str) -> None:
        why = printable(why)
        # A server that comes, goes, drains or recovers is no trouble.
        level = LogLevel.warn if state in ("down", "ejected") else LogLevel.info
        _trouble.emit(
            level,
            "{pool}/{server} {state}{because}",
            pool=printable(pool),
            server=printable(server),
            state=printable(state),
            why=why,
            because=f": {why}" if why else "",
        )

    def pool_exhausted(self, pool: str, why: str) -> None:
        _trouble.error(
            "{pool} cannot serve sessions: {why}", pool=printable(pool), why=printable(why)
        )

    def discovery_failed(self, pool: str, why: str) -> None:
        _trouble.warn(
            "{pool} keeps the servers it has: {why}", pool=printable(pool), why=printable(why)
        )

    def discovery_incomplete(self, pool: str, why: str) -> None:
        _trouble.warn("{pool} discovery: {why}", pool=printable(pool), why=printable(why))

    def discovery_recovered(self, pool: str) -> None:
        # The same level as `discovery_failed`: who sees the failure must see its end.
        _trouble.warn("{pool} discovers its servers again", pool=printable(pool))
