"""
Notifies systemd of a service: sd_notify(3), and the watchdog of sd_watchdog_enabled(3).

systemd hears when every listener listens, of reloads (``Type=notify-reload``) and their outcome,
that the service stops, that its drain still takes time, and that its loop runs.  systemd also keeps
the listening sockets; see `evproxy.service.descriptor_store`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall

from evproxy.config.changes import Changes
from evproxy.escape import printable
from evproxy.observers import Observer
from evproxy.service.descriptor_store import DescriptorStore
from evproxy.service.listening_sockets import ListeningSockets
from evproxy.service.notify_socket import NotifySocket

STATUS_INTERVAL = 5.0
"""Seconds between two looks at the number of sessions."""

EXTENSION = 3 * STATUS_INTERVAL
"""Seconds that a drain asks for, again and again until it is over."""

LONGEST_REASON = 200
"""The most characters of the reason of a refused reload."""

_MICROSECONDS = 1_000_000


class Notifying(Protocol):
    """What systemd is notified of; `ProxyService` is one."""

    @property
    def stop_deadline(self) -> float | None: ...

    @property
    def sockets(self) -> ListeningSockets: ...

    @property
    def session_count(self) -> int: ...

    def observe(self, observer: Observer) -> None: ...

    def when_listening(self) -> Deferred[Any]: ...

    def drain(self, deadline: float | None) -> Deferred[None]: ...


class Systemd(Service):
    """
    Notifies systemd of what becomes of `proxy`.

    ``twistd evproxy`` adds this service itself.  In your own ``.tac`` file, add one line:
    ``Systemd(reactor, proxy, os.environ).setServiceParent(application)``.

    Without ``NOTIFY_SOCKET``, this service does nothing.

    :param reactor: Twisted's.
    :param proxy: the service.
    :param environ: its variables ``NOTIFY_SOCKET``, ``WATCHDOG_USEC``, ``WATCHDOG_PID``,
        ``FDSTORE`` and ``LISTEN_FDNAMES`` are used, and removed, so that no child process notifies
        systemd.
    :param monotonic: returns the nanoseconds of CLOCK_MONOTONIC.
    :raises SettingsError: if ``NOTIFY_SOCKET`` is no address.
    """

    def __init__(
        self,
        reactor: Any,
        proxy: Notifying,
        environ: MutableMapping[str, str],
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._reactor = reactor
        self._proxy = proxy
        self._monotonic = monotonic
        address = environ.pop("NOTIFY_SOCKET", "")
        self.socket = NotifySocket(reactor, address) if address else None
        self._store: DescriptorStore | None = None
        if self.socket is not None:
            self._store = DescriptorStore(proxy.sockets, self.socket, environ)
        self._watchdog = _looping(reactor, self._feed)
        self._watchdog_interval = watchdog_interval(environ)
        self._status = _looping(reactor, self._tell_status)
        self._starting: IDelayedCall | None = None
        self._told = ""
        self._refused = ""
        self._stopping = self._was_ready = False
        if self.socket is not None:
            proxy.observe(self)

    def startService(self) -> None:
        """Notify systemd from now on."""
        super().startService()
        if self.socket is None:
            return
        self._stopping = self._was_ready = False
        # Once the reactor runs: a signal before that would end the process.
        self._starting = self._reactor.callLater(0, self._say_when_ready)
        if self._watchdog_interval:
            self._watchdog.start(self._watchdog_interval)
        self._status.start(STATUS_INTERVAL, now=False)

    def stopService(self) -> Deferred[None] | None:
        """Notify systemd until the service has drained."""
        super().stopService()
        if self.socket is None:
            return None
        self._stopping = True
        if self._starting is not None and self._starting.active():
            self._starting.cancel()
        self.socket.send("STOPPING=1")
        if self._status.running:
            self._status.reset()
        self._tell_status()
        return self._proxy.drain(self._proxy.stop_deadline).addCallback(self._stopped)

    def reload_began(self) -> None:
        """See `evproxy.observers.ReloadObserver`."""
        if not self._stopping:
            self._send("RELOADING=1", f"MONOTONIC_USEC={self._monotonic() // 1000}")

    def reloaded(self, changes: Changes) -> None:
        """See `evproxy.observers.ReloadObserver`."""
        self._refused = ""
        self._say_when_ready()

    def reload_refused(self, problems: Sequence[str]) -> None:
        """See `evproxy.observers.ReloadObserver`."""
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        reason = printable(problems[0])
        if len(reason) > LONGEST_REASON:
            reason = reason[:LONGEST_REASON] + "…"
        self._refused = f"; not reloaded: {reason}{more}"
        if self._was_ready:
            # Nothing has changed; and a proxy that drains listens no more.
            self._say_ready()
        else:
            self._say_when_ready()

    def _say_when_ready(self) -> None:
        self._proxy.when_listening().addCallback(self._ready)

    def _ready(self, _: object) -> None:
        if not self._stopping and self._store is not None:
            self._store.store()
        self._say_ready()

    def _say_ready(self) -> None:
        if not self._stopping:
            self._told = self._line()
            self._send("READY=1", f"STATUS={self._told}")
            self._was_ready = True

    def _line(self) -> str:
        count = self._proxy.session_count
        sessions = f"{count} session{'' if count == 1 else 's'}"
        return f"stopping, {sessions} left" if self._stopping else sessions + self._refused

    def _tell_status(self) -> None:
        line, before = self._line(), self._told
        self._told = line
        lines = [f"EXTEND_TIMEOUT_USEC={int(EXTENSION * _MICROSECONDS)}"] * self._stopping
        if line != before:
            lines.append(f"STATUS={line}")
        if lines:
            self._send(*lines, lasting=False)

    def _feed(self) -> None:
        self._send("WATCHDOG=1", lasting=False)

    def _send(self, *lines: str, lasting: bool = True) -> None:
        if self.socket is not None and self.running | self._stopping:
            self.socket.send(*lines, lasting=lasting)

    def _stopped(self, _: object) -> None:
        for looping in (self._watchdog, self._status):
            if looping.running:
                looping.stop()
        self._stopping = False
        if self.socket is not None:
            self.socket.close()


def _looping(reactor: Any, call: Callable[[], None]) -> LoopingCall:
    looping = LoopingCall(call)
    looping.clock = reactor
    return looping


def watchdog_interval(environ: MutableMapping[str, str]) -> float:
    """
    Return the seconds between two messages for the watchdog: half of what systemd allows; 0: none.

    Removes the variables of the watchdog from `environ`.
    """
    allowed, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
    if not allowed.isdigit() or pid not in ("", str(os.getpid())):
        return 0.0
    return int(allowed) / _MICROSECONDS / 2
