"""
The event loop within the event loop.

The engine has an epoll object of its own, and registers it with the reactor as one descriptor: an
epoll descriptor can itself be polled.  The reactor calls `SocketEngine.doRead` when anything is
ready.  That method handles the events in batches, each in one tight loop, and begins no batch later
than a millisecond after the first.  So there is no logging context for each event and no
``epoll_ctl`` for each chunk, and the engine works under every reactor that can watch a descriptor.

Rules: a ready socket has at most one bounded read in a batch.  No descriptor is closed within a
batch, so that no number is reused in it and no event reaches the wrong socket: what must be closed
waits in `SocketEngine.after_batch`.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any, Protocol

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.engine import reactor_epoll
from evproxy.engine.deadlines import Deadlines
from evproxy.engine.options import Options
from evproxy.engine.pipes import Pipes
from evproxy.engine.turns import LONG, Turns

# As numbers (epoll(7)), because this module must also import on systems without epoll.
IN = 0x001
OUT = 0x004
ERR = 0x008
HANG_UP = 0x010 | ERR

BATCH = 256
"""The most events of one batch."""

TURN = 0.001
"""Seconds after which no further batch begins before the reactor gets its turn; the longest time
that an engine that lingers waits for a batch."""

LEAD = 0.05
"""Seconds after which an engine that leads begins no further batch; its longest wait for a batch;
and the longest time until it leads again, after the reactor has called it at once."""

RETRY = 0.05
"""Seconds until the engine or the reactor tries again to watch the other, after the kernel refused
(no memory, or all processes of the user together have reached fs.epoll.max_user_watches)."""

CHUNK = 64 * 1024
"""The most bytes that are copied for one event; the size of the buffer that all sessions share."""

IN_VAIN = 16
"""How many clients are not read early after one that had sent nothing by then."""

_log = Logger()


class Readable(Protocol):
    """An end that may be read before an event says that it is ready."""

    descriptor: int

    @property
    def heard(self) -> bool:
        """Whether anything came from the end."""

    def was_read_early(self) -> None:
        """The early read is over."""


class Watched(Protocol):
    """An object that the engine can watch."""

    sink: Any
    """The channel to which the engine copies what it reads; ``None``: the engine calls `event`."""

    def event(self, mask: int) -> None:
        """The events of `mask` have happened."""

    def event_failed(self) -> None:
        """`event` raised an exception, which is logged: close the socket."""


@implementer(IReadDescriptor)
class SocketEngine:
    """
    Watches the sockets of one service.

    :param reactor: watches the engine, tells the time, calls later.
    :param deadlines: the timeouts of connects, and of spliced directions without bytes.
    :param pipes: the pipes through which bulk is spliced.
    :param lasting: options that TCP sockets get once a session lasts.

    In a process that only proxies, the engine waits for the next batch itself.  If there are few
    sessions, that saves a turn of the reactor for each event (design note 0015):

    `leads`: while the engine waits, it watches the reactor's own epoll object, and returns as soon
    as the reactor has anything to do.  The engine sets this to false if it finds no such object.

    `lingers`: the engine waits up to `TURN` seconds, and everything else in the reactor waits too.
    So this must end with the first connection that the reactor watches.

    `turns`: is notified of these waits; ``None``: nobody is.
    `pauses`: how often an end was read no more because its other end took no more bytes.
    `half_closed`: the sockets that no session has any more, and that are to close in order; see
    `evproxy.engine.half_closed`.
    """

    def __init__(
        self, reactor: Any, deadlines: Deadlines, pipes: Pipes, lasting: Options = ()
    ) -> None:
        self.reactor = reactor
        self.deadlines = deadlines
        self.pipes = pipes
        self.lasting = lasting
        self.leads = False
        self.lingers = False
        self.turns: Turns | None = None
        self.pauses = 0
        self.half_closed: set[Any] = set()
        self.now: float = reactor.seconds()
        self.buffer = bytearray(CHUNK)
        self.view = memoryview(self.buffer)
        self._watched: dict[int, Watched] = {}
        self._epoll: select.epoll | None = None
        self._in_batch = False
        self._later: list[Callable[[], None]] = []
        self._early: list[Readable] = []
        self._in_vain = 0
        self._reactors: int | None = None
        self._leads_from = 0.0
        self._pause = TURN

    # Watching.

    def watch(self, descriptor: int, what: Watched, mask: int) -> None:
        """
        From now on notify `what`, and no other object, of the events of `mask` on `descriptor`.

        `what` is notified of the end of the connection in any case.

        :raises OSError: if the kernel refuses.
        """
        if self._epoll is None:
            self._epoll = select.epoll()
            self.reactor.addReader(self)
        if descriptor in self._watched:
            self._epoll.modify(descriptor, mask)
        else:
            self._epoll.register(descriptor, mask)
        self._watched[descriptor] = what

    def hand_over(self, descriptor: int, what: Watched) -> None:
        """From now on, notify `what` of the events on `descriptor`, which is watched already."""
        self._watched[descriptor] = what

    def change(self, descriptor: int, mask: int) -> None:
        """From now on watch `descriptor` for `mask`."""
        assert self._epoll is not None
        self._epoll.modify(descriptor, mask)

    def unwatch(self, descriptor: int) -> None:
        """Stop watching `descriptor`, which is open."""
        if self._watched.pop(descriptor, None) is not None:
            assert self._epoll is not None
            self._epoll.unregister(descriptor)
            self._close_if_unused()

    def forget(self, descriptor: int) -> None:
        """Ignore all events of `descriptor`, which will be closed before this batch is over."""
        self._watched.pop(descriptor, None)

    def read_early(self, end: Readable) -> None:
        """
        At the end of the batch in progress, if there is one, read `end` as if it were ready.

        Most clients speak first.  Then this saves an event, and a server that its new connection
        wakes up finds the first bytes there.  The read is not done at once, because the caller may
        have bytes that must be sent before.
        """
        if not self._in_batch:
            return
        if self._in_vain:
            self._in_vain -= 1
        else:
            self._early.append(end)

    def reads_early(self) -> bool:
        """Whether a client whose relay begins in this batch is read early."""
        return self._in_batch and not self._in_vain

    def will_read(self, end: Readable | None) -> bool:
        """Whether `end` will be read early, and nothing else was to be read early after it."""
        return bool(self._early) and self._early[-1] is end

    def after_batch(self, call: Callable[[], None]) -> None:
        """Call `call` soon: after the batch in progress, or in the reactor's next turn."""
        if not self._later and not self._in_batch:
            self.reactor.callLater(0, self._run_later)
        self._later.append(call)

    def seconds(self) -> float:
        """Return the time; during a batch, the time of its beginning."""
        if not self._in_batch:
            self.now = self.reactor.seconds()
        return self.now

    # Called by the reactor.

    def fileno(self) -> int:
        return self._epoll.fileno() if self._epoll is not None else -1

    def logPrefix(self) -> str:
        return "evproxy"

    def connectionLost(self, reason: Failure) -> None:
        """Nothing to do: the reactor drops all its descriptors, and there is nothing to flush."""

    def doRead(self) -> None:
        """Handle what is ready, in batches."""
        epoll = self._epoll
        if epoll is None:
            return
        # Not the reactor's clock, which may be set back meanwhile.
        until = monotonic() + TURN
        events = epoll.poll(0, BATCH)
        while events:
            self._run_batch(events)
            if self._epoll is not epoll or (now := monotonic()) >= until:
                break
            if self.leads and now >= self._leads_from:
                # Lead from the reactor's next turn on: first the reactor handles its own events.
                self._leads_from = inf
                self.reactor.callLater(0, self._lead)
                break
            if self.lingers and not self.leads:
                turns = self.turns
                events = (
                    epoll.poll(TURN, BATCH)
                    if turns is None
                    else _timed_poll(epoll, TURN, turns, now)
                )
            elif len(events) > 1:
                events = epoll.poll(0, BATCH)
            else:
                break

    def _lead(self) -> None:
        """Handle batches, and wait for them, until the reactor has something to do."""
        self._leads_from = 0.0
        epoll, reactor = self._epoll, self.reactor
        if epoll is None:
            return
        if self._reactors is None:
            self._reactors = reactor_epoll.find(reactor, self)
        # The engine and the reactor must not watch each other at the same time (ELOOP).
        reactor.removeReader(self)
        try:
            if self._reactors is None:
                self.leads = False
            else:
                self._run_until_called(epoll, self._reactors)
        finally:
            # The reactor first handles its own events, without waiting for another batch.
            reactor.callLater(0, self._follow)

    def _run_until_called(self, epoll: select.epoll, reactors: int) -> None:
        since = now = began = monotonic()
        turns = self.turns
        # The turns in between: how many, how long together, and the longest.
        count, taken, longest = 0, 0.0, 0.0
        try:
            epoll.register(reactors, IN)
        except OSError:
            self._leads_from = now + RETRY
            return
        if turns is not None:
            turns.over(now)
        while self._epoll is epoll and now < since + LEAD:
            # This includes the calls that were scheduled within the batch.
            due = self.reactor.timeout()
            if due is None or due > LEAD:
                due = LEAD
            elif not due:
                break
            events = epoll.poll(due, BATCH)
            if turns is not None:
                turns.began = began = monotonic()
            # Other events of this poll are reported again.
            if not events or (reactors, IN) in events:
                break
            self._run_batch(events)
            now = monotonic()
            if turns is not None:
                # Not a call of `turns`, which would cost more than the rest of the watchdog.
                turns.began = inf
                took = now - began
                count += 1
                taken += took
                if took > longest:
                    longest = took
                if took > LONG:
                    turns.took_long(began, took)
        if self._epoll is epoll:
            epoll.unregister(reactors)
        if turns is not None:
            turns.go_on(now, count, taken, longest)
        # If the reactor calls at once each time, leading costs more than it saves.
        if (now := monotonic()) < since + TURN:
            self._leads_from = now + self._pause
            self._pause = min(2 * self._pause, LEAD)
        else:
            self._pause = TURN

    def _follow(self) -> None:
        """Let the reactor watch the engine."""
        if self._epoll is None:
            return
        try:
            self.reactor.addReader(self)
        except OSError:
            self.reactor.callLater(RETRY, self._follow)

    def _run_batch(self, events: list[tuple[int, int]]) -> None:
        self._in_batch = True
        self._handle(events)
        while self._early:
            self._read_early()
        self._in_batch = False
        if self._later:
            self._run_later()

    def _handle(self, events: list[tuple[int, int]]) -> None:
        """Handle one batch of events."""
        self.now = now = self.reactor.seconds()
        get, buffer, view = self._watched.get, self.buffer, self.view
        for descriptor, mask in events:
            end: Any = get(descriptor)
            if end is None:
                continue
            sink = end.sink
            try:
                if sink is None or mask & OUT:
                    end.event(mask)
                    continue
                # The common case, without a call: copy one chunk to a peer that takes it.
                try:
                    count = end.channel.recv_into(buffer)
                except OSError as error:
                    end.read_failed(error)
                    continue
                if not count:
                    end.at_end()
                    continue
                end.active = now
                try:
                    sent = sink.send(buffer if count == CHUNK else view[:count])
                except OSError as error:
                    end.send_failed(error, view[:count])
                    continue
                end.moved += sent
                if sent < count:
                    end.keep(view[sent:count])
                if count == CHUNK:
                    end.filled()
            except BaseException:
                # Catch everything: an exception that leaves `doRead` would end every session.
                _log.failure("An event of a connection broke it")
                self._failed(end)

    def _read_early(self) -> None:
        early, self._early = self._early, []
        self._handle([(end.descriptor, IN) for end in early])
        for end in early:
            if not end.heard:
                self._in_vain = IN_VAIN
            end.was_read_early()

    def _failed(self, end: Watched) -> None:
        try:
            end.event_failed()
        except BaseException:
            _log.failure("The end of a connection broke")

    def _run_later(self) -> None:
        while self._later:
            later, self._later = self._later, []
            for call in later:
                try:
                    call()
                except BaseException:
                    _log.failure("The end of a connection broke")
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if not self._watched and not self._in_batch and self._epoll is not None:
            self.reactor.removeReader(self)
            self._epoll.close()
            self._epoll = None


def _timed_poll(
    epoll: select.epoll, timeout: float, turns: Turns, now: float
) -> list[tuple[int, int]]:
    """Wait for a batch; a turn was over at the monotonic time `now`, and the next begins then."""
    turns.over(now)
    events = epoll.poll(timeout, BATCH)
    turns.began = monotonic()
    return events
