"""
A `SocketTransport` whose channel is TLS.

It takes the place of the plain transport of a half.  First it shakes hands, and then it is what the
plain one was: a complete Twisted transport until it is joined, an end of a socket relay afterwards.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.python.failure import Failure

from evproxy.engine.half_closed import half_close
from evproxy.engine.loop import CHUNK, IN, OUT
from evproxy.relay.end import DONE, LOST, End
from evproxy.sockets.tls_channel import TLSChannel, TLSFault
from evproxy.sockets.transport import SocketTransport

Shaken = Callable[[OSError | None], None]
"""Is called once: with ``None`` when the handshake is over, or with why it failed."""


class TLSTransport(SocketTransport):
    """
    TLS on the socket of `plain`, which must not be used any more.

    :param plain: the transport that had the socket so far, with nothing left to send; its
        protocol is directly above it.
    :param channel: TLS on the socket.
    :param shaken: called when the handshake is over.  After a failure the connection closes: in
        order if OpenSSL has found a fault, whose alert the peer is to read.
    """

    __slots__ = ("_shaken",)

    channel: TLSChannel

    def __init__(self, plain: SocketTransport, channel: TLSChannel, shaken: Shaken) -> None:
        assert not plain.unsent
        protocol, plain._protocol = plain._protocol, None
        SocketTransport.__init__(self, plain.engine, plain.socket, protocol, plain._peer)
        plain.connected = False
        self.channel = channel
        self.mask = plain.mask
        self.unwatched = plain.unwatched
        self.was_reset = plain.was_reset
        self._keepalive = plain._keepalive
        self._shaken: Shaken | None = shaken
        protocol.transport = self

    def start(self) -> None:
        """Begin the handshake: with what this side sends first, or with what was received."""
        self.wait()
        if self._shaken is not None:
            self._shake()

    def wait(self) -> None:
        """Begin the handshake when the peer does."""
        if self.unwatched:
            self._over(ConnectionResetError())
            return
        self.engine.hand_over(self.descriptor, self)
        self.set_mask(IN)

    def speak_to(self, protocol: Any) -> None:
        """Let `protocol` have the connection from now on."""
        self._protocol = protocol
        protocol.makeConnection(self)

    def _shake(self) -> None:
        try:
            self.channel.handshake()
        except BlockingIOError:
            self.set_mask(OUT if self.channel.waits_to_write else IN)
        except OSError as error:
            self._over(error)
        else:
            self._over(None)

    def _over(self, error: OSError | None) -> None:
        shaken, self._shaken = self._shaken, None
        assert shaken is not None
        if error is None:
            self.set_mask(IN)
        else:
            if isinstance(error, TLSFault):
                self._half_close()
            # Not with a reset, which would drop the alert where there was no descriptor for it.
            SocketTransport._close(self, LOST)
        shaken(error)
        self._look_again()

    def _half_close(self) -> None:
        """
        Let the engine close the connection in order.

        A client of TLS 1.3 sends its certificate and its first bytes before it can know that the
        certificate is refused.
        """
        with suppress(OSError):
            kept = socket.socket(fileno=os.dup(self.descriptor))
            kept.setblocking(False)
            # The kernel would go on to report events of the descriptor that is closed now.
            self.engine.unwatch(self.descriptor)
            self.unwatched = True
            half_close(self.engine, kept)

    def _look_again(self) -> None:
        """No event reports what OpenSSL has taken from the kernel already."""
        if not self._closing and self.channel.pending():
            self.engine.after_batch(self._read_rest)

    def _read_rest(self) -> None:
        if self.mask & IN and self.relay is None and not self._closing and self.channel.pending():
            self._readable()

    def resumeProducing(self) -> None:
        """Read again, also what is pending."""
        SocketTransport.resumeProducing(self)
        self._look_again()

    # What the engine tells.

    def event(self, mask: int) -> None:
        if self._shaken is not None:
            if not self._closing:
                self._shake()
            return
        if mask == IN and self.pace is None and self.relay is not None and self.mask & IN:
            # The common case, with fewer calls.
            self._copy(CHUNK)
            if self.channel.pending():
                self.read_pending()
            return
        if mask & OUT and self.channel.waits_to_write:
            mask |= IN
        SocketTransport.event(self, mask)

    def read_failed(self, failure: OSError) -> None:
        End.read_failed(self, failure)
        if self.channel.waits_to_write:
            self.set_mask(self.mask | OUT)

    def _readable(self) -> None:
        SocketTransport._readable(self)
        while (
            self.mask & IN and self.relay is None and not self._closing and self.channel.pending()
        ):
            SocketTransport._readable(self)
        if self.channel.waits_to_write and not self._closing:
            self.set_mask(self.mask | OUT)

    def _stream_over(self) -> None:
        if self.channel.ends_whole:
            self.ended = True
            self._close(DONE)
        else:
            SocketTransport._stream_over(self)

    def _close(self, reason: Failure) -> None:
        if reason is DONE and not (self._closing or self.was_reset):
            try:
                self.channel.shutdown(socket.SHUT_WR)
            except BlockingIOError:
                if self.disconnecting and not self.unwatched:
                    # `_writable` tries again.
                    self.set_mask(self.mask | OUT)
                    return
            except OSError:
                """The peer is gone."""
        SocketTransport._close(self, reason)

    # What a relay asks.

    def stream_ended(self) -> None:
        """The stream has ended in order; before TLS 1.3, that ends both directions."""
        relay, other = self.relay, self.other
        assert relay is not None
        assert other is not None
        if self.channel.ends_whole and not other.passed:
            self.ended = True
            with suppress(OSError):
                self.channel.shutdown(socket.SHUT_WR)
            relay.ended_whole(self)
        else:
            End.stream_ended(self)

    def release(self, reason: Failure) -> None:
        shaken, self._shaken = self._shaken, None
        SocketTransport.release(self, reason)
        del shaken
