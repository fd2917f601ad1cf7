"""
Listening: what stands in for the reactor where server endpoints listen.

Whatever an endpoint description wraps, the plain port that it ends in is one of those of
`evproxy.sockets.ports`.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IListeningPort, IProtocolNegotiationFactory
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOFactory

from evproxy.engine.options import Options, set_options
from evproxy.settings import DEFAULT_BACKLOG
from evproxy.sockets.inherited import InheritedTCPPort, inherited_port
from evproxy.sockets.ports import Acceptor, TCPPort, UNIXPort
from evproxy.sockets.unix_path import AS_DESCRIBED, Permissions

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


class GivenPaths:
    """
    Stands in for a `ListeningReactor` where UNIX listeners have permissions of their own.

    :param reactor: what it stands in for.
    :param permissions: who may connect to the path, whatever the endpoint is wrapped in.
    """

    def __init__(self, reactor: Any, permissions: Permissions) -> None:
        self._reactor = reactor
        self._permissions = permissions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenUNIX(
        self,
        address: str,
        factory: Any,
        backlog: int = TWISTED_BACKLOG,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> Any:
        return self._reactor.listenUNIX(address, factory, backlog, mode, wantPID, self._permissions)


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
    :param twisted: takes what is accepted beneath TLS, as Twisted's own transports.
    :param options: of TCP sockets.
    """

    def __init__(self, reactor: Any, plain: Acceptor, twisted: Acceptor, options: Options) -> None:
        self._reactor = reactor
        self._plain = plain
        self._twisted = twisted
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
        return self._listen_tcp(self._twisted, port, secured, backlog, interface)

    def listenUNIX(
        self,
        address: str,
        factory: Factory,
        backlog: int = TWISTED_BACKLOG,
        mode: int = 0o666,
        wantPID: bool = False,
        permissions: Permissions = AS_DESCRIBED,
    ) -> IListeningPort:
        if permissions.mode is not None:
            mode = permissions.mode
        port = UNIXPort(
            self._plain, permissions, address, factory, backlog, mode, self._reactor, wantPID
        )
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
        # The socket itself knows its family.
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
