"""
Proxies whose reactor runs in a thread of its own, for tests that do not run in a reactor.

The reactor is a separate object, and ``twisted.internet.reactor`` stays as it is.  So the
thread runs beside asyncio, another reactor, or nothing.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python import threadable
from twisted.python.failure import Failure

from evproxy.config.declare import check_value
from evproxy.config.rules import Seconds
from evproxy.testing.controls import Controlled, Controls
from evproxy.testing.proxy import TIMEOUT, FaultyProxy
from evproxy.testing.seen import SeenSession

JOIN_TIMEOUT = 10.0
"""Seconds until a call into the thread, or the end of the thread, counts as failed."""

T = TypeVar("T")


def _new_reactor() -> Any:
    if hasattr(select, "epoll"):
        from twisted.internet.epollreactor import EPollReactor

        return EPollReactor()
    from twisted.internet.selectreactor import SelectReactor

    return SelectReactor()


def _free(reactor: Any) -> None:
    """Close the descriptors that a reactor keeps, as it mostly ends with its process."""
    reactor.waker.connectionLost(None)
    poller = getattr(reactor, "_poller", None)
    if poller is not None:
        poller.close()


class ReactorThread:
    """A reactor of its own in a daemon thread; begins at once."""

    def __init__(self) -> None:
        registered: Any = threadable.ioThread
        self._stopped = False
        self.reactor = _new_reactor()
        self._thread = threading.Thread(target=self._run, name="evproxy testing", daemon=True)
        started = threading.Event()
        self.reactor.callWhenRunning(started.set)
        self._thread.start()
        if not started.wait(JOIN_TIMEOUT):
            raise RuntimeError("the reactor of evproxy.testing does not start")
        if registered is not None:
            # Each reactor that starts registers its thread as that of the process's own reactor.
            threadable.ioThread = registered

    def _run(self) -> None:
        self.reactor.run(installSignalHandlers=False)

    def submit(self, function: Callable[[], Any]) -> concurrent.futures.Future[Any]:
        """
        Call `function` in the thread.

        :return: its result, or that of the Deferred that it returns.
        :raises RuntimeError: if `stop` was called.
        """
        if self._stopped:
            raise RuntimeError("this ReactorThread has stopped: stop its proxies before it")
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def succeeded(result: Any) -> None:
            # Who waited may have gone.
            with suppress(concurrent.futures.InvalidStateError):
                future.set_result(result)

        def failed(failure: Failure) -> None:
            if failure.value is not None:
                with suppress(concurrent.futures.InvalidStateError):
                    future.set_exception(failure.value)

        def call() -> None:
            if future.cancelled():
                return
            deferred: Deferred[Any] = maybeDeferred(function)
            deferred.addCallbacks(succeeded, failed)
            future.add_done_callback(
                lambda _: (
                    future.cancelled()
                    and not self._stopped
                    and self.reactor.callFromThread(deferred.cancel)
                )
            )

        self.reactor.callFromThread(call)
        return future

    def call(self, function: Callable[[], T], timeout: float = JOIN_TIMEOUT) -> T:
        """Do the same, and wait for the result; in the thread itself, call it at once."""
        if threading.current_thread() is self._thread:
            return function()
        result: T = self.submit(function).result(timeout)
        return result

    def stop(self) -> None:
        """Stop the reactor, and wait for the end of the thread."""
        if self._stopped:
            return
        self._stopped = True
        self.reactor.callFromThread(self.reactor.stop)
        self._thread.join(JOIN_TIMEOUT)
        if not self._thread.is_alive():
            _free(self.reactor)


class ThreadedProxy(Controls):
    """
    A `FaultyProxy` in a `ReactorThread`: its methods may be called in any other thread.

    :param thread: where it runs.
    :param upstream, host, port, seed: see `FaultyProxy`.
    """

    def __init__(
        self,
        thread: ReactorThread,
        upstream: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        seed: int | None = None,
    ) -> None:
        self._thread = thread
        self._proxy = thread.call(
            lambda: FaultyProxy(thread.reactor, upstream, host=host, port=port, seed=seed)
        )
        self.host, self.port, self.address = host, self._proxy.port, self._proxy.address
        self.upstream = upstream

    @property
    def sessions(self) -> list[SeenSession]:
        """The sessions that have got the server, the oldest first; the last 1000."""
        return self._thread.call(lambda: self._proxy.sessions)

    @property
    def seed(self) -> int:
        """The seed of the faults."""
        return self._proxy.faults.seed

    def wait_for(self, condition: Callable[[], object], timeout: float = TIMEOUT) -> None:
        """
        Wait until `condition` returns something true; blocks.

        `condition` is called in the thread of the proxy: now, and whenever bytes pass, or a session
        begins or ends.

        :param timeout: seconds.
        :raises TimeoutError: after that.
        """
        self._wait(lambda: self._proxy.until(condition, timeout), timeout)

    def wait_for_sessions(self, count: int, timeout: float = TIMEOUT) -> list[SeenSession]:
        """Wait until there were `count` sessions, and return those that are kept; blocks."""
        self._wait(lambda: self._proxy.until_sessions(count, timeout), timeout)
        return self.sessions

    def _wait(self, function: Callable[[], Deferred[Any]], timeout: float) -> None:
        check_value(Seconds(0), timeout, ("timeout",))
        self._thread.call(function, timeout + JOIN_TIMEOUT)

    async def until(self, condition: Callable[[], object], timeout: float = TIMEOUT) -> None:
        """Do what `wait_for` does, in a coroutine of asyncio."""
        await asyncio.wrap_future(
            self._thread.submit(lambda: self._proxy.until(condition, timeout))
        )

    async def until_sessions(self, count: int, timeout: float = TIMEOUT) -> list[SeenSession]:
        """Do what `wait_for_sessions` does, in a coroutine of asyncio."""
        await asyncio.wrap_future(
            self._thread.submit(lambda: self._proxy.until_sessions(count, timeout))
        )
        return self.sessions

    def stop(self) -> None:
        """Reset all sessions and stop; blocks until nothing is left."""
        self._thread.call(self._proxy.stop)

    def _do(self, action: Callable[[Controlled], T]) -> T:
        return self._thread.call(lambda: action(self._proxy))
