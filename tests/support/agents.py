"""
Peers that act on their own: each sends, reads, pauses, ends or resets as its random plan says.

The content of an agent is a function of its key and the offset, so the receiver can check every
byte.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.relay.delivery import unsent

LONGEST = 3 * 1024 * 1024
"""The most bytes that one agent sends."""

PERIOD = 999_983
"""The content repeats after this many bytes: a prime, so it is no multiple of a buffer size."""

_PATTERN = random.Random(PERIOD).randbytes(PERIOD)
_CONTENT = memoryview(_PATTERN * (LONGEST // PERIOD + 3))


@frozen
class Plan:
    """
    The plan of an agent.

    The agent sends `total` bytes of its content in pieces of up to `piece` bytes, and reads up to
    `read` bytes at a time.  After each piece it pauses with probability `pause`, for up to
    `longest_pause` seconds.  It resets once it has sent `reset_after_sent` bytes or received
    `reset_after_received` bytes.
    """

    start: int
    total: int
    piece: int
    read: int
    pause: float
    longest_pause: float
    reset_after_sent: int | None
    reset_after_received: int | None

    @classmethod
    def drawn(cls, chance: random.Random) -> Plan:
        """Return a random plan: mostly few bytes, sometimes bulk; three in ten end with a reset."""
        total = int(2 ** chance.uniform(0, LONGEST.bit_length() - 1))
        reset = chance.random()
        return cls(
            start=chance.randrange(PERIOD),
            total=total,
            piece=max(1, int(total * chance.choice((0.02, 0.2, 1.0)))),
            read=chance.choice((4096, 65536, 1024 * 1024)),
            pause=chance.choice((0.0, 0.05, 0.3)),
            longest_pause=chance.choice((0.0, 0.005)),
            reset_after_sent=chance.randrange(total + 1) if reset < 0.15 else None,
            reset_after_received=int(2 ** chance.uniform(0, 20)) if 0.15 <= reset < 0.3 else None,
        )

    def content(self, offset: int, count: int) -> memoryview:
        """Return `count` bytes of the content, from `offset` on."""
        return _CONTENT[self.start + offset : self.start + offset + count]


@implementer(IReadWriteDescriptor)
class Agent:
    """
    One peer on a connected socket.

    `sent`: bytes that the kernel took from the agent.  `received`: bytes that it got, each checked.
    `ended`: the agent ended its stream.  `resets`: the agent reset its connection; `emptied` says
    whether its kernel had delivered everything by then.  `saw_end`, `saw_reset`: how the stream of
    the other agent ended.  `wrong`: the offset of the first wrong piece.

    :param reactor: Twisted's.
    :param sock: a connected socket.
    :param plan: the plan of this agent.
    :param expected: the plan of the other agent.
    :param chance: the random source for each piece.
    :param done: called once, when the agent has finished.
    """

    def __init__(
        self,
        reactor: Any,
        sock: socket.socket,
        plan: Plan,
        expected: Plan,
        chance: random.Random,
        done: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._reactor = reactor
        self._socket = sock
        self._plan = plan
        self._expected = expected
        self._chance = chance
        self._done = done
        self.sent = self.received = 0
        self.ended = self.resets = self.emptied = False
        self.saw_end = self.saw_reset = False
        self.wrong: int | None = None

    def start(self) -> None:
        """Start acting."""
        self._reactor.addReader(self)
        self._reactor.addWriter(self)

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "agent"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor saw a reset before anything could be read or sent."""
        self._broken()

    def doWrite(self) -> None:
        if self._closed:
            # A read in the same turn has closed the socket.
            return
        plan = self._plan
        left = plan.total - self.sent
        try:
            if left:
                count = self._chance.randint(1, min(plan.piece, left))
                self.sent += self._socket.send(plan.content(self.sent, count))
            else:
                self._reactor.removeWriter(self)
                self._socket.shutdown(socket.SHUT_WR)
                self.ended = True
        except BlockingIOError:
            return
        except OSError:
            self._broken()
            return
        if plan.reset_after_sent is not None and self.sent >= plan.reset_after_sent:
            self._reset()
        elif self.ended:
            self._close_if_over()
        elif self._chance.random() < plan.pause:
            self._reactor.removeWriter(self)
            self._later(self._write_on)

    def doRead(self) -> None:
        plan = self._plan
        try:
            data = self._socket.recv(self._chance.randint(1, plan.read))
        except BlockingIOError:
            return
        except OSError:
            self._broken()
            return
        if not data:
            self.saw_end = True
            self._reactor.removeReader(self)
            self._close_if_over()
            return
        self._check(data)
        if plan.reset_after_received is not None and self.received >= plan.reset_after_received:
            self._reset()
        elif self._chance.random() < plan.pause:
            self._reactor.removeReader(self)
            self._later(self._read_on)

    def _check(self, data: bytes) -> None:
        if self.wrong is None and data != self._expected.content(self.received, len(data)):
            self.wrong = self.received
        self.received += len(data)

    def _later(self, call: Callable[[], None]) -> None:
        self._reactor.callLater(self._chance.uniform(0, self._plan.longest_pause), call)

    def _write_on(self) -> None:
        if not self._closed:
            self._reactor.addWriter(self)

    def _read_on(self) -> None:
        if not self._closed:
            self._reactor.addReader(self)

    @property
    def _closed(self) -> bool:
        return self._socket.fileno() < 0

    def _reset(self) -> None:
        self.resets = True
        self.emptied = unsent(self._socket.fileno()) == 0
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close()

    def _broken(self) -> None:
        if self._closed:
            return
        self.saw_reset = True
        # Bytes from before the reset are still readable; the kernel reports the error only once.
        with contextlib.suppress(ConnectionResetError):
            self._read_all()
        self._read_all()
        self._close()

    def _read_all(self) -> None:
        while data := self._socket.recv(LONGEST):
            self._check(data)

    def _close_if_over(self) -> None:
        if self.ended and self.saw_end:
            self._close()

    def _close(self) -> None:
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self._socket.close()
        self._done()
