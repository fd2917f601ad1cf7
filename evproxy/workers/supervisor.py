"""
The supervisor: keeps the listening sockets, and the workers that accept on them.

It carries no session itself.  What concerns all workers happens once, here: health checks, reading
the configuration file, signals, the log, and the sums of what the workers count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.logger import LogEvent

from evproxy.config.changes import Changes
from evproxy.config.document import ConfigErrors
from evproxy.config.sharing import share, sharing_problems
from evproxy.errors import SettingsError
from evproxy.hub import Hub
from evproxy.observe.access_log import access_log_for
from evproxy.observe.log import TroubleLog
from evproxy.observe.watchdog.status import LoopStatus
from evproxy.observe.watchdog.watchdog import Watchdog
from evproxy.observers import Observer
from evproxy.service.listening_sockets import JoinedSockets, ListeningSockets, ServiceSockets
from evproxy.service.service import ProxyService
from evproxy.session.live import check_deadline
from evproxy.settings import Settings
from evproxy.workers.admin.steering import Steering
from evproxy.workers.end import End
from evproxy.workers.log_relay import EventLog
from evproxy.workers.messages import (
    Abort,
    Check,
    Drain,
    Drained,
    Event,
    Measured,
    ReopenLog,
    Returned,
    ServerChanged,
    Start,
    Started,
    Uncheck,
    Walked,
)
from evproxy.workers.polling import Polling
from evproxy.workers.process import Command, WorkerProcess
from evproxy.workers.reload import SharedReloads
from evproxy.workers.reserved import ReservedSockets
from evproxy.workers.shared_checks import SharedChecks
from evproxy.workers.slot import Slot

if TYPE_CHECKING:
    from evproxy.admin.interface import AdminPort


class Supervisor(Service):
    """
    Runs the proxy that `settings` describe, in `workers` processes.

    Has the methods of `evproxy.ProxyService` that signal handlers and the entry point need.

    :param reactor: Twisted's.
    :param settings: of the whole proxy; the workers share its limits.
    :param workers: how many there are.
    :param command: starts one.
    :param publish: logs an event of a worker, for example `twisted.logger.globalLogPublisher`.
    :raises SettingsError: if a setting is wrong.

    `settings_from` and `patient` may be set, see `ProxyService`.
    """

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        workers: int,
        command: Command,
        publish: Callable[[LogEvent], None],
    ) -> None:
        problems = list(map(str, sharing_problems(settings, workers)))
        if problems:
            raise ConfigErrors(problems)
        check(reactor, settings)
        self.settings = settings
        self.settings_from: Callable[[], Settings] | None = None
        self.hub = Hub((TroubleLog(),))
        self.reserved = ReservedSockets(reactor, workers)
        handed = self.reserved.handed
        self.sockets: ListeningSockets = JoinedSockets(
            self.reserved, ServiceSockets(handed, lambda: (), lambda: self.admin)
        )
        self.watchdog: Watchdog | None = None
        self.patient = False
        self._reactor = reactor
        self._command = command
        self._checks = SharedChecks(reactor)
        self._events = EventLog(publish, reactor.seconds)
        self.slots = tuple(
            Slot(reactor, number, workers, self._spawn, self._died) for number in range(workers)
        )
        self._reloads = SharedReloads(reactor, self)
        self._steering = Steering(reactor, self, handed, self._checks.counts)
        self._polling = Polling(reactor, self.slots, self._steering.poll)
        self._bound = False
        self._end = End(reactor, self.slots, self._gone)
        self._listening: list[Deferred[int]] = []
        self._most_sessions = 0

    @property
    def admin(self) -> AdminPort | None:
        """The admin interface, if there is one."""
        return self._steering.admin

    @property
    def addresses(self) -> list[Any]:
        """The Twisted addresses on which the workers listen."""
        return self.reserved.addresses()

    @property
    def stops(self) -> bool:
        """Whether the workers drain, or have drained."""
        return self._end.begun

    @property
    def has_drained(self) -> bool:
        """Whether no worker is left."""
        return self._end.over

    def privilegedStartService(self) -> None:
        """
        Bind every listener, and that of the admin interface.

        :raises twisted.internet.error.CannotListenError: if a listener cannot listen.
        :raises evproxy.admin.errors.AdminCannotListen: if the admin interface cannot listen.
        :raises SettingsError: if a listener cannot be shared.
        """
        super().privilegedStartService()
        if not self._bound:
            if self.admin is not None:
                self.admin.bind()
            try:
                self.reserved.apply(self.reserved.plan(self.settings.listeners))
            except BaseException:
                if self.admin is not None:
                    self.admin.close()
                raise
            self._bound = True

    def startService(self) -> None:
        """
        Start the workers, as soon as the reactor runs.

        :raises Exception: as `privilegedStartService` does.
        :raises evproxy.errors.CannotOpenLog: if the access log cannot be opened.
        """
        self.privilegedStartService()
        super().startService()
        log = access_log_for(self._reactor, self.settings.access_log, self.hub)
        if log is not None:
            log.prepare()
            log.abandon()
        if self.watchdog is not None:
            self.watchdog.startService()
        self._reactor.callWhenRunning(self._start)

    def _start(self) -> None:
        if self.stops:
            return
        for slot in self.slots:
            slot.start()
        self._polling.start()

    def when_listening(self) -> Deferred[int]:
        """Return a Deferred that fires, with the bound on sessions, once every worker serves."""
        listening: Deferred[int] = Deferred()
        if self._most_sessions:
            listening.callback(self._most_sessions)
        else:
            self._listening.append(listening)
        return listening

    def reload(self, settings: Settings | None = None) -> Deferred[Changes]:
        """
        Use other settings: all workers use all of them, or nothing changes.

        :param settings: as for `evproxy.ProxyService.reload`.
        :return: what has changed, once it has.  Fails with a `SettingsError` if nothing changes.
        """
        if settings is not None:
            return self._reloads.request(lambda: settings)
        if self.settings_from is None:
            return fail(SettingsError("there is no configuration file to read again"))
        return self._reloads.request(self.settings_from)

    def reloads(self, before: Settings, after: Settings) -> None:
        """See `evproxy.workers.reload.Supervised`."""
        self._steering.made.reloaded(before, after)

    # The end.

    @property
    def stop_deadline(self) -> float | None:
        """See `evproxy.ProxyService.stop_deadline`."""
        return None if self.patient else self.settings.timeouts.drain

    def stopService(self) -> Deferred[None]:
        """
        Drain with the drain timeout, or without a deadline if the service is `patient`.

        The admin interface goes on until no worker is left.
        """
        super().stopService()
        drained = self.drain(self.stop_deadline)
        return drained.addCallback(lambda _: None if self.admin is None else self.admin.close())

    def drain(self, deadline: float | None) -> Deferred[None]:
        """
        Accept nothing new, and let the running sessions finish.

        :param deadline: see `ProxyService.drain`.
        :return: fires when no worker is left.
        """
        check_deadline(deadline)
        if not self.stops:
            ended = [*(slot.end() for slot in self.slots), self.reserved.close()]
            self._tell_all(Drain(deadline))
            self._end.begin(deadline, DeferredList(ended))
        elif self._end.sooner(deadline):
            self._tell_all(Drain(deadline))
        return self._end.when_over()

    def abort(self) -> None:
        """Reset every session now."""
        self._tell_all(Abort())
        self._end.hurry()

    def _gone(self) -> None:
        self._polling.stop()
        if self.watchdog is not None:
            self.watchdog.stopService()
        self._checks.stop()

    # What operators do and see.

    @property
    def session_count(self) -> int:
        """How many sessions the workers had at the last look."""
        processes = (slot.process for slot in self.slots)
        return sum(process.sessions for process in processes if process is not None)

    def observe(self, observer: Observer) -> None:
        """Notify `observer`, too, of reloads."""
        self.hub.add(observer)

    def reopen_log(self) -> None:
        """Have the workers open the path of the access log again."""
        self._tell_all(ReopenLog())

    def watch_loop(self, threshold: float) -> None:
        """
        Let a watchdog watch the loop of the supervisor; call this before the service starts.

        :param threshold: see `evproxy.ProxyService.watch_loop`.
        :raises SettingsError: if `threshold` is too small.
        """
        self.watchdog = Watchdog(self._reactor, threshold, self.hub)

    def loop_status(self) -> LoopStatus | None:
        """What the watchdog knows of the loop of the supervisor; ``None``: there is none."""
        return None if self.watchdog is None else self.watchdog.status()

    # The workers.

    def _tell_all(self, message: object) -> None:
        for slot in self.slots:
            if slot.process is not None:
                slot.process.channel.tell(message)

    def _spawn(self, number: int, ended: Callable[[WorkerProcess, str], None]) -> WorkerProcess:
        process = WorkerProcess(
            self._reactor,
            self._command,
            number,
            self.reserved.inherited(),
            partial(self._received, number),
            ended,
        )
        reserved = self.reserved.all()
        count = len(self.slots)
        start = Start(
            number,
            count,
            share(self.settings, number, count),
            tuple(each.place for each in reserved if each.place is not None),
            self.slots[number].after,
        )
        process.start(start, [each.of_worker(number) for each in reserved])
        process.started.addCallback(self._serves)
        # They follow `Start` on the channel: the worker makes them before it accepts a client.
        self._steering.repeat(process)
        return process

    def _serves(self, serves: Started) -> Started:
        serving = [slot.serving for slot in self.slots]
        if not self._most_sessions and None not in serving:
            self._most_sessions = sum(
                process.serves.most_sessions
                for process in serving
                if process is not None and process.serves is not None
            )
            waiting, self._listening = self._listening, []
            for listening in waiting:
                listening.callback(self._most_sessions)
        return serves

    def _died(self, number: int) -> None:
        self._checks.forget(number)
        self._steering.died(number)

    def _received(self, number: int, message: object, descriptors: Sequence[int]) -> None:
        if isinstance(message, Event):
            self._events.received(number + 1, message.json)
        elif isinstance(message, Check):
            process = self.slots[number].process
            if process is not None:
                self._checks.add(number, message, process.channel.tell)
        elif isinstance(message, Uncheck):
            self._checks.remove(number, message.check)
        elif isinstance(message, Measured | Walked | Drained | ServerChanged | Returned):
            self._steering.received(number, message)


def check(reactor: Any, settings: Settings) -> None:
    """
    Check `settings` as a worker will read them.

    :raises SettingsError: if a setting is wrong, or a file cannot be used.
    """
    service = ProxyService.from_settings(reactor, settings)
    # It has not started: this only closes what it has opened.
    service.drain(None)
