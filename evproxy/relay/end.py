"""
The ends of a socket relay: a kernel socket each, and the direction that begins there.

An `End` sends what it reads to its other end at once.  It keeps only what the kernel refuses, and
is not read again until that is sent.  So an idle session holds no buffer, and a slow reader makes
the other peer wait.  A direction that fills the buffer again and again is spliced through a kernel
pipe until it calms down.

Rules: an end is read only while nothing of it is kept, and it has a sink only while the engine is
to copy: a stale event from the same batch must not bypass this.  The end of a stream is passed on
only if `recv` returned zero and no send to that socket has failed: the kernel reports a reset only
once, and after that `recv` returns zero as if the stream had ended in order.
"""

from __future__ import annotations

import errno
import os
import socket
from socket import SocketType
from typing import Protocol

from twisted.internet import error
from twisted.python.failure import Failure

from evproxy.engine.loop import CHUNK, ERR, HANG_UP, IN, OUT, SocketEngine
from evproxy.engine.pipes import Pipe
from evproxy.model import Ending, Side
from evproxy.relay.channel import Channel
from evproxy.relay.pace import Pace

SPLICE_CHUNK = 1024 * 1024
"""The most bytes that are spliced for one event."""

BULK_AFTER = 3
"""Full reads after which a direction is spliced, with less than one read's bytes between two."""

CALM_AFTER = 8
"""Smaller reads in a row after which a spliced direction is copied again."""

SILENT_AFTER = 1.0
"""Seconds without a moved byte after which a spliced direction gives its pipe back."""

_REFUSED = {errno.EINVAL, errno.ENOSYS, errno.EPERM}
"""The errors of splice(2) where it is not allowed, or not from this kind of socket."""

_FLAGS = getattr(os, "SPLICE_F_MOVE", 0) | getattr(os, "SPLICE_F_NONBLOCK", 0)

DONE = Failure(error.ConnectionDone())
LOST = Failure(error.ConnectionLost())
ABORTED = Failure(error.ConnectionAborted())


class Joined(Protocol):
    """The relay of an end; it decides what an event means for the other end."""

    how: Ending | None
    """How the session ends; ``None`` until that is decided."""

    def end_passed(self, end: End) -> None:
        """The end of the stream of `end` was passed on."""

    def ended_whole(self, end: End) -> None:
        """The peer of `end` has ended both streams in order: nothing more can be sent to it."""

    def lost(self, end: End) -> None:
        """The connection of `end` is lost: it was reset, and all that the peer sent was read."""

    def flushed(self, end: End) -> None:
        """The end of the session is decided, and nothing that came from `end` is kept any more."""

    def closing_here(self, end: End) -> bool:
        """Code on the side of `end` closes `end` in order; see `Receiver` of `contract`."""

    def aborted_here(self, end: End) -> None:
        """Code on the side of `end` resets the socket, or has closed it."""

    def reset(self, by: Side, how: Ending) -> None:
        """Reset both sides now."""


