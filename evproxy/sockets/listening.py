"""
Listening: a stand-in for the reactor, with which server endpoints listen on evproxy's ports.

Whatever an endpoint description wraps, the plain port beneath is one of evproxy's: see
`evproxy.sockets.ports` and `evproxy.sockets.unix_port`.
"""

from __future__ import annotations

import socket
from typing import Any

from OpenSSL import SSL
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IListeningPort, IProtocolNegotiationFactory
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOFactory

from evproxy.engine.options import Options, set_options
from evproxy.sockets.handed import HandedSockets, Place, tcp_place
from evproxy.sockets.inherited import InheritedTCPPort, inherited_port
from evproxy.sockets.ports import Acceptor, TCPPort
from evproxy.sockets.unix_path import AS_DESCRIBED, Permissions
from evproxy.sockets.unix_port import UNIXPort

TWISTED_BACKLOG = 50
"""The accept queue that Twisted's endpoints ask for if their description names none."""


def ignore_alpn(context_factory: Any) -> None:
    """
    Accept clients that offer protocols (ALPN, RFC 7301), and select none of the protocols.

    Twisted's `CertificateOptions` without acceptable protocols refuse such clients.
    `CertificateOptions` with acceptable protocols, and other context factories, do not change.
    """
    # There is no public way to ask.  Context factories without the attribute decide themselves.
    chosen = getattr(context_factory, "_acceptableProtocols", True)
    if isinstance(context_factory, CertificateOptions) and not chosen:
        context_factory.getContext().set_alpn_select_callback(_none_selected)


def _none_selected(connection: SSL.Connection, offered: list[bytes]) -> Any:
    return SSL.NO_OVERLAPPING_PROTOCOLS


class ListeningReactor:
    """
    Stands in for the reactor when server endpoints listen, so that their ports are evproxy's.

    :param reactor: the reactor.
    :param plain: takes the connections of plain ports.
    :param twisted: takes the connections beneath TLS, and makes Twisted's own transports of them.
    :param options: the options of TCP sockets.
    :param backlog: the accept queue of ports whose endpoints ask for `TWISTED_BACKLOG`.
    :param permissions: who may connect to the paths of UNIX ports.
    :param handed: sockets that ports take over, in place of new ones.
    """

    def __init__(
        self,
        reactor: Any,
        plain: Acceptor,
        twisted: Acceptor,
        options: Options,
        backlog: int = TWISTED_BACKLOG,
        permissions: Permissions = AS_DESCRIBED,
        handed: HandedSockets | None = None,
    ) -> None:
        self.handed = HandedSockets() if handed is None else handed
        self._reactor = reactor
        self._plain = plain
        self._twisted = twisted
        self._options = options
        self._backlog = backlog
        self._permissions = permissions

    def for_listener(self, backlog: int, permissions: Permissions) -> ListeningReactor:
        """Return a copy for one listener, which has its own `backlog` and `permissions`."""
        return ListeningReactor(
            self._reactor,
            self._plain,
            self._twisted,
            self._options,
            backlog,
            permissions,
            self.handed,
        )

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
        return self._listen_tcp(self._twisted, port, secured, backlog, interface)

    def listenUNIX(
        self,
        address: str,
        factory: Factory,
        backlog: int = TWISTED_BACKLOG,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> IListeningPort:
        permissions = self._permissions
        if permissions.mode is not None:
            mode = permissions.mode
        queue = self._queue(backlog)
        port = UNIXPort(
            self._plain, permissions, address, factory, queue, mode, self._reactor, wantPID
        )
        return self._listen_unix(port, (socket.AF_UNIX, UNIXAddress(address).name))

    def _listen_unix(self, port: UNIXPort, place: Place) -> IListeningPort:
        port.take_over(self.handed.take(place))
        return self._listening(port)

    def _queue(self, backlog: int) -> int:
        """The accept queue of a port whose endpoint asks for `backlog`."""
        return self._backlog if backlog == TWISTED_BACKLOG else backlog

    def _listen_tcp(
        self, acceptor: Acceptor, port: int, factory: Any, backlog: int, interface: str
    ) -> IListeningPort:
        queue = self._queue(backlog)
        made = TCPPort(acceptor, port, factory, queue, interface, self._reactor)
        if self.handed:
            made.take_over(self.handed.take(tcp_place(interface, port)))
        self._listening(made)
        # Accepted sockets inherit the options.
        set_options(made.socket, self._options)
        return made

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: Factory
    ) -> IListeningPort:
        # `addressFamily` is not needed: the socket knows its family.
        port = inherited_port(self._plain, fileDescriptor, factory, self._reactor)
        self._listening(port)
        if isinstance(port, InheritedTCPPort):
            set_options(port.socket, self._options)
        return port

    def _listening(self, port: Any) -> IListeningPort:
        port.startListening()
        port.acceptor.gate.watch(port)
        listening: IListeningPort = port
        return listening
