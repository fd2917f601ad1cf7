"""
Reloads of all workers: prepared in every worker, then applied in all of them or in none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredList, TimeoutError
from twisted.internet.error import CannotListenError, ConnectionLost
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.config.changes import Change, Changes, changes, needs_restart
from evproxy.config.document import ConfigErrors
from evproxy.config.sharing import share, sharing_problems
from evproxy.errors import SettingsError
from evproxy.hub import Hub
from evproxy.service.listener import cannot_listen
from evproxy.service.reload_queue import READ_TIMEOUT, ReloadQueue
from evproxy.settings import Settings
from evproxy.workers.messages import Apply, Discard, Prepare
from evproxy.workers.process import WorkerProcess
from evproxy.workers.reserved import ReservedSockets, SocketPlan
from evproxy.workers.slot import Slot

PREPARE_TIMEOUT = READ_TIMEOUT + 10.0
"""Seconds in which all workers must have prepared a reload; then it is refused."""

APPLY_TIMEOUT = 10.0
"""Seconds in which a worker must have applied a reload; then it is killed, and replaced."""

_log = Logger(namespace="evproxy")


class Supervised(Protocol):
    """What a reload needs of the supervisor.  `stops`: whether it is too late for a reload."""

    settings: Settings
    hub: Hub
    reserved: ReservedSockets

    @property
    def slots(self) -> Sequence[Slot]: ...

    @property
    def stops(self) -> bool: ...

    def reloads(self, before: Settings, after: Settings) -> None:
        """The workers use the settings `after` from now on."""


class SharedReloads:
    """
    The reloads of a supervisor, one at a time.

    :param reactor: the timers and the threads.
    :param supervised: the supervisor.
    """

    def __init__(self, reactor: Any, supervised: Supervised) -> None:
        self._reactor = reactor
        self._supervised = supervised
        self._queue = ReloadQueue(reactor, supervised.hub)

    def request(self, read: Callable[[], Settings]) -> Deferred[Changes]:
        """
        Reload with the settings that `read` returns, which is called in a thread.

        A request with the same `read` as one that waits shares its outcome.

        :return: what has changed.  Fails with a `SettingsError` if the settings are refused.
        """
        return self._queue.request(read, partial(self._reload, read))

    async def _reload(self, read: Callable[[], Settings]) -> Changes:
        try:
            return await self._attempt(read)
        finally:
            for slot in self._supervised.slots:
                slot.hold(False)

    async def _attempt(self, read: Callable[[], Settings]) -> Changes:
        supervised = self._supervised
        self._refuse_at_the_end()
        settings = await self._queue.in_thread(read)
        before, count = supervised.settings, len(supervised.slots)
        problems = [
            *needs_restart(before, settings),
            *map(str, sharing_problems(settings, count)),
        ]
        if problems:
            raise ConfigErrors(problems)
        # Not before: a worker that dies meanwhile is replaced.
        await self._settled()
        for slot in supervised.slots:
            slot.hold(True)
        # Those that have begun meanwhile.
        await self._settled()
        self._refuse_at_the_end()
        try:
            plan = supervised.reserved.plan(settings.listeners)
        except CannotListenError as error:
            raise ConfigErrors([f"listeners: {cannot_listen(error)}"]) from None
        processes = [slot.serving for slot in supervised.slots if slot.serving is not None]
        try:
            if not processes:
                raise SettingsError("no worker runs that could check the settings")
            prepared = await self._prepare(processes, settings, plan)
            self._refuse_at_the_end()
        except BaseException:
            for process in processes:
                process.channel.ask(Discard()).addErrback(lambda _: None)
            plan.discard()
            raise
        # Nothing goes back from here on.  If evproxy stops while the workers apply this, it closes
        # the new sockets, too.
        supervised.settings = settings
        supervised.reloads(before, settings)
        supervised.reserved.apply(plan)
        await self._apply(processes)
        return _all_changes(changes(before, settings), prepared)

    def _refuse_at_the_end(self) -> None:
        if self._supervised.stops:
            raise SettingsError("evproxy stops, it cannot be reloaded any more")

    async def _settled(self) -> None:
        """Wait until every process either serves or has failed."""
        await DeferredList(
            [
                slot.process.when_settled()
                for slot in self._supervised.slots
                if slot.process is not None
            ]
        )

    async def _prepare(
        self, processes: list[WorkerProcess], settings: Settings, plan: SocketPlan
    ) -> list[Changes]:
        """Return what each worker would change; a worker that dies meanwhile does not count."""
        count = len(self._supervised.slots)
        new = [each for each in plan.new if each.place is not None and each.sockets]
        places = tuple(each.place for each in new if each.place is not None)
        asked = [
            process.channel.ask(
                Prepare(share(settings, process.number, count), places),
                [each.of_worker(process.number) for each in new],
            )
            for process in processes
        ]
        answers: Deferred[Any] = DeferredList(asked, consumeErrors=True)
        try:
            outcomes = await answers.addTimeout(PREPARE_TIMEOUT, self._reactor)
        except TimeoutError:
            raise SettingsError(
                f"the workers could not prepare it within {PREPARE_TIMEOUT:g} s"
            ) from None
        made: list[Changes] = []
        for succeeded, outcome in outcomes:
            if succeeded:
                made.append(outcome.changes)
            elif outcome.check(SettingsError):
                outcome.raiseException()
            elif not outcome.check(ConnectionLost):
                raise SettingsError(outcome.getErrorMessage())
        if not made:
            raise SettingsError("every worker died while it prepared the reload")
        return made

    async def _apply(self, processes: list[WorkerProcess]) -> None:
        asked = []
        for process in processes:
            applied = process.channel.ask(Apply()).addTimeout(APPLY_TIMEOUT, self._reactor)
            applied.addErrback(_replace, process)
            asked.append(applied)
        await DeferredList(asked)


def _replace(failure: Failure, process: WorkerProcess) -> None:
    """The worker has not applied what all others have: another one begins with it."""
    if not failure.check(ConnectionLost):
        _log.error(
            "worker {number} has not applied the reload and is replaced: {why}",
            number=process.number + 1,
            why=failure.getErrorMessage(),
        )
        process.kill("killed, since it has not applied a reload")


def _all_changes(whole: Changes, prepared: list[Changes]) -> Changes:
    """The changes of the whole settings, and of the files that workers have read."""
    paths = {change.path for change in whole.lines}
    files: dict[tuple[str, ...], Change] = {}
    for change in (each for made in prepared for each in made.lines):
        if change.path not in paths:
            files.setdefault(change.path, change)
    return Changes((*whole.lines, *files.values()))
