"""
The process that comes next: it asks for the listening sockets of this one, and says when it serves.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.service.restart_connection import Connection
from evproxy.sockets.passing import MOST_DESCRIPTORS, Message, close_all, user_of

START_TIMEOUT = 60.0
"""Seconds in which the next process must serve, after it has connected; else it is given up."""

MOST_WAITING = 16
"""The accept queue of the restart socket, and the most processes that wait for a refusal."""

_log = Logger(namespace="evproxy")


@implementer(IReadDescriptor)
class Successors:
    """
    Passes the listening sockets on to the next process, one that asks at a time.

    :param reactor: watches the sockets, and has the timers.
    :param sock: the restart socket, which listens.
    :param descriptors: returns the listening sockets to pass on.
    :param replaced: called once the next process serves.
    :param limited: called with how many processes may drain, this one included.
    """

    def __init__(
        self,
        reactor: Any,
        sock: socket.socket,
        descriptors: Callable[[], Sequence[int]],
        replaced: Callable[[], None],
        limited: Callable[[int], None],
    ) -> None:
        self._reactor = reactor
        self._socket = sock
        self._descriptors = descriptors
        self._replaced = replaced
        self._limited = limited
        self._next: Connection | None = None
        self._timer: IDelayedCall | None = None
        self._is_replaced = False
        self._refused: set[Connection] = set()

    def start(self) -> None:
        """Answer from now on."""
        self._socket.setblocking(False)
        self._reactor.addReader(self)

    def bequeath(self, descriptor: int) -> None:
        """This process ends: the next one is now connected to the one before this, too."""
        if self._next is not None and self._is_replaced:
            self._next.send({"before": True}, [descriptor])

    def stop(self) -> None:
        """Answer no more; the connection to the process that has taken over stays."""
        if self._socket.fileno() != -1:
            self._reactor.removeReader(self)
            self._socket.close()
        while self._refused:
            self._refused.pop().close()
        if not self._is_replaced:
            self._forget()

    def close(self) -> None:
        """Close everything."""
        self.stop()
        self._forget()

    def fileno(self) -> int:
        """See `IReadDescriptor`."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """See `IReadDescriptor`."""
        return "restart"

    def connectionLost(self, reason: Failure) -> None:
        """See `IReadDescriptor`."""

    def doRead(self) -> None:
        """See `IReadDescriptor`: a process asks."""
        try:
            sock, _ = self._socket.accept()
        except OSError:
            return
        sock.setblocking(False)
        if user_of(sock) not in (0, os.geteuid()):
            self._refuse(sock, "only the same user may take over")
        elif self._next is not None:
            self._refuse(sock, "another process takes over already")
        else:
            self._next = Connection(self._reactor, sock, self._received, self._ended)
            self._timer = self._reactor.callLater(START_TIMEOUT, self._out_of_time)
            self._next.start()

    def _refuse(self, sock: socket.socket, why: str) -> None:
        """Answer the first message with a refusal: a close before that would reset the socket."""
        if len(self._refused) >= MOST_WAITING:
            sock.close()
            return

        def answer(message: Message, descriptors: list[int]) -> None:
            close_all(descriptors)
            connection.send({"refused": why})
            connection.close()
            self._refused.discard(connection)

        connection = Connection(
            self._reactor, sock, answer, lambda: self._refused.discard(connection)
        )
        self._refused.add(connection)
        connection.start()

    def _received(self, message: Message, descriptors: list[int]) -> None:
        close_all(descriptors)
        if message.get("want") == "listeners":
            self._pass_on()
        if message.get("ready") is True and not self._is_replaced:
            self._is_replaced = True
            self._cancel_timer()
            _log.info("another process has taken over, this one drains")
            self.stop()
            self._replaced()
        older = message.get("older")
        if isinstance(older, int):
            self._limited(older)

    def _pass_on(self) -> None:
        passed = [self._socket.fileno(), *self._descriptors()]
        for start in range(0, len(passed), MOST_DESCRIPTORS):
            some = passed[start : start + MOST_DESCRIPTORS]
            more = start + MOST_DESCRIPTORS < len(passed)
            if self._next is None or not self._next.send({"more": more}, some):
                return

    def _out_of_time(self) -> None:
        self._timer = None
        _log.warn(
            "the process that takes over does not serve after {seconds:g} s, this one goes on",
            seconds=START_TIMEOUT,
        )
        self._forget()

    def _ended(self) -> None:
        self._next = None
        self._cancel_timer()
        if not self._is_replaced:
            _log.warn("the process that was to take over has ended, this one goes on")

    def _forget(self) -> None:
        connection, self._next = self._next, None
        self._cancel_timer()
        if connection is not None:
            connection.close()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
