"""Connects a plain socket on the engine: one attempt, with a timeout, that can be cancelled."""

from __future__ import annotations

import errno
import os
import socket
import sys
from contextlib import suppress
from socket import SocketType
from typing import Any

from twisted.internet.error import NoProtocol, UserError, getConnectError
from twisted.internet.interfaces import IConnector, IDelayedCall
from twisted.internet.protocol import ClientFactory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.config.canonical import host_and_port
from evproxy.engine.loop import OUT, SocketEngine
from evproxy.engine.options import Options, hold_ack, set_options
from evproxy.errors import ConnectTimeout, LocalShortage
from evproxy.policy.shortages import NO_PORT, no_source, not_local
from evproxy.policy.sources import Sources
from evproxy.sockets.destination import Destination
from evproxy.sockets.ports import EXHAUSTED, Gate
from evproxy.sockets.transport import SocketTransport

RETRY = 0.05
"""Seconds between two tries to connect while descriptors, or the server's queue, are exhausted."""

_IN_PROGRESS = {errno.EINPROGRESS, errno.EALREADY}

BIND_LATE = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24 if sys.platform == "linux" else None)
"""The option with which bind(2) leaves the port to connect(2), which knows the destination."""

_RESET = {errno.ECONNRESET, errno.EPIPE}

_KIND = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC

_log = Logger()


@implementer(IConnector)
class SocketConnector:
    """
    One attempt to connect a plain socket on the engine.

    :param engine: watches the socket.
    :param gate: is notified when descriptors run out.
    :param options: the options of the socket, if it is TCP.
    :param first_local_port: from this port on, the kernel may give the port of the server to the
        socket too, which then connects to itself (RFC 9293, 3.5).
    :param to: the destination.
    :param factory: makes the protocol, or is notified of the failure.
    :param timeout: seconds for the attempt.
    """

    __slots__ = (
        "_ack_held",
        "_bucket",
        "_engine",
        "_factory",
        "_first_local_port",
        "_gate",
        "_lacking",
        "_options",
        "_retry",
        "_socket",
        "_timeout",
        "_to",
        "sink",
    )

    bound = False
    """Whether `bind` is to be called before the socket connects."""

    def __init__(
        self,
        engine: SocketEngine,
        gate: Gate,
        options: Options,
        first_local_port: int,
        to: Destination,
        factory: ClientFactory,
        timeout: float,
    ) -> None:
        self._engine = engine
        self._gate = gate
        self._options = options
        self._first_local_port = first_local_port
        self._to = to
        self._factory: ClientFactory | None = factory
        self._timeout = timeout
        self._socket: SocketType | None = None
        self._bucket = 0
        self._retry: IDelayedCall | None = None
        self._ack_held = False
        self.sink = None

    def connect(self) -> None:
        """Start.  The caller calls this once; retries call it while descriptors are exhausted."""
        self._retry = None
        to, sock, failure = self._to, None, None
        try:
            sock = SocketType(to.family, _KIND)
            if to.family != socket.AF_UNIX:
                set_options(sock, self._options)
                if self._engine.reads_early():
                    hold_ack(sock)
                    self._ack_held = True
            if self.bound:
                self.bind(sock)
            error = sock.connect_ex(to.name)
            if error == errno.EINPROGRESS and to.near:
                # On the same machine the answer comes before the call returns, and the next
                # call sees it.  That saves a registration, a deadline and a turn of the loop.
                error = sock.connect_ex(to.name)
            if error in _IN_PROGRESS:
                self._engine.watch(sock.fileno(), self, OUT)
        except OSError as raised:
            failure = raised
            error = raised.errno or errno.EIO
        if error == 0:
            assert sock is not None
            self._connected(sock)
        elif error in _IN_PROGRESS:
            self._socket = sock
            self._set_deadline()
        else:
            if sock is not None:
                sock.close()
            if error in EXHAUSTED or (error == errno.EAGAIN and to.family == socket.AF_UNIX):
                self._try_later(error)
            elif isinstance(failure, LocalShortage):
                self._failed(failure)
            else:
                self._failed(getConnectError((error, os.strerror(error))))

    def bind(self, sock: SocketType) -> None:
        """Bind `sock`; called before it connects."""

    def _try_later(self, error: int) -> None:
        self._lacking = error
        if error in EXHAUSTED:
            self._gate.exhausted(OSError(error, os.strerror(error)))
        self._set_deadline()
        self._retry = self._engine.reactor.callLater(RETRY, self.connect)

    def _set_deadline(self) -> None:
        if not self._bucket:
            engine = self._engine
            self._bucket = engine.deadlines.add(self, engine.seconds(), self._timeout)

    def event(self, mask: int) -> None:
        """The kernel has an answer."""
        sock, self._socket = self._socket, None
        assert sock is not None
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error in _RESET:
            # The server accepted and then reset.  What it sent is still to be read.
            self._connected(sock, was_reset=True)
        elif error:
            self._drop(sock)
            self._failed(getConnectError((error, os.strerror(error))))
        else:
            self._connected(sock)

    def event_failed(self) -> None:
        """Nothing to do: the transport of a protocol that raised is closed already."""

    def deadline_reached(self, now: float) -> None:
        """The time is over."""
        self._bucket = 0
        if self._retry is not None and self._lacking in EXHAUSTED:
            self._give_up(getConnectError((self._lacking, os.strerror(self._lacking))))
            return
        self._give_up(ConnectTimeout(f"timed out after {self._timeout:g} s"))

    def stopConnecting(self) -> None:
        """Give up, and leave nothing of the attempt behind."""
        if self._factory is None:
            return
        self._give_up(UserError())

    def disconnect(self) -> None:
        """Give up too: a connection that is made belongs to its transport."""
        self.stopConnecting()

    def getDestination(self) -> Any:
        """The address of the server."""
        return self._to.address

    def _give_up(self, error: Exception) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            self._drop(sock)
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._failed(error)

    def _drop(self, sock: SocketType) -> None:
        engine = self._engine
        engine.unwatch(sock.fileno())
        engine.after_batch(sock.close)

    def _drop_deadline(self) -> None:
        if self._bucket:
            self._engine.deadlines.discard(self, self._bucket)
            self._bucket = 0

    def _failed(self, error: Exception) -> None:
        self._drop_deadline()
        factory, self._factory = self._factory, None
        if factory is not None:
            factory.clientConnectionFailed(self, Failure(error))

    def _connected(self, sock: SocketType, was_reset: bool = False) -> None:
        if self._bucket:
            self._drop_deadline()
        if not was_reset and self._to.port >= self._first_local_port and _is_its_own_peer(sock):
            self._drop(sock)
            self._failed(getConnectError((errno.ECONNREFUSED, "connected to itself")))
            return
        factory, self._factory = self._factory, None
        assert factory is not None
        try:
            protocol = factory.buildProtocol(self._to.address)
        except BaseException:
            self._drop(sock)
            self._broken(factory)
            return
        if protocol is None:
            self._drop(sock)
            factory.clientConnectionFailed(
                self, Failure(NoProtocol("its factory made no protocol"))
            )
            return
        transport = SocketTransport(self._engine, sock, protocol, self._to.name)
        transport.was_reset = was_reset
        try:
            transport.start()
        except BaseException:
            transport.abortConnection()
            self._broken(factory)
            return
        if self._ack_held:
            client = transport.other
            if not self._engine.will_read(client):
                transport.acknowledge(0 if client is None else client.moved)

    def _broken(self, factory: ClientFactory) -> None:
        failure = Failure()
        _log.failure("The protocol of an upstream connection broke", failure)
        factory.clientConnectionFailed(self, failure)


