"""
One worker: runs the service of a proxy as the supervisor says.

When the supervisor is gone, the worker drains and ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.admin.answers import Answer
from evproxy.config.sharing import share_discovered
from evproxy.errors import CannotOpenLog, SettingsError
from evproxy.observe.metrics.families import Numbers
from evproxy.observers import Observer
from evproxy.service.listener import cannot_listen
from evproxy.service.service import ProxyService
from evproxy.settings import Discover, PoolSettings
from evproxy.upstream.names import Names
from evproxy.upstream.pool.parts import discoveries_on
from evproxy.upstream.pool.pool import Pool
from evproxy.workers.admin.local import operate
from evproxy.workers.channel import Channel
from evproxy.workers.discovery import SharedDiscovery
from evproxy.workers.late_changes import LateChanges
from evproxy.workers.log_relay import EventSender
from evproxy.workers.measuring import Measuring
from evproxy.workers.messages import (
    AT_THE_END,
    Abort,
    Alive,
    Apply,
    Checked,
    Discard,
    Drain,
    Drained,
    Measure,
    MeasureProcess,
    Operate,
    Prepare,
    Prepared,
    Prevented,
    ReopenLog,
    Repeat,
    ServerChanged,
    Start,
    Started,
    Walk,
)
from evproxy.workers.returns import Returns
from evproxy.workers.server_observer import ServerObserver
from evproxy.workers.told_checks import Verdicts
from evproxy.workers.walking import Walking
from evproxy.workers.worker_reload import WorkerReload

_log = Logger(namespace="evproxy")


class Worker(Factory):
    """
    The worker of this process; the factory of its end of the channel.

    :param reactor: Twisted's; stopped at the end.
    :param events: sends the log to the supervisor.
    :param settled: called with the service once it serves.
    """

    noisy = False

    def __init__(
        self, reactor: Any, events: EventSender, settled: Callable[[ProxyService], None]
    ) -> None:
        self._reactor = reactor
        self._events = events
        self._settled = settled
        self._channel: Channel | None = None
        self._proxy: ProxyService | None = None
        self._number, self._count = 0, 1
        self._verdicts = Verdicts(self._tell)
        self._measuring = Measuring(reactor, self._tell)
        self._walking = Walking(reactor, self._tell)
        self._late_changes = LateChanges(reactor, self._operate)
        self._returns = Returns(self._tell)
        self._reload: WorkerReload | None = None
        self._ending = False
        self._handlers: dict[type, Callable[[Any, Sequence[int]], Any]] = {
            Start: self._start,
            Prepare: self._prepare,
            Apply: lambda message, _: self._apply(),
            Discard: lambda message, _: self._discard(),
            Measure: lambda message, _: Deferred.fromCoroutine(
                self._measuring.measure(self._service, message.number)
            ),
            MeasureProcess: lambda message, _: self._measuring.process(self._service),
            Walk: lambda message, _: self._walking.walk(message),
            Alive: lambda message, _: (
                self._service.session_count,
                self._service.admission.sessions.last_id,
            ),
            Operate: lambda message, _: self._operate(message),
            Repeat: lambda message, _: self._repeat(message.change),
            Drain: lambda message, _: self._drain(message.deadline),
            Abort: lambda message, _: self._service.abort(),
            ReopenLog: lambda message, _: self._service.reopen_log(),
            Checked: lambda message, _: self._verdicts.received(message),
            Prevented: lambda message, _: self._verdicts.received(message),
        }

    def buildProtocol(self, address: object) -> Channel:
        """Return this process's end of the channel."""
        self._channel = self._events.channel = Channel(self._handle, self._lost, self._events.send)
        # What was logged before goes once the channel is connected.
        self._reactor.callLater(0, self._events.send)
        return self._channel

    @property
    def _service(self) -> ProxyService:
        if self._proxy is None:
            raise SettingsError("the worker has not started yet")
        return self._proxy

    def _tell(self, message: object) -> None:
        if self._channel is not None:
            self._channel.tell(message)

    def _handle(self, message: object, descriptors: Sequence[int]) -> Any:
        return self._handlers[type(message)](message, descriptors)

    def _start(self, start: Start, descriptors: Sequence[int]) -> Started:
        self._number, self._count = start.worker, start.workers
        proxy = ProxyService.from_settings(
            self._reactor, start.settings, make_pool=self._make_pool, make_admin=lambda _: None
        )
        proxy.admission.sessions.number_as(start.worker, start.workers, start.after)
        if proxy.tally is not None:
            proxy.observe(_ServerChanges(self._tell))
            proxy.observe(self._returns)
        self._walking.begin(proxy)
        self._measuring.begin(proxy)
        if proxy.tally is not None and any(pool.discover for pool in start.settings.pools):
            proxy.observe(self._late_changes)
        handed = proxy.plane.listening.handed
        for place, descriptor in zip(start.places, descriptors, strict=True):
            handed.offer_at(place, descriptor)
        if start.settings.watchdog.threshold:
            proxy.watch_loop(start.settings.watchdog.threshold)
        try:
            proxy.startService()
        except CannotListenError as error:
            raise SettingsError(cannot_listen(error)) from None
        except CannotOpenLog as error:
            raise SettingsError(str(error)) from None
        handed.close()
        self._proxy = proxy
        self._settled(proxy)
        return Started(proxy.admission.limit)

    def _make_pool(
        self, reactor: Any, settings: PoolSettings, *, names: Names, observer: Observer
    ) -> Pool:
        make = discoveries_on(reactor, Random(), names)
        mine = partial(share_discovered, worker=self._number, workers=self._count)

        def discovery(discover: Discover) -> SharedDiscovery:
            return SharedDiscovery(make(discover), mine)

        return Pool.from_settings(
            reactor,
            settings,
            names=names,
            observer=observer,
            checks_for=self._verdicts.checks_for,
            discovery_for=discovery,
        )

    # Changes of operators.

    def _operate(self, wanted: Operate) -> Deferred[Answer]:
        answer = operate(self._reactor, self._service, wanted)
        return answer.addCallback(self._returns.made, wanted)

    def _repeat(self, change: Operate) -> Deferred[Answer]:
        pools = self._service.settings.pools
        discovers = {each.name for each in pools if each.discover is not None}
        return self._late_changes.make(change, change.places["pool"] in discovers)

    # Reloads.

    def _prepare(self, prepare: Prepare, descriptors: Sequence[int]) -> Deferred[Prepared]:
        self._reload = WorkerReload(prepare, descriptors)
        return self._reload.begin(self._service)

    def _apply(self) -> Deferred[None]:
        assert self._reload is not None
        return self._reload.apply(self._service.plane.listening.handed.offer_at)

    def _discard(self) -> None:
        if self._reload is not None:
            self._reload.discard()

    # The end.

    def _drain(self, deadline: float | None) -> None:
        self._discard()
        proxy = self._proxy
        drained = succeed(None) if proxy is None else proxy.drain(deadline)
        if not self._ending:
            self._ending = True
            drained.addCallback(self._end)

    def _end(self, _: object) -> None:
        if self._channel is None:
            self._reactor.stop()
        elif self._proxy is None:
            self._say_goodbye(None)
        else:
            measured = Deferred.fromCoroutine(self._measuring.measure(self._proxy, AT_THE_END))
            measured.addErrback(_cannot_measure)
            measured.addCallback(self._say_goodbye)

    def _say_goodbye(self, numbers: Numbers | None) -> None:
        # If the supervisor has gone meanwhile, `_lost` has stopped the reactor.
        if self._channel is not None:
            self._events.send_all()
            self._tell(Drained(numbers))
            self._channel.close()

    def _lost(self) -> None:
        """The supervisor is gone, or this process has said that it ends."""
        self._channel = self._events.channel = None
        proxy = self._proxy
        timeout = 0.0 if proxy is None else proxy.settings.timeouts.drain
        if self._ending and (proxy is None or proxy.has_drained):
            self._reactor.stop()
        else:
            # A drain in progress may have no deadline.
            self._drain(timeout)


class _ServerChanges(ServerObserver):
    """Passes the changes of servers to the supervisor with `tell`; a `PoolObserver`."""

    def __init__(self, tell: Callable[[object], None]) -> None:
        self._tell = tell

    def server_changed(self, pool: str, server: str, state: str, why: str) -> None:
        self._tell(ServerChanged(pool, server, state))


def _cannot_measure(failure: Failure) -> None:
    _log.failure("The last numbers of a worker cannot be had", failure)
