"""
The signal handlers of a proxy: the first one to stop drains, the second one resets every session.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from evproxy.config.changes import Changes
from evproxy.errors import SettingsError
from evproxy.settings import Settings

_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class Signalled(Protocol):
    """What the handlers need of the service: `ProxyService` has it."""

    settings_from: Callable[[], Settings] | None
    patient: bool

    def reload(self) -> Deferred[Changes]: ...

    def abort(self) -> None: ...

    def reopen_log(self) -> None: ...


class Signals:
    """
    The signal handlers of a process whose main service is a `ProxyService`.

    ``twistd evproxy`` installs the handlers.  In your own ``.tac`` file, add one line:
    ``Signals(reactor, proxy).install()``.  Without these handlers, a second Ctrl-C does not end a
    drain: Twisted's own handlers only stop the reactor, which is stopping already.

    SIGTERM and SIGINT drain with the drain timeout, SIGQUIT without one (as in nginx); a second one
    of any of them resets every session.  SIGHUP reloads the settings, see `ProxyService.reload`;
    SIGUSR1 reopens the access log.  A signal that is ignored when this object is made (`nohup`, the
    background jobs of a shell) stays ignored.

    :param reactor: Twisted's; the first signal stops it.
    :param proxy: the service that drains.
    """

    def __init__(self, reactor: Any, proxy: Signalled) -> None:
        self._reactor = reactor
        self._proxy = proxy
        self._stopping = False
        self._handlers = {
            number: signal.SIG_IGN if signal.getsignal(number) == signal.SIG_IGN else self._handle
            for number in _HANDLED
        }
        self._before: Any = None
        self._mask: set[Any] = set()

    def install(self) -> None:
        """
        Install the handlers.

        A signal that comes before the reactor runs stops the reactor as soon as it runs.  When
        the reactor starts, it installs its own handlers, and a signal would then kill the
        process.  So the signals stay blocked until these handlers are installed again.
        """
        self._set_handlers()
        if not self._reactor.running:
            self._reactor.addSystemEventTrigger("before", "startup", self._block)
            self._reactor.callWhenRunning(self._unblock)

    def _block(self) -> None:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)

    def _unblock(self) -> None:
        self._set_handlers()
        # By now twistd has installed its own handler, which rotates its log.
        self._before = signal.getsignal(signal.SIGUSR1)
        if self._before is not signal.SIG_IGN:
            signal.signal(signal.SIGUSR1, self._reopen)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _reopen(self, number: int, frame: Any) -> None:
        self._reactor.callFromThread(self._proxy.reopen_log)
        if callable(self._before):
            self._before(number, frame)

    def _set_handlers(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self.received, number)

    def _reload(self) -> None:
        # The log says what became of it.
        self._proxy.reload().addErrback(lambda failure: failure.trap(SettingsError) and None)

    def received(self, number: int) -> None:
        """Handle the signal `number`."""
        if number == signal.SIGHUP:
            self._reload()
            return
        if self._stopping:
            self._proxy.abort()
            return
        self._stopping = True
        if number == signal.SIGQUIT:
            self._proxy.patient = True
        self._reactor.stop()
