"""
A proxy as a Twisted service: listeners, pools, and their start and end.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import length_hint
from typing import Any, cast

import attrs
from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.config.addresses import is_unix_listener, listen_fault, permission_fault
from evproxy.config.loops import loops
from evproxy.engine.pipes import MOST as MOST_PIPES
from evproxy.errors import CannotOpenLog, SettingsError
from evproxy.interfaces import Pool as PoolInterface
from evproxy.interfaces import SessionObserver, SharedPool, TroubleObserver
from evproxy.model import Ending, Side, UpstreamServer, upstream_server
from evproxy.observe.access_log import access_log_for
from evproxy.observe.log import SessionLog, TroubleLog
from evproxy.session.admission import Admission
from evproxy.session.factory import ProxyFactory
from evproxy.session.session import Session
from evproxy.settings import (
    DEFAULT_BACKLOG,
    DEFAULT_LISTEN,
    PERMISSIONS,
    AccessLogSettings,
    Keepalive,
    ListenerSettings,
    PoolSettings,
    Settings,
    Timeouts,
    in_a_tuple,
)
from evproxy.sockets.listening import TWISTED_BACKLOG, ListeningReactor
from evproxy.sockets.plane import DataPlane
from evproxy.sockets.unix_path import AS_DESCRIBED, Permissions, permissions
from evproxy.upstream.names import Names
from evproxy.upstream.pool.pool import Pool
from evproxy.upstream.reasons import description_fault

_log = Logger()

_POOL, _TIMEOUTS, _KEEPALIVE = PoolSettings(), Timeouts(), Keepalive()

RESERVED_FILES = 64
"""Descriptors left for everything but sessions and pipes: listeners, logs, health checks."""


def open_file_limit() -> int:
    """How many descriptors this process may have."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


RESET_BATCH = 32
"""How many sessions are reset before the reactor gets its turn: about a millisecond's worth."""


