"""
Reloads that wait for each other: one at a time, and each with a beginning and an end.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredLock, TimeoutError

from evproxy.config.changes import Changes
from evproxy.config.document import ConfigErrors
from evproxy.engine.threads import NoThread, Threads
from evproxy.errors import EvproxyError, SettingsError
from evproxy.hub import Hub

MOST_WAITING = 16
"""The most reloads that wait for the one in progress; a further one is refused."""

READ_TIMEOUT = 60.0
"""Seconds for reading all files of a reload; then the reload is refused."""

T = TypeVar("T")

Reload = Callable[[], Coroutine[Any, Any, Changes]]
"""Reloads, and returns what has changed; fails with a `SettingsError` if that is refused."""


class ReloadQueue:
    """
    The reloads of one process.

    :param reactor: the timers and the threads.
    :param hub: calls the observers when a reload begins, and when it ends, however it ends.
    """

    def __init__(self, reactor: Any, hub: Hub) -> None:
        self._reactor = reactor
        self._hub = hub
        self._threads = Threads(reactor, "evproxy reload", 1)
        self._lock = DeferredLock()
        self._waiting: dict[Hashable, list[Deferred[Changes]]] = {}

    def request(self, key: Hashable, reload: Reload) -> Deferred[Changes]:
        """
        Call `reload` once the reloads before have ended.

        :param key: a request with the same key as one that waits shares its outcome.
        :return: what has changed.  Fails with a `SettingsError` if the reload is refused.
        """
        result: Deferred[Changes] = Deferred()
        if key in self._waiting:
            self._waiting[key].append(result)
        elif len(self._waiting) >= MOST_WAITING:
            result.errback(SettingsError(f"{MOST_WAITING} reloads wait already"))
        else:
            self._waiting[key] = results = [result]

            def begin() -> Deferred[Changes]:
                del self._waiting[key]
                return Deferred.fromCoroutine(self._reload(reload))

            def done(outcome: Any) -> None:
                for each in results:
                    each.callback(outcome)

            self._lock.run(begin).addBoth(done)
        return result

    async def in_thread(self, work: Callable[[], T]) -> T:
        """
        Return what `work` returns, which a thread calls, since it may block.

        :raises SettingsError: if it takes more than `READ_TIMEOUT` seconds, or there is no thread.
        """
        called = self._threads.call(work).result
        try:
            return await called.addTimeout(READ_TIMEOUT, self._reactor)
        except TimeoutError:
            raise SettingsError(f"the files could not be read within {READ_TIMEOUT:g} s") from None
        except NoThread as error:
            raise SettingsError(str(error)) from None

    async def _reload(self, reload: Reload) -> Changes:
        self._hub.reload_began()
        try:
            changes = await reload()
        except Exception as error:
            refusal = _refusal(error)
            problems = refusal.problems if isinstance(refusal, ConfigErrors) else (str(refusal),)
            self._hub.reload_refused(problems)
            if refusal is error:
                raise
            raise refusal from error
        self._hub.reloaded(changes)
        return changes


def _refusal(error: Exception) -> SettingsError:
    """What to tell users of `error`; a user's own functions may raise anything."""
    if isinstance(error, SettingsError):
        return error
    if isinstance(error, EvproxyError):
        return SettingsError(str(error))
    return SettingsError(f"{type(error).__name__}: {error}")
