"""
Sessions, pools and pressure as events of ``twisted.logger``: one when a session ends,
one for a connect that failed, one for a period of pressure; nothing for a chunk.
"""

from __future__ import annotations

from attrs import asdict
from twisted.logger import Logger

from evproxy.model import SessionRecord

# As attributes of the classes they would be called after these.
_sessions = Logger(namespace="evproxy.session")
_trouble = Logger(namespace="evproxy")


class SessionLog:
    """
    Logs the end of each session, in the namespace ``evproxy.session``.

    The event has every field of `SessionRecord` under its own name, with `reason_by`,
    `reason_how` and `reason_phase` beside the `reason`.
    """

    def session_ended(self, record: SessionRecord) -> None:
        fields = asdict(record, recurse=False)
        reason = record.reason
        connect = record.connect_time
        _sessions.info(
            "{listener} {client} -> {to}: {reason}, {bytes_to_upstream} bytes up, "
            "{bytes_to_downstream} bytes down, connected in {connected_in}, "
            "{duration:.3f} s in all, {moved_by} relay{because}",
            client=record.peer or "-",
            to=record.upstream or "-",
            moved_by=record.relay or "no",
            connected_in="-" if connect is None else f"{connect:.3f} s",
            because=f", {record.error}" if record.error else "",
            reason_by=reason.by.value,
            reason_how=reason.how.value,
            reason_phase=reason.phase.value,
            **fields,
        )


class TroubleLog:
    """Logs what an operator must know even where sessions are not: namespace ``evproxy``."""

    def connect_failed(self, upstream: str, error: str) -> None:
        _trouble.warn("cannot connect to {upstream}: {error}", upstream=upstream, error=error)

    def accepting_paused(self, why: str) -> None:
        _trouble.warn("accepting is paused: {why}", why=why)

    def accepting_resumed(self) -> None:
        _trouble.info("accepting again")

    def server_changed(self, pool: str, server: str, state: str, why: str) -> None:
        _trouble.warn(
            "{pool}/{server} {state}{because}",
            pool=pool,
            server=server,
            state=state,
            why=why,
            because=f": {why}" if why else "",
        )

    def pool_exhausted(self, pool: str, why: str) -> None:
        _trouble.error("{pool} cannot serve sessions: {why}", pool=pool, why=why)

    def discovery_failed(self, pool: str, why: str) -> None:
        _trouble.warn("{pool} keeps its servers: {why}", pool=pool, why=why)