class End:
    """
    One end of a socket relay, and the direction that begins there.

    :param engine: watches the socket.
    :param sock: the kernel socket.
    :param channel: what the end reads from and writes to; ``None``: the kernel socket itself.

    `sink`: the channel that the engine copies to; ``None`` while the engine must not copy.
    `first`: when the first bytes were read.  Until then the end has no sink, so that the engine
    need not check for them.
    `other`: the opposite end.  `moved` counts the bytes that the kernel took for `other`.
    `ended`: the stream of the peer has ended in order; `passed`: that was passed on.
    `was_reset`: nothing can be sent to the peer any more, but what the peer sent before may still
    be read.
    `prompt_until`: -1, or the kernel may delay acknowledgements to the peer once more than so many
    bytes are sent to it, and nothing has come from it (design note 0022).
    `pace`: how fast the end may be read; ``None``: as fast as its other end takes it.
    `unwatched`: the engine does not watch the socket, because the socket hung up while it was not
    read, and the engine would report that again and again.
    """

    __slots__ = (
        "active",
        "was_reset",
        "bucket",
        "channel",
        "descriptor",
        "ended",
        "engine",
        "first",
        "kept",
        "mark",
        "mask",
        "moved",
        "pace",
        "passed",
        "other",
        "pipe",
        "prompt_until",
        "relay",
        "sink",
        "socket",
        "streak",
        "unwatched",
    )

    def __init__(
        self, engine: SocketEngine, sock: SocketType, channel: Channel | None = None
    ) -> None:
        self.engine = engine
        self.socket = sock
        self.channel: Channel | SocketType = sock if channel is None else channel
        self.descriptor = sock.fileno()
        self.mask = 0
        self.moved = 0
        self.mark = 0
        self.streak = 0
        self.bucket = 0
        self.prompt_until = -1
        self.active = engine.now
        self.first: float | None = None
        self.ended = self.passed = self.was_reset = self.unwatched = False
        self.kept: bytearray | None = None
        self.pace: Pace | None = None
        self.pipe: Pipe | None = None
        self.sink: Channel | SocketType | None = None
        self.other: End | None = None
        self.relay: Joined | None = None

    # Called by the engine.

    def event(self, mask: int) -> None:
        """Handle any event but plain bytes to be copied."""
        if mask & OUT and self.other is not None:
            self.other.flush()
        if mask & ~OUT and self.relay is not None:
            if self.mask & IN:
                self._read()
            elif mask & HANG_UP and not self.unwatched:
                self._hang_up(mask)

    def event_failed(self) -> None:
        """An error in evproxy: end this session."""
        if self.relay is not None:
            self.relay.reset(Side.PROXY, Ending.ERROR)

    def read_failed(self, failure: OSError) -> None:
        """`recv` raised `failure`: there is nothing to read, or the connection is lost."""
        if not isinstance(failure, BlockingIOError) and self.relay is not None:
            self.relay.lost(self)

    def send_failed(self, failure: OSError, rest: memoryview) -> None:
        """Keep `rest`, which could not be sent to the other end, unless the other end was reset."""
        if isinstance(failure, BlockingIOError):
            self.keep(rest)
        else:
            self._other_was_reset()

    def was_read_early(self) -> None:
        """The other end has held back its first acknowledgement for bytes of this one."""
        if self.other is not None:
            self.other.acknowledge(self.moved)

    def at_end(self) -> None:
        """`recv` returned zero."""
        assert self.relay is not None
        if self.was_reset:
            self.relay.lost(self)
        else:
            self.stream_ended()

    def keep(self, rest: memoryview) -> None:
        """Keep `rest` until the kernel takes it for the other end."""
        assert not self.kept
        self.kept = bytearray(rest)
        self._wait_for_other()

    def filled(self) -> None:
        """One read filled the buffer: splice this direction if that happens again and again."""
        if self.moved - self.mark < 2 * CHUNK:
            self.streak += 1
        else:
            self.streak = 1
        self.mark = self.moved
        if self.streak >= BULK_AFTER:
            self.streak = 0
            assert self.other is not None
            if not (self.plain and self.other.plain):
                return
            self.pipe = self.engine.pipes.take()
            if self.pipe is not None:
                self.sink = None
                self._look_later(self.engine.seconds())

    # Moving bytes.

    @property
    def backlogged(self) -> bool:
        """Whether bytes that were read are not sent yet."""
        return bool(self.kept) or (self.pipe is not None and self.pipe.held > 0)

    @property
    def kept_bytes(self) -> int:
        """How many bytes were read and are not sent yet."""
        return len(self.kept or b"") + (0 if self.pipe is None else self.pipe.held)

    @property
    def heard(self) -> bool:
        """Whether bytes came from the peer, or the end of its stream."""
        return bool(self.moved or self.kept or self.ended)

    @property
    def plain(self) -> bool:
        """Whether the channel is the kernel socket itself."""
        return self.channel is self.socket

    @property
    def unsent(self) -> bool:
        """Whether bytes that were written before are not sent yet, so that no relay can begin."""
        raise NotImplementedError

    def _read(self) -> None:
        self._read_once()
        if self.pipe is None:
            self.read_pending()

    def _read_once(self) -> None:
        most = SPLICE_CHUNK
        if self.pace is not None:
            most = self.pace.allowance_or_wait(self._resume)
            if not most:
                self.set_mask(self.mask & ~IN)
                return
        if self.pipe is not None:
            self._splice(self.pipe, min(most, SPLICE_CHUNK))
        else:
            self._copy(most)

    def _resume(self) -> None:
        """The pace allows to read again."""
        relay = self.relay
        if relay is not None and relay.how is None and not self.ended and not self.backlogged:
            self.set_mask(self.mask | IN)
            self.read_pending()

    def read_pending(self) -> None:
        """Read what is pending in the channel, as long as the other end takes it."""
        channel = self.channel
        if channel is not self.socket and not isinstance(channel, SocketType):
            while self.mask & IN and channel.pending():
                self._read_once()

    def _copy(self, most: int) -> None:
        engine, other = self.engine, self.other
        assert other is not None
        buffer = engine.buffer if most >= CHUNK else engine.view[:most]
        try:
            count = self.channel.recv_into(buffer)
        except OSError as failure:
            self.read_failed(failure)
            return
        if not count:
            self.at_end()
            return
        if self.pace is not None:
            self.pace.spend(count)
        self.active = engine.now
        if self.first is None:
            self.first = engine.now
            self.copy_to_sink()
            if -1 != self.prompt_until != other.moved:
                # The kernel may delay the acknowledgement of these bytes.
                self.acknowledge(other.moved)
        try:
            sent = other.channel.send(engine.view[:count])
        except OSError as failure:
            self.send_failed(failure, engine.view[:count])
            return
        self.moved += sent
        if sent < count:
            self.keep(engine.view[sent:count])
        if count == CHUNK:
            self.filled()

    def _splice(self, pipe: Pipe, most: int) -> None:
        try:
            count = os.splice(self.descriptor, pipe.write_end, most, flags=_FLAGS)
        except BlockingIOError:
            # Urgent data comes first: splice stops there, and recv does not.
            self._copy_again()
            return
        except OSError as failure:
            if failure.errno in _REFUSED:
                self.engine.pipes.use_none()
                self._copy_again()
            else:
                self.read_failed(failure)
            return
        if not count:
            self._copy_again()
            self.at_end()
            return
        if self.pace is not None:
            self.pace.spend(count)
        self.active = self.engine.now
        pipe.held = count
        self._push(pipe)
        if count >= CHUNK:
            self.streak = 0
        else:
            self.streak += 1
            if self.streak >= CALM_AFTER and not pipe.held:
                self._copy_again()

    def _push(self, pipe: Pipe) -> None:
        assert self.other is not None
        try:
            sent = os.splice(pipe.read_end, self.other.descriptor, pipe.held, flags=_FLAGS)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._other_was_reset()
            return
        pipe.held -= sent
        self.moved += sent
        if pipe.held:
            self._wait_for_other()

    def _copy_again(self) -> None:
        if self.pipe is not None:
            self._give_pipe_back(self.pipe)
            self.streak = 0
            if self.mask & IN:
                self.copy_to_sink()

    def _give_pipe_back(self, pipe: Pipe) -> None:
        self.engine.pipes.give_back(pipe)
        self.pipe = None
        if self.bucket:
            self.engine.deadlines.discard(self, self.bucket)
            self.bucket = 0

    def _look_later(self, now: float) -> None:
        self.bucket = self.engine.deadlines.add(self, now, SILENT_AFTER)

    def deadline_reached(self, now: float) -> None:
        """Copy again if no byte of this spliced direction has moved for `SILENT_AFTER` seconds."""
        self.bucket = 0
        if self.pipe is not None and not self.pipe.held and now - self.active >= SILENT_AFTER:
            self._copy_again()
        elif self.pipe is not None:
            self._look_later(now)

    def flush(self) -> None:
        """The other end takes bytes again: send what is kept."""
        other, relay = self.other, self.relay
        if other is None or relay is None:
            return
        if self.pipe is not None and self.pipe.held:
            self.active = self.engine.seconds()
            self._push(self.pipe)
        elif self.kept:
            try:
                sent = other.channel.send(self.kept)
            except BlockingIOError:
                return
            except OSError:
                self._other_was_reset()
                return
            self.moved += sent
            self.active = self.engine.seconds()
            del self.kept[:sent]
        if self.backlogged or other.was_reset:
            return
        self.kept = None
        other.set_mask(other.mask & ~OUT)
        if relay.how is not None:
            relay.flushed(self)
        elif not self.ended:
            self.set_mask(self.mask | IN)
            self.read_pending()
        elif self.was_reset:
            relay.lost(self)
        elif not self.passed:
            self._pass_end()

    def drop_backlog(self) -> None:
        """Discard what is kept: the other peer cannot get it any more."""
        self.kept = None
        if self.pipe is not None:
            self._give_pipe_back(self.pipe)

    def _wait_for_other(self) -> None:
        assert self.other is not None
        self.engine.pauses += 1
        self.set_mask(self.mask & ~IN)
        self.other.set_mask(self.other.mask | OUT)

    # Ends.

    def _pass_end(self) -> None:
        other, relay = self.other, self.relay
        assert other is not None
        assert relay is not None
        self.passed = True
        if other.passed and other.plain:
            # Both sockets are about to be closed, and closing passes the end on.
            relay.end_passed(self)
            return
        try:
            other.channel.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            # `flush` passes it on.
            self.passed = False
            other.set_mask(other.mask | OUT)
        except OSError:
            self._other_was_reset()
        else:
            relay.end_passed(self)

    def _other_was_reset(self) -> None:
        """Nothing can be sent to the other end; read what its peer sent before."""
        other, relay = self.other, self.relay
        assert other is not None
        assert relay is not None
        other.was_reset = True
        self.drop_backlog()
        self.set_mask(self.mask & ~IN)
        if relay.how is not None:
            relay.flushed(self)
        elif other.backlogged:
            other.set_mask(other.mask & ~OUT)
        elif other.ended:
            relay.lost(other)
        else:
            other.set_mask(IN)
            other.read_pending()

    def _hang_up(self, mask: int) -> None:
        """Handle a hang-up: a reset, or the end of both streams."""
        other, relay = self.other, self.relay
        assert other is not None
        assert relay is not None
        reset = self.means_reset(mask, other.passed)
        if reset and self.ended and not self.backlogged:
            relay.lost(self)
            return
        # The engine would report the hang-up again and again until the backlog is sent.
        self.unwatch()
        if reset:
            self.was_reset = True
            if other.was_reset:
                relay.lost(other)
                return
            other.drop_backlog()
            other.set_mask(other.mask & ~IN)

    def means_reset(self, mask: int, ended: bool) -> bool:
        """Whether a hang-up means a reset; `ended`: evproxy has ended its stream to the peer."""
        # A UNIX socket that is closed in order hangs up at once.
        return bool(mask & ERR) or not (ended or self.socket.family == socket.AF_UNIX)

    # Called by the half.

    def received(self, data: bytes) -> None:
        """Pass `data` on as if it had just been read."""
        if self.pace is not None:
            self.pace.spend(len(data))
        if self.kept is None:
            self.kept = bytearray(data)
        else:
            self.kept += data
        self.flush()
        if self.backlogged:
            self._wait_for_other()

    def stream_ended(self) -> None:
        """The stream has ended in order: pass the end on after what is kept."""
        other = self.other
        assert other is not None
        self.ended = True
        self.active = self.engine.seconds()
        if not other.passed:
            # When both have ended, the sockets are closed in this very batch.
            self.set_mask(self.mask & ~IN)
        if not (self.passed or self.backlogged):
            self._pass_end()

    def peer_reset(self) -> None:
        """Nothing to do: the engine reports a reset itself."""

    def closing_here(self, ended: bool) -> bool:
        return self.relay is not None and self.relay.closing_here(self)

    def half_broke(self) -> None:
        """Nothing to do: `event_failed` notifies the relay."""

    def connection_lost(self, reason: Failure) -> None:
        """Other code has closed the transport."""
        if self.relay is not None:
            self.relay.aborted_here(self)

    # Calls to the engine.

    def unwatch(self) -> None:
        """Let the engine report no events."""
        if not self.unwatched:
            self.unwatched = True
            self.mask = 0
            self.sink = None
            self.engine.unwatch(self.descriptor)

    def set_mask(self, mask: int) -> None:
        """Let the engine report the events of `mask`; if unwatched, only once `mask` has `IN`."""
        if mask == self.mask:
            return
        if not self.unwatched:
            self.engine.change(self.descriptor, mask)
            self.mask = mask
        elif mask & IN:
            self.engine.watch(self.descriptor, self, mask)
            self.unwatched = False
            self.mask = mask
        if not self.mask & IN:
            self.sink = None
        elif self.pipe is None:
            self.copy_to_sink()

    def copy_to_sink(self) -> None:
        """Let the engine's loop copy, if it can and the first bytes have come."""
        alone = self.channel is self.socket and self.pace is None
        if alone and self.first is not None and self.other is not None:
            self.sink = self.other.channel

    def end_stream(self) -> bool:
        """End the stream to the peer; return false if that has to wait for the event `OUT`."""
        try:
            self.channel.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            self.set_mask(OUT)
            return self.unwatched
        except OSError:
            """The peer is gone."""
        return True

    def not_joined(self) -> None:
        """There will be no socket relay: the transport continues as before."""

    def begin(self) -> None:
        """Take over the socket: from now on it is read for the relay."""
        raise NotImplementedError

    def set_late_options(self) -> None:
        """Set the socket options that a short session does not need."""
        raise NotImplementedError

    def acknowledge(self, moved: int) -> None:
        """Acknowledge promptly, until more than `moved` bytes are sent to the peer."""
        raise NotImplementedError

    def release(self, reason: Failure) -> None:
        """The relay is over: close the socket as `reason` says, and notify the protocol."""
        raise NotImplementedError
