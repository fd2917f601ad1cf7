"""
The links of all kinds of faults, by kind.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall

from evproxy.faults.corruption import Corruption
from evproxy.faults.cuts import CutLink, EndLink, LimitLink, ResetLink
from evproxy.faults.link import Link, Surroundings
from evproxy.faults.queue import QueueLink
from evproxy.faults.timing import Bandwidth, Latency, Slicer, SlowClose, Stall
from evproxy.settings.fault import FaultSettings

HANDSHAKE = 22
"""The first byte of a TLS record of a handshake (RFC 8446, section 5.1)."""

HANDSHAKE_FAILURE = bytes((21, 3, 3, 0, 2, 2, 40))
"""A TLS record with the fatal alert handshake_failure (RFC 8446, sections 5.1 and 6)."""


class CorruptLink(Link):
    """Some bytes are changed."""

    def __init__(self, fault: FaultSettings, around: Surroundings) -> None:
        super().__init__(fault, around)
        self._corruption = Corruption(fault.share, around.random)

    def take(self, data: bytes) -> None:
        self.to.feed(self._corruption.change(data))


class TimeoutLink(Link):
    """Everything is dropped, and the session ends when nothing has come for a time."""

    def __init__(self, fault: FaultSettings, around: Surroundings) -> None:
        super().__init__(fault, around)
        self._timer: IDelayedCall | None = None
        self._dropped = False

    def follow(self, before: Link) -> None:
        super().follow(before)
        if isinstance(before, TimeoutLink):
            self._dropped = before._dropped

    def start(self) -> None:
        super().start()
        if not self.active:
            self.release()

    def begin(self) -> None:
        self._wait()

    def take(self, data: bytes) -> None:
        self._dropped = True
        self._wait()

    def take_end(self) -> None:
        self._dropped = True

    def take_lost(self) -> None:
        self._dropped = True

    def _wait(self) -> None:
        if not self.fault.timeout:
            return
        if self._timer is None:
            self._timer = self.around.clock.callLater(self.fault.timeout, self._reached)
        else:
            self._timer.reset(self.fault.timeout)

    def _reached(self) -> None:
        self._timer = None
        self.to.close_session(False)

    def release(self) -> None:
        # What comes next would follow a gap.
        if self._dropped:
            self.to.close_session(False)
        else:
            self._cancel()

    def replaced(self, by: Link) -> None:
        if not isinstance(by, TimeoutLink):
            self.release()

    def removed(self) -> None:
        self.to.close_session(False)

    def close(self) -> None:
        super().close()
        self._cancel()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class HalfOpenLink(Link):
    """The end and the loss are kept back."""

    def __init__(self, fault: FaultSettings, around: Surroundings) -> None:
        super().__init__(fault, around)
        self._ended = self._lost = False

    def take(self, data: bytes) -> None:
        # An `end` before this link, which has been removed, passed the end on already.
        if not self._ended:
            self.to.feed(data)

    def take_end(self) -> None:
        self._ended = True

    def take_lost(self) -> None:
        self._lost = True

    def release(self) -> None:
        if self._ended:
            self._ended = False
            self.to.end()
        if self._lost:
            self._lost = False
            self.to.lost()


class TLSFailureLink(Link):
    """A client that begins with TLS gets an alert, and both connections end."""

    def take(self, data: bytes) -> None:
        if not self.begun and data[0] == HANDSHAKE:
            self.around.answer(HANDSHAKE_FAILURE)
            self.to.close_session(False)
        else:
            self.to.feed(data)


class TLSStallLink(QueueLink):
    """A stall, for streams that begin with TLS."""

    _is_tls = False

    def follow(self, before: Link) -> None:
        super().follow(before)
        if isinstance(before, TLSStallLink):
            self._is_tls = before._is_tls

    def take(self, data: bytes) -> None:
        if not self.begun:
            self._is_tls = data[0] == HANDSHAKE
        if self._is_tls:
            super().take(data)
        else:
            self.skip(data)

    def take_end(self) -> None:
        if self._is_tls:
            super().take_end()
        else:
            self.skip_end()

    def take_lost(self) -> None:
        if self._is_tls:
            super().take_lost()
        else:
            self.skip_lost()


def _queued(timing: type, link: type[QueueLink] = QueueLink) -> LinkMaker:
    def make(fault: FaultSettings, around: Surroundings) -> Link:
        return link(fault, around, timing(fault, around.random))

    return make


LinkMaker = Callable[[FaultSettings, Surroundings], Link]

LINKS: dict[str, LinkMaker] = {
    "latency": _queued(Latency),
    "bandwidth": _queued(Bandwidth),
    "slicer": _queued(Slicer),
    "slow-close": _queued(SlowClose),
    "stall": _queued(Stall),
    "timeout": TimeoutLink,
    "half-open": HalfOpenLink,
    "limit": LimitLink,
    "end": EndLink,
    "reset": ResetLink,
    "truncate": CutLink,
    "corrupt": CorruptLink,
    "tls-failure": TLSFailureLink,
    "tls-stall": _queued(Stall, TLSStallLink),
}
"""What makes the link of each kind of fault."""
