"""
When a pool is told of a set of servers or of a failure: the same rules for every discovery.

No I/O; a pool's callbacks are called from here only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twisted.logger import Logger, LogLevel

from evproxy.errors import SettingsError
from evproxy.model import UpstreamServer
from evproxy.upstream.reasons import one_line

Changed = Callable[[Sequence[UpstreamServer]], None]
Failed = Callable[[str], None]

UNABLE = "a pool raised an exception when it was told what was discovered"

_log = Logger()


class Announcer:
    """
    Tells a pool what is new.

    A set is told when it, or what is wrong with it, differs from the last one, or when it
    is the first one after a failure, so that the pool knows that this is over.  A set that
    the pool refuses with `SettingsError` is a failure; what else a callback raises is
    logged.  Neither stops a discovery.

    `problems`: what is wrong with the set that was found last, a line for each thing.
    """

    def __init__(self) -> None:
        self._changed: Changed | None = None
        self._failed: Failed | None = None
        self._servers: tuple[UpstreamServer, ...] | None = None
        self._missed = False
        self._broken = ""
        self.problems: tuple[str, ...] = ()

    def start(self, changed: Changed, failed: Failed) -> None:
        """From now on, tell these."""
        self._changed = changed
        self._failed = failed

    def stop(self) -> None:
        """From now on, tell nobody."""
        self._changed = self._failed = None

    def first(self, servers: tuple[UpstreamServer, ...]) -> None:
        """A look-up that goes on knows `servers` so far: told if nothing was found before."""
        if self._servers is None:
            self._missed = False
            self._servers = servers
            self._tell_changed(servers)

    def found(self, servers: tuple[UpstreamServer, ...], problems: Iterable[str] = ()) -> None:
        """A look-up gave `servers`; `problems` are what was wrong with parts of it."""
        lines = tuple(map(one_line, problems))
        is_news = self._missed or servers != self._servers or lines != self.problems
        self._missed = False
        self._broken = ""
        self._servers = servers
        self.problems = lines
        if is_news:
            self._tell_changed(servers)

    def missed(self, reason: str) -> None:
        """A look-up failed; the last set stays."""
        self._missed = True
        self._tell_failed(reason)

    def broken(self, reason: str) -> None:
        """What was found cannot be used, and the last set stays; told when `reason` is new."""
        if reason != self._broken:
            self._broken = reason
            self.missed(reason)

    def _tell_changed(self, servers: tuple[UpstreamServer, ...]) -> None:
        if self._changed is not None:
            with _log.failuresHandled(UNABLE, LogLevel.error):
                try:
                    self._changed(servers)
                except SettingsError as error:
                    self._tell_failed(str(error))

    def _tell_failed(self, reason: str) -> None:
        if self._failed is not None:
            with _log.failuresHandled(UNABLE, LogLevel.error):
                self._failed(one_line(reason))
