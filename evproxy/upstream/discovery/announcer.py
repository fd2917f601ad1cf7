"""
The rules for notifying a pool of new servers and of failures, the same for every discovery.

No I/O.  Only this module calls the callbacks of a pool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twisted.logger import Logger, LogLevel

from evproxy.errors import SettingsError
from evproxy.model import UpstreamServer
from evproxy.upstream.reasons import one_line

Changed = Callable[[Sequence[UpstreamServer]], None]
Failed = Callable[[str], None]

UNABLE = "a pool raised an exception in a discovery callback"

_log = Logger()


class Announcer:
    """
    Notifies a pool of changes.

    The pool is notified of a set of servers if the set or its problems differ from the last
    ones.  It is also notified of the first set after a failure, so that it knows that the
    failure is over.  If the pool refuses a set with `SettingsError`, this is a failure.  Other
    exceptions of a callback are logged.  Neither stops a discovery.

    `problems` are the problems of the last set, a line for each.
    """

    def __init__(self) -> None:
        self._changed: Changed | None = None
        self._failed: Failed | None = None
        self._servers: tuple[UpstreamServer, ...] | None = None
        self._last_failed = False
        self._unusable_reason = ""
        self.problems: tuple[str, ...] = ()

    def start(self, changed: Changed, failed: Failed) -> None:
        """Notify by these callbacks from now on."""
        self._changed = changed
        self._failed = failed

    def stop(self) -> None:
        """Stop notifying."""
        self._changed = self._failed = None

    def found_partial(self, servers: tuple[UpstreamServer, ...]) -> None:
        """A running look-up knows `servers` so far: notify if there is no set yet."""
        if self._servers is None:
            self._last_failed = False
            self._servers = servers
            self._notify_changed(servers)

    def found(self, servers: tuple[UpstreamServer, ...], problems: Iterable[str] = ()) -> None:
        """A look-up found `servers`; `problems` says what is wrong with parts of the answer."""
        lines = tuple(map(one_line, problems))
        is_new = self._last_failed or servers != self._servers or lines != self.problems
        self._last_failed = False
        self._unusable_reason = ""
        self._servers = servers
        self.problems = lines
        if is_new:
            self._notify_changed(servers)

    def failed(self, reason: str) -> None:
        """A look-up failed; the last set stays."""
        self._last_failed = True
        self._notify_failed(reason)

    def unusable(self, reason: str) -> None:
        """A look-up found nothing usable; the last set stays.  Notify only if `reason` is new."""
        if reason != self._unusable_reason:
            self._unusable_reason = reason
            self.failed(reason)

    def _notify_changed(self, servers: tuple[UpstreamServer, ...]) -> None:
        if self._changed is not None:
            with _log.failuresHandled(UNABLE, LogLevel.error):
                try:
                    self._changed(servers)
                except SettingsError as error:
                    self._notify_failed(str(error))

    def _notify_failed(self, reason: str) -> None:
        if self._failed is not None:
            with _log.failuresHandled(UNABLE, LogLevel.error):
                self._failed(one_line(reason))
