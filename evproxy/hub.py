"""
The hub: the one place that calls observers.

A service, a factory or a pool has one `Hub`.  To notify the observers of an event, code calls the
method of the event on the hub.  The hub logs an exception in an observer, and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.logger import Logger

from evproxy.config.changes import Changes
from evproxy.errors import SettingsError
from evproxy.loop_report import LoopReport
from evproxy.observers import Observer
from evproxy.records import MirrorRecord, SessionRecord, SessionStatus

EVENTS = (
    "session_started",
    "session_connected",
    "session_ended",
    "mirror_ended",
    "connect_failed",
    "accepting_paused",
    "accepting_resumed",
    "pressure_began",
    "pressure_over",
    "clients_refused",
    "server_changed",
    "pool_exhausted",
    "discovery_failed",
    "discovery_incomplete",
    "discovery_recovered",
    "log_failed",
    "log_lines_dropped",
    "log_written_again",
    "log_not_reopened",
    "log_lines_lost",
    "certificates_loaded",
    "certificates_kept",
    "certificate_expires",
    "reload_began",
    "reloaded",
    "reload_refused",
    "loop_held",
    "loop_released",
)
"""The methods that an observer may have: the contracts in `evproxy.observers` define them."""

_log = Logger()


class Hub:
    """
    Calls the observers of one service, factory or pool, in the order in which they were added.

    An observer is notified of each event that it has a method for, whichever contracts of
    `evproxy.observers` it satisfies.  A hub satisfies all of the contracts.

    `starts`, `connects`, `ends`: the methods to call for the start of a session, for its connection
    to a server, and for its end.  If a list is empty, a session does not make the value for it.
    `counts`: whether these values say how many sessions there are, because an observer wants that.

    :param observers: the first observers.
    :raises SettingsError: if an observer has no method for any event.
    """

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self._observers: list[tuple[Observer, dict[str, Any]]] = []
        self._methods: dict[str, list[Callable[..., object]]] = {event: [] for event in EVENTS}
        self.starts = self._methods["session_started"]
        self.connects = self._methods["session_connected"]
        self.ends = self._methods["session_ended"]
        self.counts = False
        for observer in observers:
            self.add(observer)

    def __bool__(self) -> bool:
        return bool(self._observers)

    def add(self, observer: Observer, before: int | None = None) -> None:
        """
        Notify `observer` from now on: once for each event, however often it is added.

        :param before: how many observers are notified first; ``None``: all others.
        :raises SettingsError: if `observer` has no method for any event.
        """
        if any(observer is each for each, _ in self._observers):
            return
        methods = {event: getattr(observer, event, None) for event in EVENTS}
        if methods["discovery_incomplete"] is None:
            methods["discovery_incomplete"] = methods["discovery_failed"]
        if not any(map(callable, methods.values())):
            raise SettingsError(
                f"observers: expected an object with a method such as session_ended, "
                f"got {observer!r}"
            )
        place = len(self._observers) if before is None else before
        self._observers.insert(place, (observer, methods))
        self._list_methods()

    def remove(self, observer: Observer) -> None:
        """Notify `observer` no more."""
        self._observers = [each for each in self._observers if each[0] is not observer]
        self._list_methods()

    def _list_methods(self) -> None:
        self.counts = any(getattr(each, "wants_counts", False) for each, _ in self._observers)
        for event, methods in self._methods.items():
            methods[:] = [each[event] for _, each in self._observers if callable(each[event])]

    def session_started(self, session: SessionStatus) -> None:
        """See `evproxy.observers.SessionStartObserver`."""
        self._tell("session_started", session)

    def session_connected(self, session: SessionStatus) -> None:
        """See `evproxy.observers.SessionConnectedObserver`."""
        self._tell("session_connected", session)

    def session_ended(self, record: SessionRecord) -> None:
        """See `evproxy.observers.SessionObserver`."""
        self._tell("session_ended", record)

    def mirror_ended(self, record: MirrorRecord) -> None:
        """See `evproxy.observers.MirrorObserver`."""
        self._tell("mirror_ended", record)

    def connect_failed(self, upstream: str, error: str) -> None:
        """See `evproxy.observers.TroubleObserver`."""
        self._tell("connect_failed", upstream, error)

    def accepting_paused(self, why: str) -> None:
        """See `evproxy.observers.TroubleObserver`."""
        self._tell("accepting_paused", why)

    def accepting_resumed(self) -> None:
        """See `evproxy.observers.TroubleObserver`."""
        self._tell("accepting_resumed")

    def pressure_began(self, what: str, remedy: str) -> None:
        """See `evproxy.observers.PressureObserver`."""
        self._tell("pressure_began", what, remedy)

    def pressure_over(self, what: str) -> None:
        """See `evproxy.observers.PressureObserver`."""
        self._tell("pressure_over", what)

    def clients_refused(self, listener: str, reason: str, count: int, peer: str) -> None:
        """See `evproxy.observers.RefusalObserver`."""
        self._tell("clients_refused", listener, reason, count, peer)

    def server_changed(self, pool: str, server: str, state: str, why: str) -> None:
        """See `evproxy.observers.PoolObserver`."""
        self._tell("server_changed", pool, server, state, why)

    def pool_exhausted(self, pool: str, why: str) -> None:
        """See `evproxy.observers.PoolObserver`."""
        self._tell("pool_exhausted", pool, why)

    def discovery_failed(self, pool: str, why: str) -> None:
        """See `evproxy.observers.PoolObserver`."""
        self._tell("discovery_failed", pool, why)

    def discovery_incomplete(self, pool: str, why: str) -> None:
        """See `evproxy.observers.DiscoveryObserver`."""
        self._tell("discovery_incomplete", pool, why)

    def discovery_recovered(self, pool: str) -> None:
        """See `evproxy.observers.PoolObserver`."""
        self._tell("discovery_recovered", pool)

    def log_failed(self, where: str, why: str) -> None:
        """See `evproxy.observers.LogWriterObserver`."""
        self._tell("log_failed", where, why)

    def log_lines_dropped(self, where: str) -> None:
        """See `evproxy.observers.LogWriterObserver`."""
        self._tell("log_lines_dropped", where)

    def log_written_again(self, where: str, dropped: int) -> None:
        """See `evproxy.observers.LogWriterObserver`."""
        self._tell("log_written_again", where, dropped)

    def log_not_reopened(self, where: str, why: str) -> None:
        """See `evproxy.observers.LogWriterObserver`."""
        self._tell("log_not_reopened", where, why)

    def log_lines_lost(self, where: str, lines: int) -> None:
        """See `evproxy.observers.LogWriterObserver`."""
        self._tell("log_lines_lost", where, lines)

    def certificates_loaded(self, listener: str) -> None:
        """See `evproxy.observers.CertificateObserver`."""
        self._tell("certificates_loaded", listener)

    def certificates_kept(self, listener: str, why: str) -> None:
        """See `evproxy.observers.CertificateObserver`."""
        self._tell("certificates_kept", listener, why)

    def certificate_expires(self, path: str, day: str, days_left: int) -> None:
        """See `evproxy.observers.CertificateObserver`."""
        self._tell("certificate_expires", path, day, days_left)

    def reload_began(self) -> None:
        """See `evproxy.observers.ReloadObserver`."""
        self._tell("reload_began")

    def reloaded(self, changes: Changes) -> None:
        """See `evproxy.observers.ReloadObserver`."""
        self._tell("reloaded", changes)

    def reload_refused(self, problems: Sequence[str]) -> None:
        """See `evproxy.observers.ReloadObserver`."""
        self._tell("reload_refused", problems)

    def loop_held(self, report: LoopReport) -> None:
        """See `evproxy.observers.LoopObserver`."""
        self._tell("loop_held", report)

    def loop_released(self, report: LoopReport) -> None:
        """See `evproxy.observers.LoopObserver`."""
        self._tell("loop_released", report)

    def _tell(self, event: str, *facts: Any) -> None:
        # An observer that another observer adds now is notified from the next event on.
        for method in tuple(self._methods[event]):
            try:
                method(*facts)
            except Exception:
                _log.failure("An observer raised an exception in {event}", event=event)


def hub_of(observer: Observer | None) -> Hub:
    """Return `observer` if it is a hub, else a hub with `observer`; for ``None``, an empty hub."""
    if isinstance(observer, Hub):
        return observer
    return Hub() if observer is None else Hub((observer,))
