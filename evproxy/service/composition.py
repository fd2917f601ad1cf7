"""
What a service is made of: its pools, its listeners with their parts, and its logs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from twisted.internet.interfaces import IStreamServerEndpoint

from evproxy.config.loops import leading_back
from evproxy.config.mirrors import mirror_problems
from evproxy.errors import SettingsError
from evproxy.hub import Hub
from evproxy.interfaces import Pool
from evproxy.mirror.mirrors import Mirrors
from evproxy.model import UpstreamServer
from evproxy.observe.access_log import AccessLog, access_log_for
from evproxy.observe.log import SessionLog, TroubleLog
from evproxy.observe.metrics.tally import Tally
from evproxy.observe.sessions_under_way import IntervalLines, StartLines
from evproxy.observers import Observer
from evproxy.recording.recordings import Recordings
from evproxy.relay.stages import StagesOfSession
from evproxy.service.certificates import Certificates
from evproxy.service.limits import open_file_limit, pipes_for, sessions_for
from evproxy.service.listener import Listener, listener_permissions, server_endpoint
from evproxy.service.listener_parts import ListenerParts, PartsMaker
from evproxy.service.retiring import Retiring
from evproxy.session.admission import Admission
from evproxy.session.factory import refuse_unknown_mirror
from evproxy.settings import AccessLogSettings, ListenerSettings, PoolSettings, Settings
from evproxy.sockets.plane import DataPlane
from evproxy.upstream.names import Names
from evproxy.upstream.pool.pool import Pool as OwnPool

PoolMaker = Callable[..., OwnPool]
"""Makes a pool, from the arguments of `evproxy.Pool.from_settings`."""

_LOGS_FROM = 1
"""The place of the logs of sessions among the observers: after the log of trouble."""


class Composition:
    """
    The parts of one service, as `settings` describe them.  Reads files.

    A reload replaces what changes: `settings`, `listeners`, `parts` (in the order of `listeners`)
    and `access_log`.  `pools` stays the same dictionary.  `interval_lines` writes the lines of
    sessions that last, whatever the log is.

    :param reactor: Twisted's.
    :param settings: what to make.
    :param observers: are notified, beside the logs.
    :param pool: the only pool, in place of those of `settings`.
    :param tally: counts what happens, for metrics; ``None``: nothing does.
    :param endpoints: where listeners listen whose description is only a name, by their places.
    :param make_pool: makes the pools of `settings`; ``None``: `evproxy.Pool.from_settings`.
    :param stages: make stages of the sessions of all listeners.
    :raises SettingsError: if a setting is wrong.
    """

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        observers: Sequence[Observer],
        pool: Pool | None = None,
        endpoints: Mapping[int, IStreamServerEndpoint] | None = None,
        tally: Tally | None = None,
        make_pool: PoolMaker | None = None,
        stages: Sequence[StagesOfSession] = (),
    ) -> None:
        self.reactor = reactor
        self.settings = settings
        # The logs come first, so that each has its line before an observer runs.
        self.hub = hub = Hub((trouble := TroubleLog(),))
        self._session_log = SessionLog()
        self._open_files = open_file_limit()
        self.admission = Admission(reactor, self.most_sessions(settings), hub)
        self.interval_lines = IntervalLines(reactor, self.admission.sessions)
        self._start_lines: StartLines | None = None
        self.access_log = access_log_for(reactor, settings.access_log, hub)
        self._log_sessions(settings.access_log)
        for observer in observers:
            hub.add(observer)
        if tally is not None:
            # It has methods of several contracts, and all methods of none.
            hub.add(cast(Any, tally))
        self.plane = DataPlane(
            reactor,
            settings.relay,
            self.admission,
            settings.keepalive,
            most_pipes=pipes_for(self._open_files),
        )
        self.names = Names(reactor)
        self._make_pool: PoolMaker = make_pool or OwnPool.from_settings
        self.given_pool = pool
        self.pools: dict[str, Pool] = (
            {each.name: self.pool(each) for each in settings.pools}
            if pool is None
            else {"default": pool}
        )
        if isinstance(pool, OwnPool):
            pool.hear_if_nobody_does(trouble)
        self.certificates = Certificates(reactor, hub)
        self.recordings = Recordings(reactor)
        self.mirrors = Mirrors(reactor, hub, self.plane, self.pools)
        if pool is not None:
            refuse_unknown_mirror(pool)
        else:
            for problem in mirror_problems(settings.pools):
                raise SettingsError(str(problem))
        self.maker = PartsMaker(
            reactor,
            hub,
            self.admission,
            self.plane,
            self.pools,
            self.certificates,
            tally,
            stages,
            recordings=self.recordings,
            mirrors=self.mirrors,
        )
        self.parts: tuple[ListenerParts, ...] = tuple(
            self.maker.make(each, settings.timeouts, self.maker.read(each))
            for each in settings.listeners
        )
        if self._records:
            hub.add(self.recordings)
        self.listeners: tuple[Listener, ...] = tuple(
            self.listener(parts, (endpoints or {}).get(place))
            for place, parts in enumerate(self.parts)
        )
        self.retiring = Retiring(reactor, self.admission.sessions)

    @property
    def _records(self) -> bool:
        return any(each.settings.record for each in self.parts)

    def use(self, parts: Sequence[ListenerParts], listeners: Sequence[Listener]) -> None:
        """Have these listeners from now on, which `parts` belong to."""
        recorded = self._records
        self.parts, self.listeners = tuple(parts), tuple(listeners)
        if self._records:
            self.hub.add(self.recordings)
        elif recorded:
            # Sessions of now may still begin a recording.
            self.retiring.add(lambda: self.recordings.when_idle(self._forget_recordings))

    def _forget_recordings(self) -> None:
        if not self._records:
            self.hub.remove(self.recordings)

    def most_sessions(self, settings: Settings) -> int:
        """The bound on sessions of `settings`, in numbers."""
        copies = sum(each.mirror.max_copies for each in settings.pools if each.mirror is not None)
        return settings.max_sessions or sessions_for(self._open_files, copies)

    def pool(self, settings: PoolSettings) -> OwnPool:
        """Make the pool of `settings`.  Reads files."""
        made = self._make_pool(self.reactor, settings, names=self.names, observer=self.hub)
        made.misplaced = partial(self._leading_back, made)
        return made

    def _leading_back(self, pool: OwnPool, servers: Sequence[UpstreamServer]) -> dict[str, str]:
        """Why `pool` cannot have some of the `servers` that discovery has found, by their names."""
        return leading_back(self.settings.listeners, self.settings.pools, pool.settings, servers)

    def listener(
        self, parts: ListenerParts, endpoint: IStreamServerEndpoint | None = None
    ) -> Listener:
        """Make the listener of `parts`; it does not listen yet."""
        listen = parts.settings.listen
        return Listener(listen, endpoint or self.endpoint(parts.settings), parts.factory)

    def endpoint(self, settings: ListenerSettings) -> IStreamServerEndpoint:
        """
        The endpoint of a listener.

        :raises SettingsError: if there is no such endpoint.
        """
        permissions = listener_permissions(settings)
        return server_endpoint(self.plane.listening, settings.listen, permissions)

    def log_to(self, log: AccessLog | None, settings: AccessLogSettings) -> AccessLog | None:
        """Log sessions to `log` from now on, and as `settings` say; return the log of before."""
        before, self.access_log = self.access_log, log
        for observer in (before, self._session_log, self._start_lines):
            if observer is not None:
                self.hub.remove(observer)
        self._log_sessions(settings)
        return before

    def _log_sessions(self, settings: AccessLogSettings) -> None:
        log: AccessLog | SessionLog | None = self.access_log
        if settings.path in ("auto", "twisted:"):
            log = self._session_log
        self._start_lines = None
        self.interval_lines.write_to(log, settings.interval)
        if log is None:
            return
        self.hub.add(log, before=_LOGS_FROM)
        if settings.start:
            self._start_lines = StartLines(log)
            self.hub.add(self._start_lines, before=_LOGS_FROM)