class SourcedConnector(SocketConnector):
    """
    A `SocketConnector` that connects from the addresses of `sources` in turn.

    If an address has no free port to the destination, or is not an address of this machine, the
    next address is tried.
    """

    __slots__ = ("_left", "_source", "_sources")

    bound = True

    def __init__(self, sources: Sources, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._sources = sources
        self._left: list[str] = []
        self._source = ""

    def bind(self, sock: SocketType) -> None:
        """Bind `sock` to the next address."""
        to = self._to
        if not self._left:
            self._left = self._sources.turn(*to.name[:2])
            if not self._left:
                raise LocalShortage(no_source(host_and_port(*to.name[:2])))
        source = self._left.pop()
        bind_late(sock)
        try:
            sock.bind((source, 0))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            shortage = not_local(source)
            # The next address may connect, and then nothing else reports this one.
            self._gate.short(shortage)
            raise LocalShortage(shortage) from None

    def _failed(self, error: Exception) -> None:
        unfit = isinstance(error, LocalShortage) or getattr(error, "osError", None) in NO_PORT
        if unfit and self._left and self._factory is not None:
            self.connect()
        else:
            super()._failed(error)


def bind_late(sock: SocketType) -> None:
    """
    Let the kernel choose the port when `sock` connects, not when it is bound.

    Otherwise each port could be used only once, and not once for each destination.
    """
    if BIND_LATE is not None:
        with suppress(OSError):
            # Linux before 4.2 does not have the option: then each port is used once.
            sock.setsockopt(socket.IPPROTO_IP, BIND_LATE, 1)


def _is_its_own_peer(sock: SocketType) -> bool:
    """Whether `sock` is connected to itself."""
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:
        # The server has just reset.  What it sent is still to be read.
        return False
