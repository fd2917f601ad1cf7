"""
The contracts with observers: what evproxy tells a user's objects.

An observer is a plain object with the methods of one or more of the protocols here.  It inherits
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from evproxy.config.changes import Changes
from evproxy.loop_report import LoopReport
from evproxy.records import MirrorRecord, SessionRecord, SessionStatus


class SessionStartObserver(Protocol):
    """Is notified when sessions start."""

    def session_started(self, session: SessionStatus) -> None:
        """evproxy has accepted a client; once for each session, before its server is chosen."""


class SessionConnectedObserver(Protocol):
    """Is notified when sessions are connected to their servers."""

    def session_connected(self, session: SessionStatus) -> None:
        """A session has got its server, and relays; at most once for each session."""


class SessionObserver(Protocol):
    """
    Is notified of sessions that are over.

    If it also has an attribute `wants_counts` that is true, each record and each status has
    `counts`: how many sessions there were.
    """

    def session_ended(self, record: SessionRecord) -> None:
        """A session is over; once for each session."""


class MirrorObserver(Protocol):
    """Is notified of the copies of sessions that mirrors send to a second pool."""

    def mirror_ended(self, record: MirrorRecord) -> None:
        """A copy is over; once for each session that was to be copied."""


class TroubleObserver(Protocol):
    """Is notified of what prevents evproxy from serving sessions."""

    def connect_failed(self, upstream: str, error: str) -> None:
        """One attempt to connect to the server named `upstream` failed."""

    def accepting_paused(self, why: str) -> None:
        """Accepting paused: at the bound on sessions, or out of descriptors."""

    def accepting_resumed(self) -> None:
        """Accepting goes on."""


@runtime_checkable
class PressureObserver(Protocol):
    """
    Is notified of what evproxy itself lacks, for which no server is blamed.

    An observer of a service or a factory is notified of what sessions lack, an observer of a
    pool of what health checks lack.
    """

    def pressure_began(self, what: str, remedy: str) -> None:
        """
        `what` began; called once for each period.

        `remedy` names the limit to raise, or where to look.
        """

    def pressure_over(self, what: str) -> None:
        """`what` has not occurred for some seconds; called once after each `pressure_began`."""


class RefusalObserver(Protocol):
    """Is notified of clients that get no session because of their address, or of a limit."""

    def clients_refused(self, listener: str, reason: str, count: int, peer: str) -> None:
        """
        `count` more clients of `listener` were refused, the last of them at the host `peer`.

        `reason` is the value of an `evproxy.policy.refusal.Refusal`.  Called for the first client
        at once, and then every ten seconds while there are more.
        """


class LogWriterObserver(Protocol):
    """
    Is notified of problems that keep log lines from their destination.

    `where` is the path, or another name, of the destination.
    """

    def log_failed(self, where: str, why: str) -> None:
        """A write failed and will be retried; called once for each period."""

    def log_lines_dropped(self, where: str) -> None:
        """Too many lines wait: the writer drops lines from now on."""

    def log_written_again(self, where: str, dropped: int) -> None:
        """The log is written again; `dropped` lines were dropped meanwhile, or none."""

    def log_not_reopened(self, where: str, why: str) -> None:
        """The log could not be opened again: the old file stays in use."""

    def log_lines_lost(self, where: str, lines: int) -> None:
        """The service stopped before the last `lines` lines could be written."""


class CertificateObserver(Protocol):
    """Hears of the certificates of listeners."""

    def certificates_loaded(self, listener: str) -> None:
        """The files of `listener` have changed, and new connections get what is in them now."""

    def certificates_kept(self, listener: str, why: str) -> None:
        """Changed files of `listener` cannot be used: those before count.  Once for each `why`."""

    def certificate_expires(self, path: str, day: str, days_left: int) -> None:
        """
        The certificate in the file at `path` ends on `day` (``2026-11-27``), in `days_left` days.

        Once a day from 14 days before; `days_left` is negative afterwards.
        """


class ReloadObserver(Protocol):
    """Is notified of reloads: of `reload_began`, and later of one of the others."""

    def reload_began(self) -> None:
        """evproxy begins to read its configuration again."""

    def reloaded(self, changes: Changes) -> None:
        """The new configuration is in use; `changes` may be empty."""

    def reload_refused(self, problems: Sequence[str]) -> None:
        """The new configuration cannot be used, for `problems`; that of before is in use."""


class LoopObserver(Protocol):
    """
    Is notified by a watchdog of what holds the loop; see ``docs/watchdog.md``.

    The methods are called in the watchdog's thread, because the loop's thread is held.  They must
    touch nothing that only the loop's thread may touch; ``reactor.callFromThread`` is allowed.
    """

    def loop_held(self, report: LoopReport) -> None:
        """Something holds the loop, or has held it; called once for each place."""

    def loop_released(self, report: LoopReport) -> None:
        """What was reported while it lasted is over; `report` says how long it took."""


class PoolObserver(Protocol):
    """Is notified of what happens to the servers of pools."""

    def server_changed(self, pool: str, server: str, state: str, why: str) -> None:
        """
        `server` became ``up``, ``down``, ``ejected``, ``draining``, ``added`` or ``removed``.

        `why` also says how long the state lasts, and what else keeps sessions away; see
        ``docs/pools.md``.
        """

    def pool_exhausted(self, pool: str, why: str) -> None:
        """`pool` cannot serve sessions; called once for each such period."""

    def discovery_failed(self, pool: str, why: str) -> None:
        """
        A look-up failed; servers that were discovered before stay in the pool.

        Called once for each reason (of the first few) until `discovery_recovered`.
        """

    def discovery_recovered(self, pool: str) -> None:
        """Look-ups succeed again, or the discovered set has no problems any more."""


@runtime_checkable
class DiscoveryObserver(PoolObserver, Protocol):
    """A pool observer that distinguishes a failed look-up from an incomplete one."""

    def discovery_incomplete(self, pool: str, why: str) -> None:
        """
        The pool has the discovered servers, but there is a problem with the set: `why`.

        For example, a record was left out, or there is no record.  Called once for each reason
        while the problem lasts.  If an observer has no such method, `discovery_failed` is called.
        """


Observer: TypeAlias = (
    SessionObserver
    | SessionStartObserver
    | SessionConnectedObserver
    | MirrorObserver
    | TroubleObserver
    | PressureObserver
    | RefusalObserver
    | PoolObserver
    | DiscoveryObserver
    | LogWriterObserver
    | CertificateObserver
    | ReloadObserver
    | LoopObserver
)
"""An object with the methods of one or more of these contracts; see `evproxy.hub.Hub`."""
