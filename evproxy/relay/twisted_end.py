"""
One of Twisted's own transports as an end of a socket relay.

Design note 0017 says why this is worth its code.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

from evproxy.engine.loop import IN, SocketEngine
from evproxy.relay.end import End


def twisted_end(engine: SocketEngine, transport: Any, half: Any) -> TwistedEnd | None:
    """Return the end for `transport`, if Twisted made it on a plain socket for `half`."""
    if isinstance(transport, Connection) and not transport.TLS and transport.protocol is half:
        return TwistedEnd(engine, transport)
    return None


class TwistedEnd(End):
    """
    An end that is one of Twisted's own TCP or UNIX transports.

    The transport leaves the reactor while it is relayed.  At the end it is closed as if it had
    noticed the end itself, so that its protocol, connector and port are notified as usual.
    """

    __slots__ = ("transport",)

    def __init__(self, engine: SocketEngine, transport: Connection) -> None:
        super().__init__(engine, transport.getHandle())
        self.transport = transport

    @property
    def unsent(self) -> bool:
        """Whether bytes that were written are not sent yet, after one try to send them."""
        if self.transport.doWrite() is not None:
            # The kernel reports a reset only once, and has reported it now.
            self.was_reset = True
        return bool(self.transport.dataBuffer) and not self.was_reset

    def not_joined(self) -> None:
        # The kernel reported the reset in `unsent`, and will not report it again.
        if self.was_reset:
            self.transport.abortConnection()

    def begin(self) -> None:
        self.transport.stopReading()
        self.transport.stopWriting()
        self.engine.watch(self.descriptor, self, IN)
        self.mask = IN

    def set_late_options(self) -> None:
        """Nothing to do: all options are set when the transport is adopted."""

    def acknowledge(self, moved: int) -> None:
        """Nothing to do: Twisted holds back no acknowledgement."""

    def end_stream(self) -> bool:
        # Other code may have written to the transport.
        self.transport.doWrite()
        return super().end_stream()

    def release(self, reason: Failure) -> None:
        self.descriptor = -1
        # If other code has closed the transport, the reactor has notified it.
        if self.transport.connected:
            self.transport.connectionLost(reason)
