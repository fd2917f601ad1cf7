"""
Listening: Twisted's ports, with a pause, and no loss when descriptors run out.

`ListeningReactor` stands in for the reactor where server endpoints listen, so that any
endpoint description that ends in a plain port gets one of these.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from functools import cached_property
from socket import SocketType
from typing import Any, Protocol

from OpenSSL import SSL
from twisted.internet import tcp, unix
from twisted.internet.interfaces import IListeningPort, IProtocolNegotiationFactory
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from evproxy.relay.engine import IN
from evproxy.relay.options import Options, set_options
from evproxy.settings import DEFAULT_BACKLOG

MOST_ACCEPTS = 64
"""The most connections accepted before other sockets get their turn."""

PATIENCE = 4
"""How often in a row as many connections as were looked for must come before more are."""

EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""The errors of accept(2) and socket(2) that say: not now, but later."""

_log = Logger()


class Gate(Protocol):
    """Who is told of ports and of trouble with them; `evproxy.admission.Admission` is one."""

    def watch(self, port: PlainPort) -> None: ...

    def forget(self, port: PlainPort) -> None: ...

    def exhausted(self, error: OSError) -> None: ...


class Acceptor(Protocol):
    """Who watches a port, and what becomes of those that it accepts."""

    gate: Gate

    def start_accepting(self, port: PlainPort) -> None: ...

    def stop_accepting(self, port: PlainPort) -> None: ...

    def accepted(self, sock: SocketType, peer: Any, factory: Any) -> None: ...


class ListeningSocket(socket.socket):
    """
    A listening socket that accepts for less.

    It remembers its kind, of which `socket.socket` makes an enumeration's members each time
    it is asked.
    """

    def accept(self) -> tuple[Any, Any]:
        """
        What connected, and its address, as `socket.socket` has them.

        The first is a `SocketType`: what `socket.socket` adds in Python is not needed, and
        costs more than the system calls.
        """
        descriptor, peer = self._accept()  # type: ignore[attr-defined]
        return SocketType(self.family, self.type, self.proto, descriptor), peer

    @cached_property
    def family(self) -> socket.AddressFamily:
        return super().family

    @cached_property
    def type(self) -> socket.SocketKind:
        return super().type


class PlainPort:
    """
    What evproxy's ports add to Twisted's: a pause, and no loss when descriptors run out.

    Mixed into `tcp.Port` and `unix.Port`.
    """

    sink = None
    socket: socket.socket
    factory: Any
    _accepts = 1
    _filled = 0
    _accepting = False
    _made: ListeningSocket | None = None

    def __init__(self, acceptor: Acceptor, *args: Any) -> None:
        super().__init__(*args)
        self.acceptor = acceptor

    def createInternetSocket(self) -> ListeningSocket:
        """Twisted's own, as a `ListeningSocket`."""
        made = super().createInternetSocket()  # type: ignore[misc]
        self._made = ListeningSocket(made.family, made.type, made.proto, made.detach())
        self._made.setblocking(False)
        return self._made

    def startListening(self) -> None:
        """Bind and listen; where it cannot, nothing is left."""
        try:
            super().startListening()  # type: ignore[misc]
        except BaseException:
            # `unix.Port` leaves it open, and so does `tcp.Port` of Twisted 24.7.
            if self._made is not None:
                self._made.close()
            raise

    def startReading(self) -> None:
        if not self._accepting:
            self._accepting = True
            self.acceptor.start_accepting(self)

    def stopReading(self) -> None:
        if self._accepting:
            self._accepting = False
            self.acceptor.stop_accepting(self)

    def pause_accepting(self) -> None:
        """Leave clients in the accept queue."""
        self.stopReading()

    def resume_accepting(self) -> None:
        """Accept again."""
        if self.connected and not self.disconnecting:  # type: ignore[attr-defined]
            self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        """It listens no longer."""
        try:
            super().connectionLost(reason)  # type: ignore[misc]
        finally:
            self.acceptor.gate.forget(self)

    def event(self, mask: int) -> None:
        """The engine tells that there is something to accept: accept it."""
        accepted = 0
        for _ in range(self._accepts):
            if not self._accepting:
                break
            try:
                sock, peer = self.socket.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self.acceptor.gate.exhausted(error)
                    break
                # A connection that is gone again (accept(2)): there may be others.
                continue
            accepted += 1
            try:
                self.acceptor.accepted(sock, peer, self.factory)
            except BaseException:
                # What leaves `doRead` ends a port.
                _log.failure("A connection that was accepted broke")
        # One too many is a system call for nothing, one too few another turn of the loop.
        if accepted < self._accepts:
            self._accepts = max(1, accepted)
            self._filled = 0
        else:
            self._filled += 1
            if self._filled >= PATIENCE:
                self._accepts = min(MOST_ACCEPTS, accepted * 2)

    def event_failed(self) -> None:
        """An error that was logged; the port goes on."""

    def doRead(self) -> None:
        """The same, told by the reactor."""
        self.event(IN)


class TCPPort(PlainPort, tcp.Port):
    """A TCP listening port of evproxy."""


