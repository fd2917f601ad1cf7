"""
One of Twisted's own transports as an end of a socket relay.

Why that is worth its code is in design note 0017.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

from evproxy.engine.loop import IN, SocketEngine
from evproxy.relay.end import End


def twisted_end(engine: SocketEngine, transport: Any, half: Any) -> TwistedEnd | None:
    """The end for `transport`, if it is one of Twisted's on a plain socket, beneath `half`."""
    if isinstance(transport, Connection) and not transport.TLS and transport.protocol is half:
        return TwistedEnd(engine, transport)
    return None


class TwistedEnd(End):
    """
    An end that is one of Twisted's own TCP or UNIX transports.

    It leaves the reactor while it is relayed, and gets its end back as if it had seen it
    itself, so that its protocol, connector and port live their usual lives.
    """

    __slots__ = ("transport",)

    def __init__(self, engine: SocketEngine, transport: Connection) -> None:
        super().__init__(engine, transport.getHandle())
        self.transport = transport

    @property
    def unsent(self) -> bool:
        """Whether something written is not sent yet, after one try to send it."""
        if self.transport.doWrite() is not None:
            # The kernel tells of a reset only once, and has told it now.
            self.was_reset = True
        return bool(self.transport.dataBuffer) and not self.was_reset

    def not_joined(self) -> None:
        # Its transport was told of a reset when it tried to send, and will not be told again.
        if self.was_reset:
            self.transport.abortConnection()

    def begin(self) -> None:
        self.transport.stopReading()
        self.transport.stopWriting()
        self.engine.watch(self.descriptor, self, IN)
        self.mask = IN

    def set_late_options(self) -> None:
        """Nothing to do: all options are set when the transport is adopted."""

    def end_stream(self) -> None:
        # Other code may have written to it.
        self.transport.doWrite()
        super().end_stream()

    def release(self, reason: Failure) -> None:
        self.descriptor = -1
        # If other code has closed it, the reactor has told it so.
        if self.transport.connected:
            self.transport.connectionLost(reason)
