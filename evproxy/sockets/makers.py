"""
Plain sockets: makes transports of accepted sockets, and of sockets that connect.

`EngineSockets` makes `SocketTransport`s on the engine, `TwistedSockets` makes Twisted's own
transports.  Both accept through the same ports, so both handle the bound on sessions and a lack of
descriptors in the same way.
"""

from __future__ import annotations

import socket
from socket import SocketType
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IConnector
from twisted.internet.protocol import ClientFactory

from evproxy.engine.loop import IN, SocketEngine
from evproxy.engine.options import Options
from evproxy.policy.sources import Sources
from evproxy.sockets.connector import SocketConnector, SourcedConnector
from evproxy.sockets.destination import Destination, first_local_port
from evproxy.sockets.ports import Gate
from evproxy.sockets.refusing import Refusing, refuse
from evproxy.sockets.sourced import SourcedReactor
from evproxy.sockets.transport import SocketTransport, socket_address


class PlainSockets:
    """
    Makes the plain sockets of one service: the part that both subclasses share.

    :param reactor: Twisted's reactor.
    :param gate: is notified of ports, and when descriptors run out.
    """

    def __init__(self, reactor: Any, gate: Gate) -> None:
        self.reactor = reactor
        self.gate = gate

    def accepted(self, sock: SocketType, peer: Any, factory: Any) -> None:
        """A client at `peer` is connected: serve it, or reset it if `factory` makes no protocol."""
        try:
            sock.setblocking(False)
            protocol = factory.buildProtocol(socket_address(peer))
        except BaseException:
            refuse(sock)
            raise
        if protocol is None or isinstance(protocol, Refusing):
            refuse(sock)
        else:
            self.serve(sock, peer, protocol)

    def serve(self, sock: SocketType, peer: Any, protocol: Any) -> None:
        """Make the transport of `protocol`."""
        raise NotImplementedError

    def start_accepting(self, port: Any) -> None:
        """From now on call `port` when there is something to accept."""
        raise NotImplementedError

    def stop_accepting(self, port: Any) -> None:
        """Do not call `port` any more."""
        raise NotImplementedError

    def connect(
        self,
        to: Destination,
        factory: ClientFactory,
        timeout: float,
        source: Sources | None = None,
    ) -> IConnector:
        """Connect to `to`; TCP from an address of `source`, if given; `timeout` in seconds."""
        raise NotImplementedError


class TwistedSockets(PlainSockets):
    """
    Plain sockets as Twisted's own transports, watched by the reactor.

    :param reactor: Twisted's reactor.
    :param gate: is notified of ports, and when descriptors run out.
    :param engine: stops lingering with the first of these transports.
    """

    def __init__(self, reactor: Any, gate: Gate, engine: SocketEngine | None) -> None:
        super().__init__(reactor, gate)
        self._engine = engine

    def start_accepting(self, port: Any) -> None:
        self.reactor.addReader(port)

    def stop_accepting(self, port: Any) -> None:
        self.reactor.removeReader(port)

    def serve(self, sock: SocketType, peer: Any, protocol: Any) -> None:
        if self._engine is not None:
            self._engine.lingers = False
        server: Any = tcp.Server if isinstance(peer, tuple) else unix.Server
        whole = socket.socket(sock.family, sock.type, sock.proto, sock.detach())
        transport = server(whole, protocol, peer or None, None, 0, self.reactor)
        try:
            protocol.makeConnection(transport)
        except BaseException:
            transport.abortConnection()
            raise

    def connect(
        self,
        to: Destination,
        factory: ClientFactory,
        timeout: float,
        source: Sources | None = None,
    ) -> IConnector:
        reactor = self.reactor
        if source is not None:
            reactor = SourcedReactor(reactor, source, self.gate.short)
        connector: IConnector = (
            reactor.connectUNIX(to.host, factory, timeout)
            if to.family == socket.AF_UNIX
            else reactor.connectTCP(to.host, to.port, factory, timeout)
        )
        return connector


class EngineSockets(PlainSockets):
    """
    Plain sockets as `SocketTransport`s.

    :param reactor: Twisted's reactor.
    :param gate: is notified of ports, and when descriptors run out.
    :param options: the options of TCP sockets that connect.
    :param engine: watches the sockets.
    """

    def __init__(self, reactor: Any, gate: Gate, options: Options, engine: SocketEngine) -> None:
        super().__init__(reactor, gate)
        self.options = options
        self.engine = engine
        self._first_local_port = first_local_port()

    def start_accepting(self, port: Any) -> None:
        self.engine.watch(port.fileno(), port, IN)

    def stop_accepting(self, port: Any) -> None:
        self.engine.unwatch(port.fileno())

    def serve(self, sock: SocketType, peer: Any, protocol: Any) -> None:
        transport = SocketTransport(self.engine, sock, protocol, peer)
        try:
            transport.start()
        except BaseException:
            transport.event_failed()
            raise

    def connect(
        self,
        to: Destination,
        factory: ClientFactory,
        timeout: float,
        source: Sources | None = None,
    ) -> IConnector:
        engine, gate, options, first = self.engine, self.gate, self.options, self._first_local_port
        if source is None:
            connector = SocketConnector(engine, gate, options, first, to, factory, timeout)
        else:
            connector = SourcedConnector(source, engine, gate, options, first, to, factory, timeout)
        connector.connect()
        return connector