class UNIXPort(PlainPort, unix.Port):
    """A UNIX listening port of evproxy, which closes whatever has become of its path."""

    def startListening(self) -> None:
        """Bind and listen; where it cannot, nothing is left."""
        try:
            super().startListening()
        except BaseException:
            # Only what this port locked: another one of this process may hold it.
            if self.lockFile is not None and self.lockFile.locked:
                self.lockFile.unlock()
            raise

    def connectionLost(self, reason: Failure) -> None:
        """It listens no longer."""
        # `unix.Port`'s does not close what it cannot unlink.
        path = os.fsencode(self.socket.getsockname())
        if path and not path.startswith(b"\0"):
            self._remove(path, os.unlink, path)
        if self.lockFile is not None:
            self._remove(path, self.lockFile.unlock)
        try:
            tcp.Port.connectionLost(self, reason)
        finally:
            self.acceptor.gate.forget(self)

    def _remove(self, path: bytes, remove: Callable[..., object], *arguments: Any) -> None:
        try:
            remove(*arguments)
        except (OSError, ValueError) as error:
            # It is gone or another's, or may not be removed any more (twistd --uid).
            _log.warn(
                "What the UNIX listener {path} put there cannot be removed: {why}",
                path=os.fsdecode(path),
                why=getattr(error, "strerror", None) or error,
            )


TWISTED_BACKLOG = 50
"""The accept queue that Twisted's endpoints ask for where their description says nothing."""


def _long(backlog: int) -> int:
    return DEFAULT_BACKLOG if backlog == TWISTED_BACKLOG else backlog


class LongQueues:
    """
    Stands in for the reactor of an endpoint whose description says nothing of the accept queue.

    Whatever the endpoint is wrapped in, the port it ends in has `DEFAULT_BACKLOG`.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(
        self, port: int, factory: Any, backlog: int = TWISTED_BACKLOG, interface: str = ""
    ) -> Any:
        return self._reactor.listenTCP(port, factory, _long(backlog), interface)

    def listenSSL(
        self,
        port: int,
        factory: Any,
        contextFactory: Any,
        backlog: int = TWISTED_BACKLOG,
        interface: str = "",
    ) -> Any:
        return self._reactor.listenSSL(port, factory, contextFactory, _long(backlog), interface)

    def listenUNIX(
        self,
        address: str,
        factory: Any,
        backlog: int = TWISTED_BACKLOG,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> Any:
        return self._reactor.listenUNIX(address, factory, _long(backlog), mode, wantPID)


def ignore_alpn(context_factory: Any) -> None:
    """
    Let clients that offer protocols (ALPN, RFC 7301) in, with none selected.

    Twisted's `CertificateOptions` refuse them where no protocol is acceptable.  Those with
    acceptable ones, and whatever else makes contexts, stay as they are.
    """
    # There is no other way to ask them, and where there is none to ask they decide.
    chosen = getattr(context_factory, "_acceptableProtocols", True)
    if isinstance(context_factory, CertificateOptions) and not chosen:
        context_factory.getContext().set_alpn_select_callback(_none_selected)


def _none_selected(connection: SSL.Connection, offered: list[bytes]) -> Any:
    return SSL.NO_OVERLAPPING_PROTOCOLS


class ListeningReactor:
    """
    Stands in for the reactor where server endpoints listen, so that their ports are evproxy's.

    :param reactor: what it stands in for.
    :param plain: takes what plain ports accept.
    :param stock: takes what is accepted beneath TLS, as Twisted's own transports.
    :param options: of TCP sockets.
    """

    def __init__(self, reactor: Any, plain: Acceptor, stock: Acceptor, options: Options) -> None:
        self._reactor = reactor
        self._plain = plain
        self._stock = stock
        self._options = options

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(
        self, port: int, factory: Factory, backlog: int = TWISTED_BACKLOG, interface: str = ""
    ) -> IListeningPort:
        return self._listen_tcp(self._plain, port, factory, backlog, interface)

    def listenSSL(
        self,
        port: int,
        factory: Factory,
        contextFactory: Any,
        backlog: int = TWISTED_BACKLOG,
        interface: str = "",
    ) -> IListeningPort:
        if not IProtocolNegotiationFactory.providedBy(factory):
            ignore_alpn(contextFactory)
        secured = TLSMemoryBIOFactory(contextFactory, False, factory)
        return self._listen_tcp(self._stock, port, secured, backlog, interface)

    def listenUNIX(
        self,
        address: str,
        factory: Factory,
        backlog: int = TWISTED_BACKLOG,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> IListeningPort:
        port = UNIXPort(self._plain, address, factory, backlog, mode, self._reactor, wantPID)
        return self._listening(port)

    def _listen_tcp(self, acceptor: Acceptor, *arguments: Any) -> IListeningPort:
        port = TCPPort(acceptor, *arguments, self._reactor)
        self._listening(port)
        # What is accepted inherits them.
        set_options(port.socket, self._options)
        return port

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: Factory
    ) -> IListeningPort:
        # Twisted would accept from a blocking descriptor, and the whole loop would wait.
        os.set_blocking(fileDescriptor, False)
        port: IListeningPort = self._reactor.adoptStreamPort(fileDescriptor, addressFamily, factory)
        return port

    def _listening(self, port: TCPPort | UNIXPort) -> IListeningPort:
        port.startListening()
        port.acceptor.gate.watch(port)
        return port