def sessions_for(open_files: int) -> int:
    """The bound on sessions that fits a limit of `open_files` descriptors: two for each."""
    return max(1, (open_files - RESERVED_FILES - 2 * pipes_for(open_files)) // 2)


def pipes_for(open_files: int) -> int:
    """How many pipes fit a limit of `open_files` descriptors: at most an eighth of them all."""
    return min(MOST_PIPES, open_files // 16)


def server_endpoint(
    reactor: Any, description: str, permissions: Permissions = AS_DESCRIBED
) -> IStreamServerEndpoint:
    """
    The endpoint for `description`, with a backlog of `DEFAULT_BACKLOG` if it names none.

    :param reactor: a `ListeningReactor`; any other one if the endpoint will never listen.
    :param permissions: who may connect to the path of a UNIX listener.
    :raises SettingsError: if there is no such endpoint.
    """
    fault = listen_fault(description)
    if fault is not None:
        raise SettingsError(f"{description!r} cannot be listened on: {fault}")
    if isinstance(reactor, ListeningReactor):
        backlog = TWISTED_BACKLOG if ":backlog=" in description else DEFAULT_BACKLOG
        reactor = reactor.for_listener(backlog, permissions)
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    except Exception as error:
        # Parsers of endpoint plugins raise what they like.
        why = description_fault(error)
        if description.startswith("systemd:") and isinstance(error, LookupError):
            why = "systemd has handed over no such socket"
        raise SettingsError(f"{description!r} cannot be listened on: {why}") from None
    return endpoint


def listener_permissions(listener: ListenerSettings) -> Permissions:
    """
    Who may connect to the path of `listener`.

    :raises SettingsError: if it says so and has no path, or there is no such user or group.
    """
    given = {key: getattr(listener, key) for key in PERMISSIONS}
    for key in filter(given.get, PERMISSIONS):
        fault = permission_fault(key, listener.listen)
        if fault is not None:
            raise SettingsError(f"{key}: {fault}")
    return permissions(*given.values())


def listeners_for(
    listen: Sequence[str], unix_mode: str, unix_user: str, unix_group: str
) -> tuple[ListenerSettings, ...]:
    """
    A listener for each of the descriptions `listen`; those of UNIX sockets get the permissions.

    :raises SettingsError: if there are permissions, and no UNIX listener to have them.
    """
    given = dict(zip(PERMISSIONS, (unix_mode, unix_user, unix_group), strict=True))
    for key, value in given.items():
        if value and not any(map(is_unix_listener, listen)):
            raise SettingsError(f"{key}: it is for UNIX listeners only, and there is none")
    return tuple(
        ListenerSettings(each, **(given if is_unix_listener(each) else {})) for each in listen
    )


def _raise_listen_error(description: str, failure: Failure) -> None:
    """Raise it as Twisted does for most errors, but not for all (a lock file, a port too high)."""
    error = failure.value
    if isinstance(error, OSError | OverflowError | ValueError) and not isinstance(
        error, CannotListenError
    ):
        raise CannotListenError(None, description, error)
    failure.raiseException()


def _log_listen_error(failure: Failure, description: str) -> None:
    _log.failure("Cannot listen on {description}", failure, description=description)


def _refuse_none(argument: str, values: Sequence[object], what: str) -> None:
    """A string, which is a sequence too, is not meant as one."""
    if isinstance(values, str) or not values:
        raise SettingsError(
            f"{argument}: expected a sequence of at least one {what}, got {values!r}"
        )


def _refuse_beside_a_pool(given: PoolSettings) -> None:
    """Refuse options of a pool where there is a pool already: they would have no effect."""
    for attribute in attrs.fields(PoolSettings):
        if getattr(given, attribute.name) != attribute.default:
            raise SettingsError(
                f"{attribute.name}: cannot be given together with pool, which has its own"
            )


def _described(endpoint: object) -> str:
    """What the log calls a listener that is an endpoint object."""
    if not IStreamServerEndpoint.providedBy(endpoint):
        raise SettingsError(
            "listen: expected a server endpoint description or an IStreamServerEndpoint, "
            f"got {endpoint!r}"
        )
    return type(endpoint).__name__


class ProxyService(Service):
    """
    Proxies what its listeners accept to the servers of its pools.

    Listening ports bind in `privilegedStartService`, or else in `startService`.
    `stopService` drains: it accepts nothing new, lets sessions come to their end for
    `drain_timeout` seconds, and resets the rest; its Deferred fires when all are gone.

    :param reactor: Twisted's.
    :param listen: server endpoint descriptions, or `IStreamServerEndpoint` objects.  Ports of
        the latter are Twisted's own: at the bound on sessions they do not pause, and who is over
        the bound is closed.
    :param upstreams: servers: ``HOST:PORT``, client endpoint descriptions, or `UpstreamServer`.
    :param pool: a pool to use in place of `upstreams`, and of the four options of a pool that
        follow, which it has itself; what happens to its servers is logged, unless it has an
        observer of its own.
    :param balance: how a server is picked; see `PoolSettings`.
    :param connect_timeout: seconds for one server.
    :param connect_attempts: distinct servers tried for one session.
    :param source: addresses of this machine, and ranges of them, to connect from in turn;
        empty: as the kernel chooses.
    :param idle_timeout, half_close_timeout, drain_timeout: seconds; see `Timeouts`.
    :param max_sessions: the most sessions at once; 0 derives it from the open-file limit.
    :param relay: ``auto``, ``stream`` or ``socket``.
    :param access_log: where the end of each session is logged: `AccessLogSettings`, whose
        ``auto`` is ``twisted:`` here.  True: there.  False: nowhere.
    :param unix_mode, unix_user, unix_group: who may connect to the paths of UNIX listeners; see
        `ListenerSettings`.
    :param keepalive: how idle TCP connections are probed.
    :param observers: hear of the ends of sessions, beside the logs.
    :param troubles: hear of connects that failed, and of pauses, beside the log.
    :raises SettingsError: if a setting is wrong, or contradicts another.
    :raises TypeError: if `reactor` is none.

    `pools` are the pools by name; the one that is made of the arguments is ``default``.
    """

    def __init__(
        self,
        reactor: Any,
        listen: Sequence[str | IStreamServerEndpoint] = (DEFAULT_LISTEN,),
        upstreams: Sequence[str | UpstreamServer] = (),
        *,
        pool: PoolInterface | None = None,
        balance: str = _POOL.balance,
        connect_timeout: float = _POOL.connect_timeout,
        connect_attempts: int = _POOL.connect_attempts,
        source: str | Sequence[str] = (),
        idle_timeout: float = _TIMEOUTS.idle,
        half_close_timeout: float = _TIMEOUTS.half_close,
        drain_timeout: float = _TIMEOUTS.drain,
        max_sessions: int = 0,
        relay: str = "auto",
        access_log: AccessLogSettings | bool = True,
        unix_mode: str = "",
        unix_user: str = "",
        unix_group: str = "",
        keepalive: Keepalive = _KEEPALIVE,
        observers: Sequence[SessionObserver] = (),
        troubles: Sequence[TroubleObserver] = (),
    ) -> None:
        if not hasattr(reactor, "callLater"):
            raise TypeError(f"ProxyService: the first argument is the reactor, got {reactor!r}")
        _refuse_none("listen", listen, "server endpoint description")
        if pool is None:
            _refuse_none("upstreams", upstreams, "server (or a pool)")
        described = [each if isinstance(each, str) else _described(each) for each in listen]
        pool_settings = PoolSettings(
            upstreams=tuple(upstream_server(given) for given in upstreams),
            balance=balance,
            connect_timeout=connect_timeout,
            connect_attempts=connect_attempts,
            source=in_a_tuple(source),
        )
        if pool is not None:
            _refuse_beside_a_pool(pool_settings)
        settings = Settings(
            listeners=listeners_for(described, unix_mode, unix_user, unix_group),
            pools=(pool_settings,),
            keepalive=keepalive,
            timeouts=Timeouts(
                idle=idle_timeout, half_close=half_close_timeout, drain=drain_timeout
            ),
            max_sessions=max_sessions,
            relay=relay,
            access_log=AccessLogSettings("auto" if access_log else "off")
            if isinstance(access_log, bool)
            else access_log,
        )
        endpoints = {place: each for place, each in enumerate(listen) if not isinstance(each, str)}
        self._set_up(reactor, settings, observers, troubles, pool, endpoints)

    @classmethod
    def from_settings(
        cls, reactor: Any, settings: Settings, observers: Sequence[SessionObserver] = ()
    ) -> ProxyService:
        """
        The service that `settings` describe, as read from a configuration file.

        :raises SettingsError: if a setting is wrong.
        """
        self = cls.__new__(cls)
        self._set_up(reactor, settings, observers, (), None, {})
        return self

    def _set_up(
        self,
        reactor: Any,
        settings: Settings,
        observers: Sequence[SessionObserver],
        troubles: Sequence[TroubleObserver],
        pool: PoolInterface | None,
        endpoints: Mapping[int, IStreamServerEndpoint],
    ) -> None:
        if pool is None:
            for loop in loops(settings.listeners, settings.pools):
                raise SettingsError(f"upstreams: {loop.reason}")
        self._reactor = reactor
        self.settings = settings
        trouble = TroubleLog()
        # First, so that an observer that breaks costs no line of the log.
        self._access_log = access_log_for(reactor, settings.access_log, trouble)
        log: Sequence[SessionObserver] = [self._access_log] if self._access_log else []
        if settings.access_log.path in ("auto", "twisted:"):
            log = [SessionLog()]
        hearing: list[SessionObserver] = [*log, *observers]
        open_files = open_file_limit()
        self._troubles: list[TroubleObserver] = [trouble, *troubles]
        self.admission = Admission(
            reactor, settings.max_sessions or sessions_for(open_files), self._troubles
        )
        self.plane = DataPlane(
            reactor,
            settings.relay,
            self.admission,
            settings.keepalive,
            most_pipes=pipes_for(open_files),
        )
        self._names = Names(reactor)
        # One of a user's own is what the user knows it to be.
        self.pools: dict[str, Pool] = (
            {
                each.name: Pool.from_settings(reactor, each, names=self._names, observer=trouble)
                for each in settings.pools
            }
            if pool is None
            else {"default": cast(Pool, pool)}
        )
        if isinstance(pool, Pool):
            pool.hear_if_nobody_does(trouble)
        self._listeners = [
            (
                listener.listen,
                endpoints.get(place)
                or server_endpoint(
                    self.plane.listening, listener.listen, listener_permissions(listener)
                ),
                self._factory(listener, hearing),
            )
            for place, listener in enumerate(settings.listeners)
        ]
        self._ports: dict[int, IListeningPort] | None = None
        self._bound_once = False
        self._started: set[str] = set()
        self._deadline: IDelayedCall | None = None
        self._drained: Deferred[None] | None = None

    def _factory(
        self,
        listener: ListenerSettings,
        observers: list[SessionObserver],
    ) -> ProxyFactory:
        return ProxyFactory(
            self.pools[listener.pool],
            reactor=self._reactor,
            listener=listener.name or listener.listen,
            timeouts=self.settings.timeouts,
            observers=observers,
            troubles=self._troubles,
            admission=self.admission,
            plane=self.plane,
        )

    @property
    def addresses(self) -> list[IPv4Address | IPv6Address | UNIXAddress]:
        """Where it listens now, as Twisted addresses in the order of the listeners."""
        hosts: list[Any] = [port.getHost() for _, port in sorted((self._ports or {}).items())]
        return hosts

    def privilegedStartService(self) -> None:
        """
        Bind every listener, and open the access log.

        An endpoint that takes its time to listen is waited for by nobody: it serves once it
        does, and an error of it is logged.

        :raises twisted.internet.error.CannotListenError: if one cannot; none is bound then.
        :raises evproxy.errors.CannotOpenLog: if that cannot be opened; none is bound then.
        :raises RuntimeError: if it still drains: what `stopService` returned has to fire first.
        """
        if self._drained is not None and not self._drained.called:
            raise RuntimeError("evproxy still drains, it cannot be started again yet")
        super().privilegedStartService()
        self._drained = None
        if self._ports is not None:
            return
        ports: dict[int, IListeningPort] = {}
        self._ports = ports
        self._bound_once = True
        for place, (description, endpoint, factory) in enumerate(self._listeners):
            failures: list[Failure] = []
            listening: Deferred[Any] = maybeDeferred(endpoint.listen, factory)
            listening.addCallback(self._bound, ports, place)
            if listening.called:
                listening.addErrback(failures.append)
            else:
                listening.addErrback(_log_listen_error, description)
            if failures:
                self._ports = None
                self._close(ports.values())
                _raise_listen_error(description, failures[0])
        if self._access_log is not None:
            try:
                self._access_log.open()
            except CannotOpenLog:
                self._ports = None
                self._close(ports.values())
                raise

    def _bound(self, port: IListeningPort, ports: dict[int, IListeningPort], place: int) -> None:
        if self._ports is ports:
            ports[place] = port
        else:
            # Its endpoint took its time, and the service was stopped, or not started, meanwhile.
            self._close([port])

    def startService(self) -> None:
        """
        Bind what is not bound yet, and start health checks and discovery.

        :raises Exception: as `privilegedStartService` does.
        """
        self.privilegedStartService()
        super().startService()
        for name, pool in self._named_pools():
            if name not in self._started:
                # A pool that cannot be started is to be stopped as well.
                self._started.add(name)
                if isinstance(pool, SharedPool):
                    pool.start(self)
                else:
                    pool.start()

    def stopService(self) -> Deferred[None]:
        """Drain for the drain timeout, or as `drain` was told; fires when no session is left."""
        super().stopService()
        return self.drain(self.settings.timeouts.drain)

    def drain(self, deadline: float | None) -> Deferred[None]:
        """
        Accept nothing new, and let sessions come to their end.

        A pool whose users all drain checks its servers no more until one of them is started
        again: servers that stop at the same time are not called down.

        :param deadline: seconds after which those left are reset; ``None``: never.
        :return: fires when no session is left.  A drain in progress keeps its deadline.
        """
        if self._drained is None:
            self._drained = Deferred()
            self._begin_drain(deadline)
        drained: Deferred[None] = Deferred()
        self._drained.addCallback(lambda _: drained.callback(None))
        return drained

    def _begin_drain(self, deadline: float | None) -> None:
        for name, pool in self._named_pools():
            if isinstance(pool, SharedPool):
                with _log.failuresHandled("Could not drain pool {pool}", pool=name):
                    pool.draining(self)
        ports, self._ports = self._ports or {}, None
        closing = self._close(ports.values())
        if deadline is not None:
            self._deadline = self._reactor.callLater(max(0.0, deadline), self._out_of_time)
        closing.addCallback(lambda _: self.admission.when_empty())
        closing.addCallback(self._gone)

    @staticmethod
    def _close(ports: Iterable[IListeningPort]) -> Deferred[Any]:
        """Fires when each port is closed, or the error of its closing is logged."""
        closing = [maybeDeferred(port.stopListening) for port in ports]
        for each in closing:
            each.addErrback(lambda failure: _log.failure("A listener cannot be closed", failure))
        return DeferredList(closing)

    def reopen_log(self) -> None:
        """Go on with the access log in the file that has its name now, which was moved away."""
        if self._access_log is not None:
            self._access_log.reopen()

    def abort(self) -> None:
        """Reset every session now, `RESET_BATCH` of them in a turn of the reactor."""
        self._reset_next(iter(tuple(self.admission.sessions)))

    def _reset_next(self, sessions: Iterator[Session]) -> None:
        for session in islice(sessions, RESET_BATCH):
            with _log.failuresHandled("Could not end a session"):
                session.end(Side.PROXY, Ending.DRAIN)
        if length_hint(sessions):
            self._reactor.callLater(0, self._reset_next, sessions)

    def _out_of_time(self) -> None:
        self._deadline = None
        self.abort()

    def _gone(self, _: object) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._stop_pools()
        self._names.stop()
        self.admission.stop()
        self.plane.close()
        drained = self._drained
        assert drained is not None
        # Every session has told it its end by now.
        written = succeed(None) if self._access_log is None else self._access_log.close()
        written.addCallback(drained.callback)

    def _named_pools(self) -> Iterable[tuple[str, PoolInterface]]:
        """The pools, one of a user's own included."""
        return self.pools.items()

    def _stop_pools(self) -> None:
        """Stop what this service has started, and nothing that others use."""
        for name, pool in self._named_pools():
            with _log.failuresHandled("Could not stop pool {pool}", pool=name):
                if isinstance(pool, SharedPool):
                    # Sessions of one that was only bound may have left timers in its own pool.
                    if self._bound_once:
                        pool.stop(self)
                elif name in self._started:
                    pool.stop()
        self._started.clear()
        self._bound_once = False
