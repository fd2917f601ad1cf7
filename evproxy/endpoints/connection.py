"""
One connection of a program to a server of a pool.

A `Connection` is what a session is elsewhere: it holds a slot of its server until it ends.  Without
faults, the program's protocol has the transport of the server itself.  With faults, a stream relay
stands between the two, on a connection inside the process.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from evproxy.interfaces import Server
from evproxy.model import ConnectionInfo, Ending, Phase, Side, close_reason
from evproxy.records import SessionStatus, Waited
from evproxy.relay.contract import Half
from evproxy.relay.stages import Stage, close_stages, stages_of
from evproxy.relay.stream_relay import StreamRelay
from evproxy.session.connecting import ConnectContext, Connecting
from evproxy.session.halves import HalfProtocol
from evproxy.session.opening import Opening
from evproxy.sockets.memory import connected_pair
from evproxy.upstream.pool.pool import Pool
from evproxy.wire.proxy_protocol import ProxyHeader, header_bytes

_log = Logger()


class Connection:
    """
    Connects one protocol of `factory` to a server of `pool`.

    An `evproxy.session.connecting.Connectable`, which has the other attributes.

    :param reactor: Twisted's.
    :param pool: the pool that picks the server.
    :param context: what the connections of one endpoint share.
    :param factory: makes the protocol.
    """

    def __init__(self, reactor: Any, pool: Pool, context: ConnectContext, factory: Factory) -> None:
        self.info = ConnectionInfo("", 0)
        self.server: Server | None = None
        self.opening: Opening | None = None
        self.tried = self.error = self.cause = ""
        self.attempts = 0
        self.waited: Waited | None = None
        self.phase = Phase.CONNECTING
        self._reactor = reactor
        self._pool = pool
        self._factory = factory
        self._connecting = Connecting(context, self, pool)
        self._done: Deferred[Any] = Deferred(self._cancelled)
        self._upstream: Half | None = None
        self._relay: StreamRelay | None = None

    def connect(self) -> Deferred[Any]:
        """Try servers until one is connected; see `evproxy.endpoints.client.PoolEndpoint`."""
        self._factory.doStart()
        try:
            self._connecting.find()
        except Exception:
            self.broke()
        return self._done

    def _cancelled(self, done: Deferred[Any]) -> None:
        self._connecting.stop()
        self._close()

    def _close(self) -> None:
        """Nothing is left of the connection; called once or more often."""
        if self.phase is not Phase.CLOSED:
            self.phase = Phase.CLOSED
            self._factory.doStop()

    # Called while it connects.

    def preamble(self) -> bytes:
        """
        A PROXY header that says that the program connects for itself.

        PROXY protocol specification, 2.1 (``UNKNOWN``) and 2.2 (``LOCAL``): the receiver takes the
        addresses of the connection itself.
        """
        version = 0 if self.server is None else self.server.proxy_version
        return header_bytes(ProxyHeader(version, local=version == 2)) if version else b""

    def close_unconnected(self, by: Side, how: Ending) -> None:
        """No server is connected: `error` says why."""
        self._connecting.stop()
        # The error adds a full stop itself.
        self._fail(Failure(ConnectError(string=self.error.rstrip("."))))

    def broke(self) -> None:
        """Called in an ``except`` clause: the connect fails with the exception."""
        failure = Failure()
        self._connecting.stop()
        self._fail(failure)

    def _fail(self, failure: Failure) -> None:
        self._close()
        if not self._done.called:
            self._done.errback(failure)

    def connected(self, upstream: Half, now: float, seconds: float) -> None:
        """The server is connected: connect the program's protocol."""
        server = self.server
        assert server is not None
        self._pool.connected(server, seconds)
        self.phase, self._upstream = Phase.RELAYING, upstream
        shaken = isinstance(upstream.transport, TLSMemoryBIOProtocol)
        stages: list[Stage] = []
        try:
            if server.proxy_version and not self._connecting.header_sent:
                upstream.transport.write(self.preamble())
            program: Any = self._factory.buildProtocol(upstream.transport.getPeer())
            if program is None:
                raise ConnectError(string="the factory makes no protocol for the connection")
            status = self.status(now)
            for make in self._pool.stages:
                stages += stages_of(make, status)
            if stages:
                self._relay_to(program, upstream, stages)
            else:
                upstream.receiver = _Program(program, self._over)
                program.makeConnection(upstream.transport)
                if shaken and IHandshakeListener.providedBy(program):
                    # A connection with TLS is connected when its handshake is over.
                    program.handshakeCompleted()
        except Exception:
            failure = Failure()
            upstream.transport.abortConnection()
            if self._relay is None:
                close_stages(stages)
            self._ended(Side.PROXY, Ending.ERROR, False)
            self._fail(failure)
        else:
            self._done.callback(program)

    def _relay_to(self, program: Any, upstream: Half, stages: list[Stage]) -> None:
        transport = upstream.transport
        its, ours = connected_pair(self._reactor, transport.getHost(), transport.getPeer())
        inner = HalfProtocol()
        ours.start(inner)
        self._relay = StreamRelay(self._reactor, inner, upstream, self, stages)
        self._relay.start(b"", False)
        its.start(program)

    def status(self, now: float) -> SessionStatus:
        """What the conditions of faults can ask for, at `now`."""
        return SessionStatus(
            id=0,
            listener="",
            peer="",
            phase=self.phase,
            pool=self._pool.name,
            upstream="" if self.server is None else self.server.name,
            relay="stream",
            attempts=self.attempts,
            started=now,
            connect_time=None,
            duration=0.0,
            bytes_to_upstream=0,
            bytes_to_downstream=0,
        )

    # Called while it is connected.

    def end(self, by: Side, how: Ending) -> None:
        """Reset both sides now; called by the pool."""
        if self._relay is not None:
            self._relay.reset(by, how)
        elif self._upstream is not None:
            self._upstream.transport.abortConnection()

    def relay_half_closed(self, side: Side) -> None:
        """Called by the relay; nothing to do."""

    def relay_closing(self, by: Side, how: Ending) -> None:
        """Called by the relay; nothing to do."""

    def relay_closed(self, by: Side, how: Ending) -> None:
        """Called by the relay: both sides are gone."""
        answered = self._relay is not None and self._relay.bytes_to_downstream > 0
        self._relay = None
        self._ended(by, how, answered)

    def _over(self, in_order: bool, answered: bool) -> None:
        how = Ending.FINISHED if in_order else Ending.RESET
        self._ended(Side.UPSTREAM, how, answered)

    def _ended(self, by: Side, how: Ending, answered: bool) -> None:
        server, self.server, self._upstream = self.server, None, None
        if server is not None:
            self._pool.ended(server, self, close_reason(by, how, Phase.RELAYING), answered)
        self._close()


class _Program:
    """The `Receiver` that gives everything to the program's protocol."""

    def __init__(self, program: Any, over: Any) -> None:
        self._program = program
        self._over = over
        self._answered = False

    def received(self, data: bytes) -> None:
        self._answered = True
        self._program.dataReceived(data)

    def stream_ended(self) -> None:
        program = self._program
        if IHalfCloseableProtocol.providedBy(program):
            program.readConnectionLost()
        else:
            # As Twisted's transports do for such a protocol.
            program.transport.connectionLost(Failure(ConnectionDone()))

    def peer_reset(self) -> None:
        """The loss of the connection follows."""

    def closing_here(self, ended: bool) -> bool:
        return False

    def half_broke(self) -> None:
        """The transport resets the connection."""

    def connection_lost(self, reason: Failure) -> None:
        # First, so that a program that connects again finds the slot free.
        self._over(reason.check(ConnectionDone) is not None, self._answered)
        self._program.connectionLost(reason)
