"""
The reloads of a service: new settings are refused as a whole, or applied as a whole.

A thread reads and makes all that the new settings need and that may block.  Then, within one turn
of the reactor, the new listeners are bound, and only if all of them can listen, everything is
applied.  What does not change is not touched.  A listener whose address stays keeps its socket.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from evproxy.config.changes import Changes
from evproxy.errors import SettingsError
from evproxy.service.composition import Composition
from evproxy.service.reload_apply import Application
from evproxy.service.reload_plan import Plan, plan_of
from evproxy.service.reload_queue import ReloadQueue
from evproxy.service.used_pools import UsedPools
from evproxy.settings import Settings

ReadSettings = Callable[[], Settings]
Agreed = Callable[[Changes], Deferred[None]]
"""Asks whether prepared changes may be applied; fails with a `SettingsError` if not."""


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
        self._queue = ReloadQueue(composition.reactor, composition.hub)
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
        return self._queue.request((read, agreed), partial(self._reload, read, agreed))

    def when_closed(self) -> Deferred[None]:
        """Return a Deferred that fires when all is closed that reloads have replaced."""
        closed: Deferred[None] = Deferred()
        if self._closing:
            self._closed.append(closed)
        else:
            closed.callback(None)
        return closed

    async def _reload(self, read: ReadSettings, agreed: Agreed | None) -> Changes:
        if self._stops():
            raise SettingsError("evproxy stops, it cannot be reloaded any more")
        composition = self._composition
        work = partial(_planned, composition, read, self._is_listening())
        plan = await self._queue.in_thread(work)
        if agreed is not None:
            try:
                await agreed(plan.changes)
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
    return plan_of(composition, read(), listening)
