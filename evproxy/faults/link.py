"""
A link: one fault at work on one stream of one session.

The links of a stream form a chain.  Bytes, the end of the stream and the loss of its connection
pass from link to link in their order, and so each link may change, delay or drop them.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Protocol

from attrs import define
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from evproxy.faults.schedule import ByteWindow, next_turn, starts_active
from evproxy.settings.fault import FaultSettings


class Taker(Protocol):
    """Takes what a link passes on: the next link, or what is behind the chain."""

    def feed(self, data: bytes) -> None:
        """Bytes of the stream."""

    def end(self) -> None:
        """The stream has ended in order."""

    def lost(self) -> None:
        """The connection of the stream's source is lost; nothing more follows."""

    def close_session(self, reset: bool) -> None:
        """
        A link before this one ends the session, behind the bytes that it has passed on.

        :param reset: whether both connections are reset, and not ended in order.
        """


@define
class Surroundings:
    """
    What a link knows of its session.

    `clock` tells the time, and calls later.  `random` is the link's own source of chance.
    `answer` sends bytes to the source of the stream.  `begun`: whether bytes of the stream have
    come to where the link begins.  `freed` is called when a link holds fewer bytes than before.
    """

    clock: IReactorTime
    random: Random
    answer: Callable[[bytes], None]
    begun: bool
    freed: Callable[[], None]


class Link:
    """
    A fault that leaves everything alone; the base class of all links.

    :param fault: the settings.
    :param around: what it knows of its session.

    `to` takes what the link passes on.  `begun`: whether bytes of the stream that are not before
    `after_bytes` have come already.
    """

    to: Taker

    def __init__(self, fault: FaultSettings, around: Surroundings) -> None:
        self.fault = fault
        self.around = around
        self._window = ByteWindow(fault)
        self._in_time = starts_active(fault)
        self._turns: IDelayedCall | None = None
        self._over = False
        self.begun = around.begun

    def follow(self, before: Link) -> None:
        """The link takes the place of `before`, in the same stream; called before `start`."""
        self._window.go_on_from(before._window)
        self.begun = before.begun or self._window.entered

    def start(self) -> None:
        """The link is in its chain."""
        self._turn_later(first=True)
        if self.active:
            self.begin()

    @property
    def active(self) -> bool:
        """Whether the fault acts on what comes next."""
        return self._in_time and self._window.open

    # From the chain.

    def feed(self, data: bytes) -> None:
        for part, inside in self._window.split(data):
            if inside and self._in_time:
                self.take(part)
            else:
                self.skip(part)
            if self._over:
                return
            self.begun = self.begun or self._window.entered
            if self._in_time and self._window.open is not inside:
                if inside:
                    self.leave_window()
                else:
                    self.begin()

    def end(self) -> None:
        if self.active:
            self.take_end()
        else:
            self.skip_end()

    def lost(self) -> None:
        if self.active:
            self.take_lost()
        else:
            self.skip_lost()

    def close_session(self, reset: bool) -> None:
        if self.active:
            self.take_close(reset)
        else:
            self.skip_close(reset)

    # What a fault does; subclasses change these.

    held = 0
    """How many bytes the link will pass on later."""

    def take(self, data: bytes) -> None:
        """Bytes came while the fault is active."""
        self.to.feed(data)

    def take_end(self) -> None:
        """The stream ended while the fault is active."""
        self.to.end()

    def take_lost(self) -> None:
        """The connection was lost while the fault is active."""
        self.to.lost()

    def take_close(self, reset: bool) -> None:
        """A link before this one ends the session while the fault is active."""
        self.to.close_session(reset)

    def skip_close(self, reset: bool) -> None:
        """A link before this one ends the session while the fault is not active."""
        self.to.close_session(reset)

    def skip(self, data: bytes) -> None:
        """Bytes came while the fault is not active."""
        self.to.feed(data)

    def skip_end(self) -> None:
        """The stream ended while the fault is not active."""
        self.to.end()

    def skip_lost(self) -> None:
        """The connection was lost while the fault is not active."""
        self.to.lost()

    def begin(self) -> None:
        """The fault becomes active: at the start, at its time or behind a byte."""

    def release(self) -> None:
        """The fault is active no longer: pass on what is held."""

    def leave_window(self) -> None:
        """The last byte of the window has come: the fault leaves alone what follows."""
        self.release()

    def replaced(self, by: Link) -> None:
        """`by` takes the place of the link, which is closed then; called before `by.follow`."""
        self.release()

    def removed(self) -> None:
        """The fault is removed from the session, which goes on: the last call but `close`."""
        self.release()

    def close(self) -> None:
        """The session is over, or the link is removed: cancel all timers."""
        self._over = True
        if self._turns is not None:
            self._turns.cancel()
            self._turns = None

    def _turn_later(self, first: bool) -> None:
        seconds = next_turn(self.fault, self._in_time, first)
        if seconds is not None:
            self._turns = self.around.clock.callLater(seconds, self._turn)

    def _turn(self) -> None:
        self._turns = None
        self._in_time = not self._in_time
        self._turn_later(first=False)
        if not self._in_time:
            self.release()
        elif self._window.open:
            self.begin()
