"""
The reloads of a service: new settings are refused as a whole, or applied as a whole.

A thread reads and makes all that the new settings need and that may block.  Then, within one turn
of the reactor, the new listeners are bound, and only if all of them can listen, everything is
applied.  What does not change is not touched.  A listener whose address stays keeps its socket.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, DeferredList, TimeoutError
from twisted.logger import Logger

from evproxy.config.changes import Changes
from evproxy.config.document import ConfigErrors
from evproxy.engine.threads import NoThread, Threads
from evproxy.errors import EvproxyError, SettingsError
from evproxy.service.composition import Composition
from evproxy.service.reload_apply import Application
from evproxy.service.reload_plan import Plan, plan_of
from evproxy.service.used_pools import UsedPools
from evproxy.settings import Settings

MOST_WAITING = 16
"""The most reloads that wait for the one in progress; a further one is refused."""

READ_TIMEOUT = 60.0
"""Seconds for reading all files of a reload; then the reload is refused."""

ReadSettings = Callable[[], Settings]
Agreed = Callable[[Changes], Deferred[None]]
"""Asks whether prepared changes may be applied; fails with a `SettingsError` if not."""

_log = Logger()


@define(eq=False)
class _Waiting:
    read: ReadSettings
    agreed: Agreed | None
    results: list[Deferred[Changes]]


class Reloads:
    """
    The reloads of one service, one at a time.

    :param composition: what the service is made of.
    :param pools: its pools.
    :param is_listening: whether the listeners are bound now.
    :param is_running: whether the service is started.
    :param stops: whether the service drains, so that it is too late for a reload.
    """

    def __init__(
        self,
        composition: Composition,
        pools: UsedPools,
        is_listening: Callable[[], bool],
        is_running: Callable[[], bool],
        stops: Callable[[], bool],
    ) -> None:
        self._composition = composition
        self._pools = pools
        self._is_listening = is_listening
        self._is_running = is_running
        self._stops = stops
        self._threads = Threads(composition.reactor, "evproxy reload", 1)
        self._waiting: deque[_Waiting] = deque()
        self._busy = False
        self._closing = False
        self._closed: list[Deferred[None]] = []

    def request(self, read: ReadSettings, agreed: Agreed | None = None) -> Deferred[Changes]:
        """
        Reload with the settings that `read` returns, which is called in a thread.

        A request with the same `read` as one that waits shares its outcome.

        :param agreed: is asked before anything is applied.
        :return: what has changed.  Fails with a `SettingsError` if the settings are refused;
            `ConfigErrors` has all problems.
        """
        result: Deferred[Changes] = Deferred()
        for waiting in self._waiting:
            if (waiting.read, waiting.agreed) == (read, agreed):
                waiting.results.append(result)
                return result
        if len(self._waiting) >= MOST_WAITING:
            result.errback(SettingsError(f"{MOST_WAITING} reloads wait already"))
            return result
        self._waiting.append(_Waiting(read, agreed, [result]))
        self._next()
        return result

    def when_closed(self) -> Deferred[None]:
        """Return a Deferred that fires when all is closed that reloads have replaced."""
        closed: Deferred[None] = Deferred()
        if self._closing:
            self._closed.append(closed)
        else:
            closed.callback(None)
        return closed

    def _next(self) -> None:
        if self._busy or not self._waiting:
            return
        self._busy = True
        waiting = self._waiting.popleft()
        Deferred.fromCoroutine(self._reload(waiting)).addBoth(self._done, waiting)

    def _done(self, outcome: Any, waiting: _Waiting) -> None:
        self._busy = False
        for result in waiting.results:
            result.callback(outcome)
        self._next()

    async def _reload(self, waiting: _Waiting) -> Changes:
        hub = self._composition.hub
        hub.reload_began()
        try:
            changes = await self._attempt(waiting)
        except SettingsError as error:
            problems = error.problems if isinstance(error, ConfigErrors) else (str(error),)
            hub.reload_refused(problems)
            raise
        hub.reloaded(changes)
        return changes

    async def _attempt(self, waiting: _Waiting) -> Changes:
        if self._stops():
            raise SettingsError("evproxy stops, it cannot be reloaded any more")
        composition = self._composition
        work = partial(_planned, composition, waiting.read, self._is_listening())
        planned = self._threads.call(work).result
        try:
            plan = await planned.addTimeout(READ_TIMEOUT, composition.reactor)
        except TimeoutError:
            raise SettingsError(f"the files could not be read within {READ_TIMEOUT:g} s") from None
        except NoThread as error:
            raise SettingsError(str(error)) from None
        if waiting.agreed is not None:
            try:
                await waiting.agreed(plan.changes)
            except BaseException:
                plan.discard()
                raise
        if self._stops() or plan.opens_log != self._is_listening():
            plan.discard()
            raise SettingsError("evproxy stops or starts, it cannot be reloaded now")
        application = Application(composition, self._pools, plan)
        changes = application.apply(self._is_listening(), self._is_running())
        await self._close(application.closing)
        return changes

    async def _close(self, closing: list[Deferred[Any]]) -> None:
        self._closing = True
        await DeferredList(closing)
        self._closing = False
        closed, self._closed = self._closed, []
        for deferred in closed:
            deferred.callback(None)


def _planned(composition: Composition, read: ReadSettings, listening: bool) -> Plan:
    """Read the settings, and make what they need.  Runs in a thread."""
    try:
        settings = read()
    except EvproxyError:
        raise
    except Exception as error:
        # `read` may be a user's own function.
        raise SettingsError(f"{type(error).__name__}: {error}") from error
    return plan_of(composition, settings, listening)
