"""
The sockets and relays of one service: joins two sockets, and chooses the kind of relay.

The layers above do not know which kind of relay runs.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Sequence
from socket import SocketType
from typing import Any

from evproxy.engine.deadlines import Deadlines
from evproxy.engine.loop import SocketEngine
from evproxy.engine.options import (
    AT_ONCE,
    KEEPALIVE,
    NO_DELAY,
    Options,
    can_wait,
    set_options,
    timing,
)
from evproxy.engine.pipes import MOST, Pipes
from evproxy.errors import SettingsError
from evproxy.relay.closing_here import ending_layer
from evproxy.relay.contract import Half, Relay, RelayListener
from evproxy.relay.delivery import innermost
from evproxy.relay.end import End
from evproxy.relay.flow import FlowCount
from evproxy.relay.pace import NO_PACES, Paces
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
    :param gate: is notified of ports, and when descriptors run out.
    :param keepalive: how idle TCP connections are probed.
    :param most_pipes: how many pipes may be used for splicing at once.
    :param transports: ``engine``: `SocketTransport`, if the system has epoll.  ``twisted``:
        Twisted's own transports.
    :raises SettingsError: if the mode is unknown, or this system does not support it.

    `engine` watches the plain sockets; ``None`` on a system without epoll.
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
        self._options = AT_ONCE + times
        at_once: Options = self._options
        lasting: Options = ()
        if can_wait(keepalive):
            at_once, lasting = NO_DELAY, KEEPALIVE + times
        self._flow = FlowCount()
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
        paces: Paces = NO_PACES,
    ) -> Relay:
        """
        Relay between the two halves.

        :param received: what the client sent before; passed to the server first.
        :param ended: whether the client has ended its stream; passed on after `received`.
        :param listener: is notified of the end.
        :param paces: how fast the client's bytes and the server's are read.
        :param stages: the stages that the bytes pass; they belong to this session only.
        """
        engine = self.engine
        if engine is not None and self._joins_sockets and not stages:
            client = self._relay_end(engine, downstream)
            server = self._relay_end(engine, upstream)
            if client is not None and server is not None:
                # Ask both, because asking may try to send.
                waits, waits_too = client.unsent, server.unsent
                if not waits and not waits_too:
                    downstream.receiver, upstream.receiver = client, server
                    sockets = SocketRelay(engine, client, server, listener, paces)
                    sockets.start(received, ended)
                    return sockets
                client.not_joined()
                server.not_joined()
        for half in (downstream, upstream):
            self.adopt(half)
        streams = StreamRelay(
            self.reactor, downstream, upstream, listener, stages, paces, self._flow
        )
        streams.start(received, ended)
        return streams

    def adopt(self, half: Half) -> None:
        """Set the options of the transport of `half`, which the socket relay does not drive."""
        if not isinstance(innermost(half.transport), SocketTransport):
            # evproxy's own transports have these options, or get them from the relay.
            set_transport_options(half.transport, self._options)
        # TLS has timers, which would wait for an engine that lingers.
        if not isinstance(ending_layer(half.transport), SocketTransport):
            self._not_alone()

    @property
    def pauses(self) -> int:
        """How often a slow reader made its peer wait, from the beginning."""
        return self._flow.pauses + (0 if self.engine is None else self.engine.pauses)

    def linger(self) -> None:
        """The process only proxies, so the engine may wait itself; see `SocketEngine`."""
        if self.engine is not None:
            self.engine.leads = self.engine.lingers = True

    def close(self) -> None:
        """The service has stopped: close all descriptors."""
        self.pipes.close()
        if self.engine is not None:
            for each in tuple(self.engine.half_closed):
                each.close()

    def _relay_end(self, engine: SocketEngine, half: Half) -> End | None:
        """Return the end of a socket relay for `half`; ``None`` if `half` cannot have one."""
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
        """The reactor watches a transport, which must not wait for the engine."""
        if self.engine is not None:
            self.engine.lingers = False


def set_transport_options(transport: Any, options: Options) -> None:
    """Call `set_options` for the socket beneath any transport, if it is a TCP socket."""
    get_handle = getattr(innermost(transport), "getHandle", None)
    handle = get_handle() if get_handle is not None else None
    if isinstance(handle, SocketType) and handle.family != socket.AF_UNIX:
        set_options(handle, options)
