"""
When a fault is active: by time, and by the bytes that came before.  Decisions without a clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from evproxy.settings.fault import FaultSettings


def starts_active(fault: FaultSettings) -> bool:
    """Whether `fault` is active, as far as time goes, when its session begins to relay."""
    return fault.after == 0


def next_turn(fault: FaultSettings, active: bool, first: bool) -> float | None:
    """
    How many seconds `fault` stays as it is; ``None``: for ever.

    :param active: whether it is active now.
    :param first: whether it has not been active before now.
    """
    if active:
        return fault.lasts or None
    if first:
        return fault.after
    return fault.every - fault.lasts if fault.every > fault.lasts else None


def active_for(fault: FaultSettings, age: float) -> float:
    """
    How many seconds `fault`, which is about connects, stays active; 0 if it is not active now.

    :param age: the seconds since it was injected.
    """
    if age < fault.after:
        return 0.0
    if not fault.lasts:
        return inf
    into = age - fault.after
    if fault.every:
        into %= fault.every
    return max(0.0, fault.lasts - into)


class ByteWindow:
    """
    The bytes of a stream for which a fault is active: those after `after_bytes`, until
    `until_bytes`.
    """

    __slots__ = ("_begin", "_end", "_seen")

    def __init__(self, fault: FaultSettings) -> None:
        self._begin = fault.after_bytes
        self._end: int | None = fault.until_bytes or None
        self._seen = 0

    def go_on_from(self, other: ByteWindow) -> None:
        """Count the bytes that `other` has seen, too."""
        self._seen += other._seen

    @property
    def entered(self) -> bool:
        """Whether a byte has come that is not before `after_bytes`."""
        return self._seen > self._begin

    @property
    def open(self) -> bool:
        """Whether the fault is active for the next byte, or for an end."""
        return self._seen >= self._begin and (self._end is None or self._seen < self._end)

    def split(self, data: bytes) -> Iterator[tuple[bytes, bool]]:
        """The parts of `data`, the next bytes of the stream, each with whether it is inside."""
        while data:
            if self._seen < self._begin:
                count = self._begin - self._seen
            elif self.open and self._end is not None:
                count = self._end - self._seen
            else:
                count = len(data)
            inside = self.open
            part, data = data[:count], data[count:]
            self._seen += len(part)
            yield part, inside
