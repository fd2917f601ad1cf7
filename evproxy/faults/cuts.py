"""
The links that cut a stream off after a number of bytes.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall

from evproxy.faults.link import Link, Surroundings
from evproxy.settings.fault import FaultSettings


class CutLink(Link):
    """A link that does something once exactly `bytes` bytes have passed; it drops the rest."""

    def __init__(self, fault: FaultSettings, around: Surroundings) -> None:
        super().__init__(fault, around)
        self._left = fault.bytes
        self._cut = False
        # Whether something is missing behind the bytes that have passed: nothing may follow them.
        self._gap = False
        self._passed = 0

    def follow(self, before: Link) -> None:
        super().follow(before)
        if isinstance(before, CutLink):
            self._passed = before._passed
            self._left = max(0, self._left - self._passed)
            if type(before) is type(self) and before._cut and (before._gap or not self._left):
                self._left = 0
                self._cut, self._gap = True, before._gap

    def replaced(self, by: Link) -> None:
        if type(by) is not type(self):
            self.removed()

    def take(self, data: bytes) -> None:
        passed, dropped = data[: self._left], data[self._left :]
        if dropped:
            self._gap = True
        if passed:
            self._left -= len(passed)
            self._passed += len(passed)
            self.to.feed(passed)
        if not self._left:
            self.cut_once()

    def skip(self, data: bytes) -> None:
        if self._cut:
            self._gap = True
        else:
            self.to.feed(data)

    def cut_once(self) -> None:
        """Cut, unless that is done."""
        if not self._cut and not self._over:
            self._cut = True
            self.cut()

    def cut(self) -> None:
        """The bytes have passed."""

    def removed(self) -> None:
        if self._gap:
            self.to.close_session(False)


class LimitLink(CutLink):
    """Both connections end in order."""

    def cut(self) -> None:
        self._gap = True
        self.to.close_session(False)


class EndLink(CutLink):
    """The stream ends."""

    def cut(self) -> None:
        self._gap = True
        self.to.end()

    def take_end(self) -> None:
        if not self._cut:
            self.to.end()

    skip_end = take_end

    def removed(self) -> None:
        """The stream has ended, and the other one goes on."""


class ResetLink(CutLink):
    """Both connections are reset, after a delay."""

    def __init__(self, fault: FaultSettings, around: Surroundings) -> None:
        super().__init__(fault, around)
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        super().start()
        if self._cut:
            self.cut()

    def cut(self) -> None:
        self._timer = self.around.clock.callLater(self.fault.delay, self._reset)

    def take_end(self) -> None:
        if not self._left:
            self.cut_once()
        self.skip_end()

    def skip_end(self) -> None:
        if self._cut:
            self._gap = True
        else:
            self.to.end()

    def take_lost(self) -> None:
        # A transport that ends whole (TLS 1.2, a wrapper) is lost at the end of its stream.
        if not self._left:
            self.cut_once()
        self.skip_lost()

    def skip_lost(self) -> None:
        # The reset that is to come is noticed in place of this loss.
        if self._timer is None:
            self.to.lost()
        else:
            self._gap = True

    def _reset(self) -> None:
        self._timer = None
        self.to.close_session(True)

    def removed(self) -> None:
        if self._gap:
            self.to.close_session(True)

    def close(self) -> None:
        super().close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
