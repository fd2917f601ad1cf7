"""
The channel between the supervisor and one worker: a pair of UNIX sockets.

Each message is a length of four bytes and a pickle, as in `multiprocessing`: both ends are the same
program with the same rights, and nobody else has a descriptor of the pair.  Listening sockets pass
as SCM_RIGHTS (unix(7)), before the message that they belong to.
"""

from __future__ import annotations

import os
import pickle
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IFileDescriptorReceiver, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.config.document import ConfigErrors
from evproxy.errors import SettingsError

LONGEST = 256 * 1024 * 1024
"""The most bytes of one message: the settings or the status of tens of thousands of servers."""

AT_ONCE = 8 * 1024
"""After this many bytes of messages, the next one is read in another turn of the reactor: it takes
about half a millisecond to read the status of 32 servers."""

_ERRORS: dict[str, type[Exception]] = {"SettingsError": SettingsError, "LookupError": LookupError}

_log = Logger()


class WorkerFailed(Exception):
    """The other process could not answer, because of an unexpected error."""


Handler = Callable[[Any, Sequence[int]], Any]


@implementer(IFileDescriptorReceiver, IPushProducer)
class Channel(Int32StringReceiver):
    """
    One end of the channel.

    `full` says whether the kernel and the buffer of the transport can take no more for now.

    :param handle: called with each message and the descriptors that came with it, which then
        belong to it; what it returns, or what its Deferred fires with, is the answer.
    :param lost: called when the other process has gone.
    :param room: called when the channel is no longer full.
    :param reactor: Twisted's: many messages are read in several turns of it; ``None``: what arrives
        together is read in one turn.
    """

    MAX_LENGTH = LONGEST

    def __init__(
        self,
        handle: Handler,
        lost: Callable[[], None],
        room: Callable[[], None] = lambda: None,
        reactor: Any = None,
    ) -> None:
        super().__init__()
        self.full = False
        self._reactor = reactor
        self._read = 0
        self._next: IDelayedCall | None = None
        self._handle = handle
        self._lost = lost
        self._room = room
        self._numbers = count(1)
        self._asked: dict[int, Deferred[Any]] = {}
        self._descriptors: deque[int] = deque()
        self._gone = False

    @property
    def gone(self) -> bool:
        """Whether the other process has gone; also while what was asked fails for that."""
        return self._gone

    def tell(self, message: object) -> None:
        """Send `message`, which has no answer.  If the other process has gone, do nothing."""
        if not self._gone:
            self._send(0, message, 0)

    def ask(self, message: object, descriptors: Sequence[int] = ()) -> Deferred[Any]:
        """
        Send `message`, and duplicates of `descriptors`; the Deferred fires with the answer.

        The caller may close `descriptors` once the Deferred has fired.  It fails with
        `ConnectionLost` if the other process ends before.
        """
        if self._gone:
            return fail(ConnectionLost())
        number = next(self._numbers)
        answer = self._asked[number] = Deferred()
        transport: Any = self.transport
        for descriptor in descriptors:
            transport.sendFileDescriptor(descriptor)
        self._send(number, message, len(descriptors))
        return answer

    def close(self) -> None:
        """Close the channel once everything is sent."""
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.loseConnection()

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.registerProducer(self, True)

    def fileDescriptorReceived(self, descriptor: int) -> None:
        self._descriptors.append(descriptor)

    def dataReceived(self, data: bytes) -> None:
        self._read = 0
        super().dataReceived(data)

    def stringReceived(self, string: bytes) -> None:
        self._read += len(string)
        more = self._reactor is not None and not self._gone
        if more and self._next is None and self._read >= AT_ONCE:
            # Read nothing more in this turn: `Int32StringReceiver` keeps what has arrived.
            transport: Any = self.transport
            self.paused = True
            transport.pauseProducing()
            self._next = self._reactor.callLater(0, self._go_on)
        self._received(string)

    def _go_on(self) -> None:
        transport: Any = self.transport
        self._next = None
        self.paused = False
        self.dataReceived(b"")
        if not self.paused and not self._gone:
            transport.resumeProducing()

    def _received(self, string: bytes) -> None:
        number, message, with_it = pickle.loads(string)
        if number < 0:
            self._answered(-number, message)
            return
        descriptors = [self._descriptors.popleft() for _ in range(with_it)]
        handled = maybeDeferred(self._handle, message, descriptors)
        if number:
            handled.addBoth(self._answer, number)
        else:
            handled.addErrback(lambda failure: _log.failure("A message was not handled", failure))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        self.full = False
        if self._next is not None:
            self._next.cancel()
            self._go_on()
        while self._descriptors:
            os.close(self._descriptors.popleft())
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            answer.errback(ConnectionLost())
        self._lost()

    def lengthLimitExceeded(self, length: int) -> None:
        _log.critical("A message between evproxy's processes has {length} bytes", length=length)
        super().lengthLimitExceeded(length)

    def pauseProducing(self) -> None:
        self.full = True

    def resumeProducing(self) -> None:
        self.full = False
        self._room()

    def stopProducing(self) -> None:
        """Nothing to do: `connectionLost` follows."""

    def _answer(self, result: Any, number: int) -> None:
        if isinstance(result, Failure):
            result = _Refusal.of(result)
        if not self._gone:
            self._send(-number, result, 0)

    def _answered(self, number: int, result: Any) -> None:
        answer = self._asked.pop(number)
        if isinstance(result, _Refusal):
            answer.errback(result.error())
        else:
            answer.callback(result)

    def _send(self, number: int, message: object, descriptors: int) -> None:
        self.sendString(pickle.dumps((number, message, descriptors)))


class _Refusal:
    """An error as it passes the channel."""

    def __init__(self, kind: str, lines: tuple[str, ...]) -> None:
        self.kind = kind
        self.lines = lines

    @classmethod
    def of(cls, failure: Failure) -> _Refusal:
        error = failure.value
        if isinstance(error, ConfigErrors):
            return cls("ConfigErrors", tuple(error.problems))
        for name, kind in _ERRORS.items():
            if isinstance(error, kind):
                return cls(name, (str(error.args[0] if error.args else error),))
        _log.failure("A message was not handled", failure)
        return cls("", (f"{type(error).__name__}: {error}",))

    def error(self) -> Exception:
        if self.kind == "ConfigErrors":
            return ConfigErrors(self.lines)
        return _ERRORS.get(self.kind, WorkerFailed)(self.lines[0])
