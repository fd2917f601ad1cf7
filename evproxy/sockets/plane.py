"""
The sockets of one service, and what joins two of them: where the kind of relay is picked.

Nothing above knows which one runs.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Sequence
from socket import SocketType
from typing import Any

from evproxy.engine.deadlines import Deadlines
from evproxy.engine.loop import SocketEngine
from evproxy.engine.options import SWITCHES, Options, can_wait, set_options, timing
from evproxy.engine.pipes import MOST, Pipes
from evproxy.errors import SettingsError
from evproxy.relay.closing_here import ending_layer
from evproxy.relay.contract import Half, Relay, RelayListener
from evproxy.relay.delivery import innermost
from evproxy.relay.end import End
from evproxy.relay.socket_relay import SocketRelay
from evproxy.relay.stages import Stage
from evproxy.relay.stream_relay import StreamRelay
from evproxy.relay.twisted_end import twisted_end
from evproxy.settings import RELAYS, Keepalive
from evproxy.sockets.listening import ListeningReactor
from evproxy.sockets.makers import EngineSockets, PlainSockets, TwistedSockets
from evproxy.sockets.ports import Gate
from evproxy.sockets.transport import SocketTransport


class DataPlane:
    """
    The sockets and relays of one service.

    :param reactor: tells the time, calls later, watches descriptors.
    :param mode: one of `RELAYS`.
    :param gate: hears of ports, and when descriptors run out.
    :param keepalive: how idle TCP connections are probed.
    :param most_pipes: how many pipes may be used for splicing at once.
    :param transports: ``engine`` for `SocketTransport` where there is epoll, ``twisted`` for
        Twisted's own transports.
    :raises SettingsError: if the mode is unknown or cannot be had here.

    `engine` watches the plain sockets; ``None`` where there is no epoll.
    """

    def __init__(
        self,
        reactor: Any,
        mode: str,
        gate: Gate,
        keepalive: Keepalive,
        *,
        most_pipes: int = MOST,
        transports: str = "engine",
    ) -> None:
        if mode not in RELAYS:
            raise SettingsError(f"relay: expected one of {', '.join(RELAYS)}, got {mode!r}")
        self.reactor = reactor
        self.deadlines = Deadlines(reactor)
        times = timing(keepalive)
        self._options = SWITCHES + times
        at_once, lasting = (SWITCHES, times) if can_wait(keepalive) else (self._options, ())
        self._joins_sockets = mode != "stream"
        self.pipes = Pipes(most_pipes)
        self.engine: SocketEngine | None = None
        if hasattr(select, "epoll"):
            self.engine = SocketEngine(reactor, self.deadlines, self.pipes, lasting)
        elif mode == "socket":
            raise SettingsError(
                "relay: there is no socket relay on this system, which has no epoll"
            )
        twisted = TwistedSockets(reactor, gate, self.engine)
        self.sockets: PlainSockets = twisted
        if self.engine is not None and transports == "engine":
            self.sockets = EngineSockets(reactor, gate, at_once, self.engine)
        self.listening = ListeningReactor(reactor, self.sockets, twisted, self._options)

    def join(
        self,
        downstream: Half,
        upstream: Half,
        received: bytes,
        ended: bool,
        listener: RelayListener,
        stages: Sequence[Stage] = (),
    ) -> Relay:
        """
        Relay between the two.

        :param received: what the client sent before; passed to the server first.
        :param ended: whether the client has ended its stream; passed on after that.
        :param listener: hears of the end.
        :param stages: what the bytes pass on their way, of this session alone.
        """
        engine = self.engine
        if engine is not None and self._joins_sockets and not stages:
            client = self._relay_end(engine, downstream)
            server = self._relay_end(engine, upstream)
            if client is not None and server is not None:
                # Both are asked: it may take a try to send.
                waits, waits_too = client.unsent, server.unsent
                if not waits and not waits_too:
                    downstream.receiver, upstream.receiver = client, server
                    sockets = SocketRelay(engine, client, server, listener)
                    sockets.start(received, ended)
                    return sockets
                client.not_joined()
                server.not_joined()
        for half in (downstream, upstream):
            if not isinstance(innermost(half.transport), SocketTransport):
                # evproxy's own transports have theirs already, or get them from the relay.
                set_transport_options(half.transport, self._options)
            # TLS has timers, which would wait for an engine that lingers.
            if not isinstance(ending_layer(half.transport), SocketTransport):
                self._not_alone()
        streams = StreamRelay(self.reactor, downstream, upstream, listener, stages)
        streams.start(received, ended)
        return streams

    def linger(self) -> None:
        """The process does nothing but proxy; see `SocketEngine`."""
        if self.engine is not None:
            self.engine.leads = self.engine.lingers = True

    def close(self) -> None:
        """The service has stopped: keep no descriptor."""
        self.pipes.close()

    def _relay_end(self, engine: SocketEngine, half: Half) -> End | None:
        """The end of a socket relay that `half` has, ``None`` if it can have none."""
        transport = half.transport
        relay_end = getattr(transport, "relay_end", None)
        if relay_end is not None:
            end: End | None = relay_end(engine, half)
            return end
        adopted = twisted_end(engine, transport, half)
        if adopted is not None:
            set_transport_options(transport, self._options)
            self._not_alone()
        return adopted

    def _not_alone(self) -> None:
        """There is a transport that the reactor watches."""
        if self.engine is not None:
            self.engine.lingers = False


def set_transport_options(transport: Any, options: Options) -> None:
    """`set_options` for the socket beneath any transport, if it is a TCP one."""
    get_handle = getattr(innermost(transport), "getHandle", None)
    handle = get_handle() if get_handle is not None else None
    if isinstance(handle, SocketType) and handle.family != socket.AF_UNIX:
        set_options(handle, options)
