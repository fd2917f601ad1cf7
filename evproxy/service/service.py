"""
A proxy as a Twisted service: listeners, pools, and their start and end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, cast

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint
from twisted.logger import Logger

from evproxy.admin.access import token_of
from evproxy.config.changes import Changes
from evproxy.config.loops import loops
from evproxy.errors import SettingsError
from evproxy.interfaces import Pool as PoolInterface
from evproxy.model import UpstreamServer
from evproxy.observe.metrics.family import MetricSource
from evproxy.observe.metrics.tally import Tally
from evproxy.observe.watchdog.watchdog import Watchdog
from evproxy.observers import Observer
from evproxy.relay.stages import StagesOfSession
from evproxy.service.arguments import settings_of
from evproxy.service.composition import Composition, PoolMaker
from evproxy.service.listener import (
    Listener,
)
from evproxy.service.listening_sockets import ServiceSockets
from evproxy.service.reload import Agreed, Reloads
from evproxy.service.status import Status
from evproxy.service.used_pools import UsedPools
from evproxy.session.live import MOST_LISTED, check_deadline
from evproxy.session.spread import SpreadEnds
from evproxy.settings import (
    DEFAULT_LISTEN,
    AccessLogSettings,
    AdminSettings,
    Keepalive,
    PoolSettings,
    Settings,
    Timeouts,
    refuse_beside_settings,
    refuse_other,
    several,
)
from evproxy.upstream.pool.pool import Pool
from evproxy.upstream.pool.status import PoolStatus

_log = Logger()

if TYPE_CHECKING:
    from evproxy.admin.interface import AdminInterface

_POOL, _TIMEOUTS, _KEEPALIVE = PoolSettings(), Timeouts(), Keepalive()


AdminMaker = Callable[["ProxyService"], "AdminInterface | None"]

OBJECTS = ("observers", "troubles", "make_pool", "stages", "make_admin")
"""The arguments that may be given beside `settings`."""


def _own_admin(proxy: ProxyService) -> AdminInterface | None:
    return proxy.admin_interface()


def _no_file() -> Settings:
    raise SettingsError("there is no configuration file to read again")


def _status_without_servers(pool: PoolInterface) -> PoolStatus:
    waiting = pool.waiting if isinstance(pool, Pool) else 0
    return PoolStatus(name=pool.name, servers=(), waiting=waiting)


class ProxyService(Service):
    """
    Proxies what its listeners accept to the servers of its pools.

    The service binds its ports in `privilegedStartService`, or else in `startService`.
    `stopService` drains: it accepts nothing new, lets running sessions finish for `drain_timeout`
    seconds, and resets the rest; its Deferred fires when no session is left.

    :param reactor: Twisted's.
    :param listen: server endpoint descriptions, or `IStreamServerEndpoint` objects.  The ports of
        such objects are Twisted's own: they do not pause at the bound on sessions, and evproxy
        closes the connections over the bound.
    :param upstreams: servers: ``HOST:PORT``, client endpoint descriptions, `UpstreamServer`, or
        ``IStreamClientEndpoint`` objects.
    :param pool: a pool to use in place of `upstreams` and of the next four options, which the pool
        has itself.  evproxy logs what happens to the servers of the pool, unless the pool has its
        own observer.
    :param balance: the balancing policy; see `PoolSettings`.
    :param connect_timeout: the timeout of a connect to one server, in seconds.
    :param connect_attempts: how many distinct servers evproxy tries for one session.
    :param source: addresses of this machine, and ranges of them, to connect from in turn;
        empty: the kernel chooses.
    :param idle_timeout, half_close_timeout, handshake_timeout, drain_timeout: seconds; see
        `Timeouts`.
    :param max_sessions: the most sessions at once; 0 derives it from the open-file limit.
    :param relay: ``auto``, ``stream`` or ``socket``.
    :param access_log: where evproxy logs the end of each session: `AccessLogSettings`, whose
        ``auto`` means ``twisted:`` here.  True: ``twisted:``.  False: nowhere.
    :param admin: where operators ask about the service, and change it: an endpoint description, or
        `AdminSettings`.  Empty: nowhere.
    :param accept_proxy_protocol_from: networks of proxies that must send a PROXY header; see
        `ListenerSettings`.
    :param unix_mode, unix_user, unix_group: the permissions of the paths of UNIX listeners; see
        `ListenerSettings`.
    :param keepalive: how the kernel probes idle TCP connections.
    :param observers: are notified, beside the logs, of the events that they have methods for:
        see `evproxy.observers.Observer`.
    :param troubles: more observers.
    :param settings: all settings in one value, in place of the other arguments.  `workers` has no
        effect: a service is in one process.
    :param make_pool: makes the pools of the settings, from the arguments of `Pool.from_settings`,
        which is the default.
    :param stages: each makes the stages of a session, from its `SessionStatus`: a
        `evproxy.faults.Faults`, or what `evproxy.stages.filtered` returns.
    :param make_admin: makes the admin interface from the service, or returns ``None``; ``None``: as
        the settings say.
    :raises SettingsError: if a setting is wrong, or contradicts another.
    :raises TypeError: if `reactor` is not a reactor.

    `pools` has the pools by name; a pool made from the arguments is called ``default``.
    `settings_from` may be set to a function that returns the settings anew, for `reload`.
    `sockets` are the listening sockets, for `Restarts` and `Systemd`.
    `patient` may be set: then `stopService` drains without a deadline, as after SIGQUIT.
    `watchdog` is what `watch_loop` has made.  `admin` is the admin interface, if there is one.
    `metric_sources` takes further metrics for it: pairs of a scope and a function that returns
    families.
    """

    def __init__(
        self,
        reactor: Any,
        listen: Sequence[str | IStreamServerEndpoint] = (DEFAULT_LISTEN,),
        upstreams: Sequence[str | UpstreamServer | IStreamClientEndpoint] = (),
        *,
        pool: PoolInterface | None = None,
        balance: str = _POOL.balance,
        connect_timeout: float = _POOL.connect_timeout,
        connect_attempts: int = _POOL.connect_attempts,
        source: str | Sequence[str] = (),
        idle_timeout: float = _TIMEOUTS.idle,
        half_close_timeout: float = _TIMEOUTS.half_close,
        handshake_timeout: float = _TIMEOUTS.handshake,
        drain_timeout: float = _TIMEOUTS.drain,
        max_sessions: int = 0,
        relay: str = "auto",
        access_log: AccessLogSettings | bool = True,
        admin: AdminSettings | str = "",
        accept_proxy_protocol_from: str | Sequence[str] = (),
        unix_mode: str = "",
        unix_user: str = "",
        unix_group: str = "",
        keepalive: Keepalive = _KEEPALIVE,
        observers: Sequence[Observer] = (),
        troubles: Sequence[Observer] = (),
        settings: Settings | None = None,
        make_pool: PoolMaker | None = None,
        stages: Sequence[StagesOfSession] = (),
        make_admin: AdminMaker | None = None,
    ) -> None:
        if not hasattr(reactor, "callLater"):
            raise TypeError(f"ProxyService: the first argument is the reactor, got {reactor!r}")
        endpoints: dict[int, IStreamServerEndpoint] = {}
        observers, troubles = several("observers", observers), several("troubles", troubles)
        stages = several("stages", stages)
        if settings is not None:
            refuse_other("settings", settings, Settings)
            refuse_beside_settings(ProxyService, locals(), OBJECTS)
        else:
            settings = settings_of(
                listen,
                upstreams,
                pool,
                source=source,
                timeouts=Timeouts(
                    idle=idle_timeout,
                    half_close=half_close_timeout,
                    handshake=handshake_timeout,
                    drain=drain_timeout,
                ),
                access_log=access_log,
                accept_proxy_protocol_from=accept_proxy_protocol_from,
                permissions=(unix_mode, unix_user, unix_group),
                pool_options={
                    "balance": balance,
                    "connect_timeout": connect_timeout,
                    "connect_attempts": connect_attempts,
                },
                keepalive=keepalive,
                max_sessions=max_sessions,
                relay=relay,
                admin=AdminSettings(admin) if isinstance(admin, str) else admin,
            )
            endpoints = {n: each for n, each in enumerate(listen) if not isinstance(each, str)}
        if pool is None:
            for loop in loops(settings.listeners, settings.pools):
                raise SettingsError(f"upstreams: {loop.reason}")
        self.tally: Tally | None = None
        if settings.admin.listen:
            self.tally = Tally()
        self.metric_sources: list[MetricSource] = []
        self._made = made = Composition(
            reactor,
            settings,
            (*observers, *troubles),
            pool,
            endpoints,
            self.tally,
            make_pool,
            stages,
        )
        self.admission = made.admission
        self.plane = made.plane
        # The type of a user's own pool is the user's concern.
        self.pools = cast(dict[str, Pool], made.pools)
        self.settings_from: Callable[[], Settings] | None = None
        self._pools = UsedPools(made.pools, self)
        self._reloads = Reloads(
            made,
            self._pools,
            lambda: self._listening,
            lambda: bool(self.running),
            self._drains,
        )
        self.watchdog: Watchdog | None = None
        self.patient = False
        self._spread = SpreadEnds(reactor, self.admission.sessions)
        self.admin = (make_admin or _own_admin)(self)
        self.sockets = ServiceSockets(
            self.plane.listening.handed, lambda: self.listeners, lambda: self.admin
        )
        self._listening = False
        self._bound_once = False
        self._drained: Deferred[None] | None = None

    @classmethod
    def from_settings(
        cls,
        reactor: Any,
        settings: Settings,
        observers: Sequence[Observer] = (),
        make_pool: PoolMaker | None = None,
        make_admin: AdminMaker | None = None,
    ) -> Self:
        """
        Return the service that `settings` describe, for example those of a configuration file.

        :param make_admin: makes the admin interface; ``None``: as the settings say.

        :raises SettingsError: if a setting is wrong.
        """
        return cls(
            reactor,
            settings=settings,
            observers=observers,
            make_pool=make_pool,
            make_admin=make_admin,
        )

    @property
    def settings(self) -> Settings:
        """The settings in use."""
        return self._made.settings

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """The listeners, in the order of the settings."""
        return self._made.listeners

    def reload(
        self, settings: Settings | None = None, agreed: Agreed | None = None
    ) -> Deferred[Changes]:
        """
        Use other settings, without a restart: all of them, or none if there is any problem.

        Sessions keep the settings that they started with.  What does not change is not touched:
        listeners stay bound, and pools keep their servers, their health and their queue.  The files
        of certificates and of networks are read again in any case.  Everything that may block runs
        in a thread.  Requests wait for each other.

        :param settings: the settings to use; ``None``: what the function `settings_from` returns,
            which is called in a thread.
        :param agreed: called with what will change, once everything is prepared and nothing is
            changed yet.  The reload waits for its Deferred, and is refused if that fails with a
            `SettingsError`.  ``None``: nobody is asked.
        :return: what has changed, once it has.  Fails with a `SettingsError` if nothing changes:
            with `ConfigErrors`, which has one line for each problem, if the settings are refused.
        """
        if settings is not None:
            return self._reloads.request(lambda: settings, agreed)
        return self._reloads.request(self.settings_from or _no_file, agreed)

    def admin_interface(self) -> AdminInterface | None:
        """Make the admin interface that the settings describe; ``None``: they describe none."""
        admin = self.settings.admin
        if not admin.listen:
            token_of(admin)
            return None
        # An HTTP server is loaded only where it is wanted.
        from evproxy.admin.interface import AdminInterface

        handed = self.plane.listening.handed
        return AdminInterface(self._made.reactor, self, admin, handed=handed)

    @property
    def addresses(self) -> list[IPv4Address | IPv6Address | UNIXAddress]:
        """The Twisted addresses on which the service listens now, in the order of listeners."""
        ports = [listener.port for listener in self.listeners]
        hosts: list[Any] = [port.getHost() for port in ports if port is not None]
        return hosts

    def when_listening(self) -> Deferred[None]:
        """
        Return a Deferred that fires when every listener listens; you may cancel it.

        It never fires if one of them cannot listen, which is logged, or if the service stops first.
        """
        listening: Deferred[None] = Deferred()

        def all_listen(_: object) -> None:
            if not listening.called:
                listening.callback(None)

        DeferredList([each.when_listening() for each in self.listeners]).addCallback(all_listen)
        return listening

    @property
    def session_count(self) -> int:
        """How many sessions there are now."""
        return len(self.admission.sessions)

    def observe(self, observer: Observer) -> None:
        """
        Notify `observer`, too, of the events that it has methods for.

        :raises SettingsError: if it has none.
        """
        self._made.hub.add(observer)

    def status(self, most_sessions: int = MOST_LISTED) -> Status:
        """
        Return a snapshot of the service, with its `most_sessions` oldest sessions.

        256 sessions take about a millisecond.
        """
        pools: list[PoolInterface] = list(self._made.pools.values())
        return evolve(
            self.overview(),
            pools=tuple(
                pool.status() if isinstance(pool, Pool) else _status_without_servers(pool)
                for pool in pools
            ),
            sessions=self.admission.sessions.status(most_sessions),
        )

    @property
    def log_lines_dropped(self) -> int:
        """How many lines of the access log were dropped, because its destination was too slow."""
        log = self._made.access_log
        return 0 if log is None else log.dropped

    def overview(self) -> Status:
        """Return a snapshot without servers and sessions: it takes the same time for any number."""
        drained = self._drained is not None and self._drained.called
        return Status(
            listeners=tuple(listener.status() for listener in self.listeners),
            pools=tuple(map(_status_without_servers, self._made.pools.values())),
            sessions=(),
            session_count=len(self.admission.sessions),
            max_sessions=self.admission.limit,
            certificates=self._made.certificates.status(),
            draining=self._drains(),
            drained=drained,
            loop=None if self.watchdog is None else self.watchdog.status(),
        )

    def _drains(self) -> bool:
        return self._drained is not None and not self._drained.called

    @property
    def has_drained(self) -> bool:
        """Whether the last drain is over, and the service was not started since."""
        return self._drained is not None and self._drained.called

    def watch_loop(self, threshold: float) -> Watchdog:
        """
        Let a watchdog watch the loop, from the start of the service to the end of its drain.

        The observers are notified, and `status` has `loop`.  Call this before the service starts,
        for one service of a process.

        :param threshold: seconds from which on a hold of the loop is reported, at least 0.01.
        :raises SettingsError: if `threshold` is too small.
        """
        self.watchdog = Watchdog(self._made.reactor, threshold, self._made.hub)
        if self.plane.engine is not None:
            self.watchdog.time_engine(self.plane.engine)
        return self.watchdog

    def end_session(self, session_id: int) -> None:
        """
        Reset both sides of the session with the `SessionStatus.id` `session_id`.

        :raises LookupError: if there is no such session, or no longer.
        """
        self.admission.sessions.end(session_id)

    def end_sessions_of(self, pool: str, server: str, over: float = 0.0) -> Deferred[int]:
        """
        Reset the sessions that the server called `server` of the pool called `pool` has now.

        Drain the server before: a reset client may connect again at once.

        :param over: seconds within which they end, evenly, the oldest first; 0: at once, some in
            each turn of the reactor.
        :return: fires with how many sessions there are, before the first one ends.
        """
        return self._spread.end(pool, server, over)

    def privilegedStartService(self) -> None:
        """
        Bind every listener, and open the access log.

        If an endpoint's Deferred fires later, this method does not wait for it.  The listener
        serves once the endpoint listens, and a late error is logged.

        :raises twisted.internet.error.CannotListenError: if a listener cannot listen; then no
            listener is bound.
        :raises evproxy.admin.errors.AdminCannotListen: if the admin interface cannot listen; then
            no listener is bound.
        :raises evproxy.errors.CannotOpenLog: if the access log cannot be opened; then no listener
            is bound.
        :raises RuntimeError: if the service still drains: the Deferred of `stopService` must fire
            first.
        """
        if self._drains():
            raise RuntimeError("evproxy still drains, it cannot be started again yet")
        super().privilegedStartService()
        self._drained = None
        if self._listening:
            return
        self._listening = self._bound_once = True
        try:
            for listener in self.listeners:
                listener.bind()
            if self.admin is not None:
                self.admin.bind()
            if self._made.access_log is not None:
                self._made.access_log.open()
            self._made.interval_lines.start()
        except BaseException:
            self._close_listeners()
            self._close_admin()
            raise

    def _close_listeners(self) -> Deferred[Any]:
        """Close every listener; the Deferred fires when every port is closed."""
        self._listening = False
        return DeferredList([listener.close() for listener in self.listeners])

    def startService(self) -> None:
        """
        Bind the listeners that are not bound yet, and start health checks and discovery.

        :raises Exception: as `privilegedStartService` does, or as a pool of your own does when it
            starts: then the service has stopped again.
        """
        self.privilegedStartService()
        super().startService()
        try:
            if self.watchdog is not None:
                self.watchdog.startService()
            self._made.certificates.start()
            for parts in self._made.parts:
                parts.start()
            self._pools.start()
        except BaseException:
            self.stopService()
            raise

    @property
    def stop_deadline(self) -> float | None:
        """Seconds for the sessions when the service stops; ``None``: as long as they want."""
        return None if self.patient else self.settings.timeouts.drain

    def stopService(self) -> Deferred[None]:
        """
        Drain with the drain timeout, or without a deadline if the service is `patient`.

        The admin interface goes on until no session is left.

        :return: fires when no session is left.
        """
        super().stopService()
        drained = self.drain(self.stop_deadline)
        return drained.addCallback(lambda _: self._close_admin())

    def _close_admin(self) -> Deferred[None]:
        return succeed(None) if self.admin is None else self.admin.close()

    def drain(self, deadline: float | None) -> Deferred[None]:
        """
        Accept nothing new, and let the running sessions finish.

        If all users of a pool drain, the pool stops checking its servers until one of the users
        starts again.  So servers that stop at the same time are not reported as down.

        :param deadline: seconds after which the remaining sessions are reset; ``None``: never.
            A further call can bring the deadline of a drain in progress forward, and not put it
            off.
        :return: fires when no session is left.
        :raises SettingsError: if `deadline` is neither.
        """
        check_deadline(deadline)
        if self._drained is None:
            self._drained = Deferred()
            self._begin_drain(deadline)
        else:
            self.admission.sessions.end_within(deadline)
        drained: Deferred[None] = Deferred()
        self._drained.addCallback(lambda _: drained.callback(None))
        return drained

    def _begin_drain(self, deadline: float | None) -> None:
        self._pools.drain()
        drained = self.admission.sessions.drain(deadline, self._close_listeners())
        drained.addCallback(self._gone)

    def reopen_log(self) -> None:
        """Open the path of the access log again, for example after its file was renamed."""
        if self._made.access_log is not None:
            self._made.access_log.reopen()

    def reload_certificates(self) -> None:
        """Read the files of all certificates again; those that cannot be used change nothing."""
        self._made.certificates.reload()

    def abort(self) -> None:
        """Reset every session now, some of them in each turn of the reactor."""
        self.admission.sessions.abort()

    def _gone(self, _: object) -> None:
        self._made.mirrors.close().addCallback(self._close)

    def _close(self, _: object) -> None:
        made = self._made
        self._pools.stop(self._bound_once)
        self._bound_once = False
        self._spread.stop()
        made.interval_lines.stop()
        made.retiring.close()
        made.certificates.stop()
        for parts in made.parts:
            parts.close()
        made.names.stop()
        self.admission.close()
        self.plane.close()
        if self.watchdog is not None:
            self.watchdog.stopService()
        # A reload in progress may still close the log that it has replaced.
        self._reloads.when_closed().addCallback(self._close_log)

    def _close_log(self, _: object) -> None:
        drained, log = self._drained, self._made.access_log
        assert drained is not None
        # Close the log last: by now it has a record of every session.
        written = [self._made.recordings.close()]
        if log is not None:
            written.append(log.close())
        DeferredList(written).addCallback(lambda _: drained.callback(None))
