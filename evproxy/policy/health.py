"""
The rules for the health of an upstream server: active checks, passive ejection, slow start.

Pure: the caller passes the events and the time, and gets the decision.
"""

from __future__ import annotations

import enum

from attrs import define, frozen

from evproxy.settings import Ejection

SLOW_START_FLOOR = 0.1
"""The fraction of its weight with which a server begins slow start, as in Envoy."""


class Health(enum.Enum):
    """The result of active checks.  In the two ``GOING`` states checks are more frequent."""

    UP = "up"
    GOING_DOWN = "going down"
    DOWN = "down"
    GOING_UP = "going up"


@frozen(slots=True)
class Verdict:
    """Active checks changed the state of a server: whether it is `up` now, and `why`."""

    up: bool
    why: str


@define(slots=True)
class CheckedHealth:
    """
    The health of one server by its active checks.

    `rise` successful checks in a row make a server up, `fall` failed checks in a row make it
    down; values below 1 count as 1.  A server starts up, but its very first check decides
    alone.  Otherwise a server that was never healthy would get sessions for `fall` intervals
    (this is HAProxy's default, ``init-state up``).  A server that has been checked before
    starts in `state`.
    """

    rise: int
    fall: int
    state: Health = Health.UP
    _in_a_row: int = 0
    _checked: bool = False

    @property
    def changing(self) -> bool:
        """Whether the server is about to change state, so that the next check comes sooner."""
        return self.state in (Health.GOING_DOWN, Health.GOING_UP)

    def check(self, error: str | None) -> Verdict | None:
        """
        Count the result of a check.

        :param error: ``None`` if the check succeeded, else the reason of the failure.
        :return: the new verdict; ``None`` if the server stays up, or stays down.
        """
        up = self.state in (Health.UP, Health.GOING_DOWN)
        good = error is None
        needed = max(1, self.rise if good else self.fall) if self._checked else 1
        self._checked = True
        if good == up:
            self.state = Health.UP if up else Health.DOWN
            self._in_a_row = 0
            return None
        self._in_a_row += 1
        if self._in_a_row < needed:
            self.state = Health.GOING_DOWN if up else Health.GOING_UP
            return None
        self.state = Health.UP if good else Health.DOWN
        self._in_a_row = 0
        return Verdict(good, f"{error or 'check passed'} ({needed} of {needed})")


@define(slots=True)
class EjectionRecord:
    """
    The passive health of one server.

    Connect failures and resets before the first byte are counted separately.  Otherwise a
    server that accepts every connection and resets it would never be ejected.
    `times` counts the ejections in a row, `until` is the end of the current ejection, and
    `why` is the reason of the last ejection.
    """

    connect_failures: int = 0
    early_resets: int = 0
    times: int = 0
    until: float | None = None
    why: str = ""
    _forgive_at: float = 0.0

    def connect_failed(self) -> int:
        """A connect failed.  Returns how many failed in a row."""
        self.connect_failures += 1
        return self.connect_failures

    def reset_early(self) -> int:
        """The server reset a session before its first byte.  Returns how many in a row."""
        self.early_resets += 1
        return self.early_resets

    def connected(self, now: float, settings: Ejection) -> None:
        """A connect succeeded: count failed connects from 0 again."""
        self.connect_failures = 0
        self._forgive(now, settings)

    def answered(self, now: float, settings: Ejection) -> None:
        """A session ended in which the server sent a byte: count resets from 0 again."""
        self.early_resets = 0
        self._forgive(now, settings)

    def eject(self, now: float, settings: Ejection) -> float:
        """Begin an ejection.  Returns its seconds: `base_time`, doubled for each one in a row."""
        # The bound on the exponent prevents a float overflow for a server that never recovers.
        seconds = min(settings.base_time * 2.0 ** min(self.times, 64), settings.max_time)
        self.times += 1
        self.until = now + seconds
        return seconds

    def readmit(self, now: float, settings: Ejection) -> None:
        """The ejection is over: reset the failure counts, but keep the number of ejections."""
        self.until = None
        self.connect_failures = self.early_resets = 0
        self._forgive_at = now + settings.base_time

    def _forgive(self, now: float, settings: Ejection) -> None:
        """Undo one doubling for each `base_time` of good service, as in Envoy."""
        if self.times and self.until is None and now >= self._forgive_at:
            self.times -= 1
            self._forgive_at = now + settings.base_time


def may_eject(ejected: int, out: int, total: int, max_percent: int) -> bool:
    """
    Whether one more server of a pool may be ejected.

    At most `max_percent` of `total` servers may be out at once.  One server may always be
    ejected, as in Envoy's outlier detection: otherwise 10 % would allow no ejection in a pool
    of nine.  Unlike Envoy, the last server that gets sessions is never ejected, and 0 % allows
    no ejection.

    :param ejected: how many servers are ejected.
    :param out: how many other servers get no sessions: ejected, down, draining or of weight 0.
    """
    if max_percent <= 0 or out + 1 >= total:
        return False
    return ejected == 0 or (out + 1) * 100 <= max_percent * total


def slow_start_part(since: float, now: float, duration: float) -> float:
    """
    The fraction of its weight for a server that came up at `since`.

    The fraction grows linearly from `SLOW_START_FLOOR` to 1 within `duration` seconds.  If
    `duration` is 0 or less, the fraction is 1.
    """
    if duration <= 0:
        return 1.0
    return min(1.0, max(SLOW_START_FLOOR, (now - since) / duration))
