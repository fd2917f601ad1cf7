"""Stages of sessions under test."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from evproxy.model import Side
from evproxy.relay.stages import PassThrough


class Shift(PassThrough):
    """Adds `by` to each byte."""

    def __init__(self, by: int) -> None:
        self._table = bytes((byte + by) % 256 for byte in range(256))

    def upload(self, data: bytes) -> None:
        super().upload(data.translate(self._table))

    def download(self, data: bytes) -> None:
        super().download(data.translate(self._table))


class Later(PassThrough):
    """Passes everything on in a later turn of the reactor, and records the most bytes it held."""

    def __init__(self, reactor: Any, seconds: float = 0) -> None:
        self._reactor = reactor
        self._seconds = seconds
        self._waiting: dict[Side, deque[bytes | None]] = {side: deque() for side in Side}
        self._timers: dict[Side, IDelayedCall] = {}
        self.most = 0

    def upload(self, data: bytes) -> None:
        self._add(Side.DOWNSTREAM, data)

    def download(self, data: bytes) -> None:
        self._add(Side.UPSTREAM, data)

    def ended(self, side: Side) -> None:
        self._add(side, None)

    def held(self, side: Side) -> int:
        held = sum(len(each) for each in self._waiting[side] if each)
        self.most = max(self.most, held)
        return held

    def flush(self, side: Side) -> None:
        timer = self._timers.pop(side, None)
        if timer is not None:
            timer.cancel()
            while self._waiting[side]:
                self._pass_one(side)

    def closed(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        super().closed()

    def _add(self, side: Side, what: bytes | None) -> None:
        self._waiting[side].append(what)
        if side not in self._timers:
            self._timers[side] = self._reactor.callLater(self._seconds, self._pass, side)

    def _pass(self, side: Side) -> None:
        del self._timers[side]
        self._pass_one(side)
        if self._waiting[side] and side not in self._timers:
            self._timers[side] = self._reactor.callLater(self._seconds, self._pass, side)

    def _pass_one(self, side: Side) -> None:
        what = self._waiting[side].popleft()
        if what is None:
            self.outlets[side].end()
        else:
            self.outlets[side].pass_on(what)
