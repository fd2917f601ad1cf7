"""
One worker process as the supervisor sees it: from its start to its end.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.escape import printable
from evproxy.workers.channel import Channel, Handler
from evproxy.workers.messages import Alive, Start, Started

MOST_SAID = 100
"""How many lines of a worker's standard error are logged; there are none unless it breaks."""

LONGEST_SAID = 1000
"""The most characters of such a line."""

MOST_UNANSWERED = 30
"""A worker that has answered none of so many looks, one each second, is killed: its loop hangs."""

LATE = 2
"""A worker that has answered none of more looks than this is late."""

FIRST_INHERITED = 3
"""The first descriptor that systemd hands over (sd_listen_fds(3))."""

_log = Logger(namespace="evproxy")


@frozen
class Command:
    """
    How to start a worker.

    `arguments`: the program and its arguments; the descriptor of the channel follows.
    `environment`: of the process.  `inherited`: the inodes of the sockets that systemd has handed
    over, in the order of their descriptors; 0: no socket.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str]
    inherited: Sequence[int] = ()


class _ChannelFactory(Factory):
    noisy = False

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def buildProtocol(self, address: object) -> Channel:
        return self._channel


class WorkerProcess(ProcessProtocol):
    """
    One process.

    `started` fires with `Started`, or fails, when the worker has answered to `Start`.  `sessions`
    and `last_id`: how many it had at the last look, and the number of the last one.
    `ended_in_order`: it has ended by itself, with status 0.

    :param reactor: Twisted's.
    :param command: starts the process.
    :param number: the number of the worker, from 0 on.
    :param inherited: the descriptors of sockets from systemd that are at another number by now.
    :param handle: called with the messages of the worker.
    :param ended: called with this object, and how the process has ended.
    """

    def __init__(
        self,
        reactor: Any,
        command: Command,
        number: int,
        inherited: Mapping[int, int],
        handle: Handler,
        ended: Callable[[WorkerProcess, str], None],
    ) -> None:
        self.number = number
        self.since = reactor.seconds()
        self.serves: Started | None = None
        self.sessions = self.last_id = 0
        self.started: Deferred[Started] = Deferred()
        self._settled = False
        self._waiting: list[Deferred[None]] = []
        self._reactor = reactor
        self._ended = ended
        self._said = 0
        self._rest = b""
        self._unanswered = 0
        self._killed = ""
        self._end: str | None = None
        self.ended_in_order = False
        self._channel_over = False
        mine, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.channel = Channel(handle, self._lost, reactor=reactor)
        with mine, other, open(os.devnull, "rb") as nothing:
            mine.setblocking(False)
            reactor.adoptStreamConnection(
                mine.fileno(), socket.AF_UNIX, _ChannelFactory(self.channel)
            )
            handed_over = list(enumerate(command.inherited, FIRST_INHERITED))
            channel = FIRST_INHERITED + len(handed_over)
            # What twistd has closed at 1 would be the descriptor of something else.
            descriptors: dict[int, Any] = {
                0: nothing.fileno(),
                1: 1,
                2: "r",
                **{
                    each: inherited.get(each, each if _is(each, inode) else nothing.fileno())
                    for each, inode in handed_over
                },
                channel: other.fileno(),
            }
            self._process = reactor.spawnProcess(
                self,
                command.arguments[0],
                [*command.arguments, str(channel)],
                dict(command.environment),
                childFDs=descriptors,
            )
        self.pid: int = self._process.pid

    def start(self, start: Start, descriptors: Sequence[int]) -> None:
        """Have the worker serve; `started` says what became of it."""
        self.last_id = start.after
        self.channel.ask(start, descriptors).addCallbacks(self._serves, self._failed)

    def when_settled(self) -> Deferred[None]:
        """Return a Deferred that fires once `started` has fired or failed."""
        settled: Deferred[None] = Deferred()
        if self._settled:
            settled.callback(None)
        else:
            self._waiting.append(settled)
        return settled

    def look(self) -> None:
        """Look whether the loop of the process runs; kill the process if it has not for long."""
        # Looks count, not seconds: this process may have been stopped itself.
        if self._unanswered >= MOST_UNANSWERED:
            self.kill("killed, since its loop hangs")
        self._unanswered += 1
        self.channel.ask(Alive()).addCallbacks(self._answered, lambda _: None)

    @property
    def gone(self) -> bool:
        """Whether the process has closed its end of the channel: it ends, or has ended."""
        return self.channel.gone

    @property
    def late(self) -> bool:
        """Whether the loop of the process has answered no look for a while."""
        return self._unanswered > LATE

    def _answered(self, answer: tuple[int, int]) -> None:
        self._unanswered = 0
        self.sessions, self.last_id = answer

    def kill(self, how: str) -> None:
        """End the process at once; `how` says why, in place of the signal."""
        self._killed = self._killed or how
        if self._process.pid is not None:
            self._process.signalProcess(signal.SIGKILL.name.removeprefix("SIG"))

    def _serves(self, serves: Started) -> None:
        self.serves = serves
        self.started.callback(serves)
        self._settle()

    def _failed(self, failure: Failure) -> None:
        self.started.errback(failure)
        self._settle()

    def _settle(self) -> None:
        self._settled = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    # From the process.

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-LONGEST_SAID:]
        for line in lines:
            self._say(line)

    def processEnded(self, reason: Failure) -> None:
        if self._rest:
            self._say(self._rest)
        self._end = self._killed or how(cast(ProcessTerminated, reason.value))
        self.ended_in_order = not self._killed and reason.check(ProcessDone) is not None
        self._is_over()

    def _lost(self) -> None:
        self._channel_over = True
        self._is_over()

    def _is_over(self) -> None:
        # The channel has what the process said last, and ends after it.
        if self._end is not None and self._channel_over:
            self._ended(self, self._end)

    def _say(self, line: bytes) -> None:
        self._said += 1
        if self._said <= MOST_SAID:
            text = printable(line[:LONGEST_SAID].decode(errors="replace"))
            _log.error("worker {number}: {text}", number=self.number + 1, text=text)


def _is(descriptor: int, inode: int) -> bool:
    """Whether `descriptor` is still the socket with this inode: an endpoint may have closed it."""
    try:
        return os.fstat(descriptor).st_ino == inode
    except OSError:
        return False


def how(end: ProcessDone | ProcessTerminated) -> str:
    """How a process has ended, in words."""
    if end.signal is None:
        return f"ended with status {end.exitCode}"
    try:
        return f"killed by {signal.Signals(end.signal).name}"
    except ValueError:
        # Most real-time signals have no name.
        return f"killed by signal {end.signal}"
