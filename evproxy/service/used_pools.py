"""
The pools of a service, and which of them the service has started.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.logger import Logger

from evproxy.interfaces import Pool, SharedPool

_log = Logger()


class UsedPools:
    """
    The pools of one service by name.

    :param by_name: the pools; this object adds and removes some.
    :param user: who starts and stops them, where several may: the service.
    """

    def __init__(self, by_name: dict[str, Pool], user: object) -> None:
        self.by_name = by_name
        self._user = user
        self._started: list[Pool] = []
        self._running = False

    def start(self) -> None:
        """Start the pools that are not started yet."""
        self._running = True
        for pool in self.by_name.values():
            if not self._is_started(pool):
                # Added first: a pool that fails to start must be stopped as well.
                self._started.append(pool)
                if isinstance(pool, SharedPool):
                    pool.start(self._user)
                else:
                    pool.start()

    def drain(self) -> None:
        """The service begins no more sessions."""
        for name, pool in self.by_name.items():
            self._drain(name, pool)

    def stop(self, bound: bool) -> None:
        """
        Stop the pools, but none that was not started.

        :param bound: whether sessions may have begun: they may have left timers in a pool.
        """
        self._running = False
        for name, pool in self.by_name.items():
            self._stop(name, pool, bound)
        self._started.clear()

    def add(self, pool: Pool) -> None:
        """Have `pool` from now on; `start` starts it."""
        self.by_name[pool.name] = pool

    def discard(self, pool: Pool) -> None:
        """Forget `pool`, which was added and not started."""
        del self.by_name[pool.name]

    def start_added(self) -> None:
        """Start what was added since `start`, if the service runs."""
        if self._running:
            self.start()

    def retire(self, name: str) -> Callable[[], None]:
        """
        Have the pool called `name` no more: it gets no new sessions.

        :return: stops the pool; to be called when no session waits for it any more.
        """
        pool = self.by_name.pop(name)
        self._drain(name, pool)
        return partial(self._stop, name, pool, True)

    def _is_started(self, pool: Pool) -> bool:
        return any(pool is each for each in self._started)

    def _drain(self, name: str, pool: Pool) -> None:
        if isinstance(pool, SharedPool):
            with _log.failuresHandled("Could not drain pool {pool}", pool=name):
                pool.draining(self._user)

    def _stop(self, name: str, pool: Pool, bound: bool) -> None:
        with _log.failuresHandled("Could not stop pool {pool}", pool=name):
            if isinstance(pool, SharedPool):
                if bound:
                    pool.stop(self._user)
            elif self._is_started(pool):
                pool.stop()
        self._started = [each for each in self._started if each is not pool]
