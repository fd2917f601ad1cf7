"""
Restarts without a gap: a new process takes over the listening sockets, then the old one drains.

The old process listens at a UNIX socket.  The new one gets the listening sockets there
(SCM_RIGHTS of unix(7)), serves, and says so; then the old one drains.  The sockets stay open all
the time, so the kernel refuses no client, and those in the accept queues are served.

Each process stays connected to the one before.  So the number of processes that drain is bounded:
each tells the one before how many may still drain.  A process that ends before the one before it
passes that connection on.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from evproxy.errors import CannotTakeOver
from evproxy.escape import escaped
from evproxy.service.listening_sockets import ListeningSockets
from evproxy.service.predecessor import Predecessor, predecessor_at
from evproxy.service.successor import MOST_WAITING, Successors
from evproxy.sockets.unix_path import claimed

MOST_DRAINING = 4
"""The most processes that drain at a time; a further one resets the sessions of the oldest."""

_log = Logger(namespace="evproxy")


class Restartable(Protocol):
    """What can be replaced by another process; `ProxyService` is one."""

    @property
    def stop_deadline(self) -> float | None: ...

    @property
    def sockets(self) -> ListeningSockets: ...

    def when_listening(self) -> Deferred[Any]: ...

    def drain(self, deadline: float | None) -> Deferred[None]: ...

    def abort(self) -> None: ...


class Restarts(Service):
    """
    Takes over from the process at `path`, and lets the next one take over from this one.

    ``twistd evproxy`` adds this service if there is a ``restart_socket``.  In your own ``.tac``
    file, add one line before the line that adds `proxy`:
    ``Restarts(reactor, proxy, "/run/proxy.restart").setServiceParent(application)``.

    :param reactor: Twisted's.
    :param proxy: the service.  Its listeners that are endpoint objects cannot be passed on.
    :param path: of the UNIX socket; only the same user may connect to it.
    :param replaced: called once another process serves; by default, the reactor stops.
    """

    def __init__(
        self,
        reactor: Any,
        proxy: Restartable,
        path: str,
        replaced: Callable[[], object] | None = None,
    ) -> None:
        self._reactor = reactor
        self._proxy = proxy
        self._path = path
        self._when_replaced = reactor.stop if replaced is None else replaced
        self._predecessor: Predecessor | None = None
        self._successors: Successors | None = None
        self._socket: socket.socket | None = None
        self._owns_path = False
        self._starting: IDelayedCall | None = None

    def privilegedStartService(self) -> None:
        """
        Take over the listening sockets of the process that runs; if none does, bind the path.

        :raises CannotTakeOver: if the sockets cannot be taken over, or the path cannot be bound.
        """
        super().privilegedStartService()
        if self._socket is not None:
            return
        self._predecessor = predecessor = predecessor_at(self._path)
        if predecessor is None:
            self._socket = _bound(self._path)
            self._owns_path = True
        else:
            self._socket = socket.socket(fileno=predecessor.restart_socket)
            self._proxy.sockets.handed.offer(predecessor.descriptors, shared=True)

    def startService(self) -> None:
        """Tell the process that ran before once every listener listens."""
        self.privilegedStartService()
        super().startService()
        # Once the reactor runs, so that this process does serve.
        self._starting = self._reactor.callLater(0, self._begin)

    def stopService(self) -> Deferred[None]:
        """
        Let no other process take over any more.

        If this process does not serve yet, the one before goes on as if there had been none.
        """
        super().stopService()
        if self._starting is not None and self._starting.active():
            self._starting.cancel()
        if self._socket is not None and self._owns_path:
            with suppress(OSError):
                os.unlink(self._path)
        if self._successors is not None:
            self._successors.stop()
        drained = self._proxy.drain(self._proxy.stop_deadline)
        return drained.addCallback(self._drained)

    def _begin(self) -> None:
        self._proxy.when_listening().addCallback(self._serves)

    def _serves(self, _: object) -> None:
        if not self.running or self._socket is None:
            return
        self._owns_path = True
        self._proxy.sockets.handed.abandon()
        self._successors = Successors(
            self._reactor,
            self._socket,
            self._proxy.sockets.descriptors,
            self._replaced,
            self._limited,
        )
        self._successors.start()
        self._proxy.sockets.own()
        if self._predecessor is not None:
            _log.info("this process has taken over from the one before, which drains")
            self._predecessor.ready(self._reactor, MOST_DRAINING, self._predecessor_ended)
        _log.info("another process can take over at {path}", path=escaped(self._path))

    def _replaced(self) -> None:
        self._owns_path = False
        self._proxy.sockets.hand_over()
        self._when_replaced()

    def _limited(self, older: int) -> None:
        """This process, which drains, and those before it may be `older` processes."""
        if older <= 0:
            _log.warn(
                "more than {most} processes drain, this one resets its sessions",
                most=MOST_DRAINING,
            )
            self._proxy.abort()
        if self._predecessor is not None:
            self._predecessor.limit(older - 1)

    def _predecessor_ended(self) -> None:
        self._predecessor = None

    def _drained(self, _: object) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._successors is not None:
            if self._predecessor is not None:
                self._successors.bequeath(self._predecessor.connection)
            self._successors.close()
            self._successors = None
        if self._predecessor is not None:
            self._predecessor.close()
            self._predecessor = None


def _bound(path: str) -> socket.socket:
    """
    A socket that listens at `path`, to which only this user may connect.

    :raises CannotTakeOver: if the path cannot be bound.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with claimed(os.fsencode(path)):
            sock.bind(path)
            os.chmod(path, 0o600)
            sock.listen(MOST_WAITING)
    except OSError as error:
        sock.close()
        raise CannotTakeOver(
            f"restart_socket: cannot listen on {escaped(path)}: {error.strerror or error}"
        ) from None
    return sock
