"""
When an upstream server counts as well: active checks, passive ejection, slow start.

Pure: what happened and the time go in, what follows comes out.
"""

from __future__ import annotations

import enum

from attrs import define, frozen

from evproxy.settings import Ejection

SLOW_START_FLOOR = 0.1
"""The least part of its weight that a server in slow start has, as in Envoy."""


class Health(enum.Enum):
    """What active checks say of a server; in the two states between they are repeated faster."""

    UP = "up"
    GOING_DOWN = "going down"
    DOWN = "down"
    GOING_UP = "going up"


@frozen(slots=True)
class Verdict:
    """Active checks changed their mind: the server is `up` or not, and `why`."""

    up: bool
    why: str


@define(slots=True)
class CheckedHealth:
    """
    The health of one server by its active checks.

    `rise` good checks in a row make a server up, `fall` bad ones in a row make it down;
    less than 1 counts as 1.  A server starts up, but the first check of all decides alone,
    so that one that was never well is not given sessions for `fall` intervals (HAProxy's
    ``init-state up``, its default).  It starts as `state` where it has been checked before.
    """

    rise: int
    fall: int
    state: Health = Health.UP
    _in_a_row: int = 0
    _checked: bool = False

    @property
    def changing(self) -> bool:
        """Whether the next check is worth hurrying."""
        return self.state in (Health.GOING_DOWN, Health.GOING_UP)

    def check(self, error: str | None) -> Verdict | None:
        """
        Take the result of a check.

        :param error: ``None`` if it was good, else what was wrong.
        :return: what it changed, ``None`` if the server is what it was.
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

    Connect failures and resets before the first byte are counted apart: a server that
    accepts every connection and resets it would otherwise never be found out.
    `times` counts the ejections in a row, `until` is when the one in progress ends, and
    `why` says what the last one was for.
    """

    connect_failures: int = 0
    early_resets: int = 0
    times: int = 0
    until: float | None = None
    why: str = ""
    _forgive_at: float = 0.0

    def connect_failed(self) -> int:
        """A connect failed; the number in a row."""
        self.connect_failures += 1
        return self.connect_failures

    def reset_early(self) -> int:
        """A session ended with an upstream reset before any byte came; the number in a row."""
        self.early_resets += 1
        return self.early_resets

    def connected(self, now: float, settings: Ejection) -> None:
        """A connect succeeded: the row of failed ones is over."""
        self.connect_failures = 0
        self._forgive(now, settings)

    def answered(self, now: float, settings: Ejection) -> None:
        """A session ended in which the server sent something: the row of resets is over."""
        self.early_resets = 0
        self._forgive(now, settings)

    def eject(self, now: float, settings: Ejection) -> float:
        """Begin an ejection; the seconds it lasts: `base_time`, doubled with each in a row."""
        # Bounding the exponent keeps a server that never recovers from overflowing a float.
        seconds = min(settings.base_time * 2.0 ** min(self.times, 64), settings.max_time)
        self.times += 1
        self.until = now + seconds
        return seconds

    def readmit(self, now: float, settings: Ejection) -> None:
        """The ejection is over: counting starts anew, but how often it happened is kept."""
        self.until = None
        self.connect_failures = self.early_resets = 0
        self._forgive_at = now + settings.base_time

    def _forgive(self, now: float, settings: Ejection) -> None:
        """One doubling is taken back for each `base_time` of service, as in Envoy."""
        if self.times and self.until is None and now >= self._forgive_at:
            self.times -= 1
            self._forgive_at = now + settings.base_time


def may_eject(ejected: int, out: int, total: int, max_percent: int) -> bool:
    """
    Whether one more server of a pool may be ejected.

    At most `max_percent` of `total` are out at once, but one always may be ejected, as in
    Envoy's outlier detection (a bound of 10 % would otherwise do nothing in a pool of nine).
    Beyond Envoy: the last server that gets sessions never is, and with 0 % none is.

    :param ejected: how many are.
    :param out: how many others get no sessions: those, and what is down, draining or without
        weight.
    """
    if max_percent <= 0 or out + 1 >= total:
        return False
    return ejected == 0 or (out + 1) * 100 <= max_percent * total


def slow_start_part(since: float, now: float, duration: float) -> float:
    """
    The part of its weight that a server has that came up at `since`.

    Grows linearly from `SLOW_START_FLOOR` to 1 within `duration` seconds; of 0 or less: 1.
    """
    if duration <= 0:
        return 1.0
    return min(1.0, max(SLOW_START_FLOOR, (now - since) / duration))
