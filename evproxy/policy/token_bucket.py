"""
The token bucket: a rate that is kept on average, and a burst that may exceed the rate.

Pure: the caller passes the time.  The algorithm is the token bucket of RFC 2697 and RFC 2698,
which accepts what the leaky bucket of ITU-T I.371 (GCRA) accepts.
"""

from __future__ import annotations

import math
from fractions import Fraction

from attrs import field, frozen

_TICKS = 1_000_000
"""Ticks of a second: the time counts in whole microseconds."""


@frozen(slots=True)
class Rate:
    """
    How many tokens a bucket gets in a second, and how many it holds; shared by many buckets.

    `per_second` is more than 0, and `burst` at least 1.  The decimal number that stands for
    `per_second` counts: 0.1 is one token in 10 seconds exactly.

    :raises ValueError: if a value is lower, or not finite.
    """

    per_second: float = field()
    burst: int = field()
    # Buckets count in units of which a token and the gain of a tick are whole numbers: so no
    # rounding error adds up, however long a bucket lives.
    token: int = field(init=False, eq=False, repr=False)
    gain: int = field(init=False, eq=False, repr=False)
    capacity: int = field(init=False, eq=False, repr=False)

    @per_second.validator
    def _check_rate(self, _: object, value: float) -> None:
        if not 0 < value < math.inf:
            raise ValueError(f"a rate must be more than 0 and finite, not {value}")

    @burst.validator
    def _check_burst(self, _: object, value: int) -> None:
        if value < 1:
            raise ValueError(f"a burst must be at least 1, not {value}")

    def __attrs_post_init__(self) -> None:
        exact = Fraction(repr(self.per_second))
        token = exact.denominator * _TICKS
        object.__setattr__(self, "token", token)
        object.__setattr__(self, "gain", exact.numerator)
        object.__setattr__(self, "capacity", self.burst * token)


class TokenBucket:
    """
    A bucket, which is full at first.

    Times are seconds of one clock, below 2**31.  While the clock stands still the bucket gets
    nothing.  A clock that jumps back gives nothing and takes nothing: the bucket goes on from
    the new time.  A clock that jumps ahead fills the bucket at most.

    :param rate: the rate and the burst.
    :param now: the time.
    """

    __slots__ = ("rate", "_units", "_tick")

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self._units = rate.capacity
        self._tick = int(now * _TICKS + 0.5)

    def level(self, now: float) -> int:
        """How many whole tokens the bucket has; below 0 if it is in debt."""
        return self._filled(now) // self.rate.token

    def is_full(self, now: float) -> bool:
        """Whether the bucket is as good as new."""
        return self._filled(now) == self.rate.capacity

    def take(self, now: float, amount: int = 1) -> bool:
        """Take `amount` tokens if the bucket has them; otherwise take none."""
        left = self._filled(now) - amount * self.rate.token
        if left < 0:
            return False
        self._units = left
        return True

    def spend(self, now: float, amount: int) -> None:
        """Take `amount` tokens in any case: the bucket may get into debt."""
        self._units = self._filled(now) - amount * self.rate.token

    def give_back(self, amount: int) -> None:
        """Put `amount` tokens back, of which those that find no room are lost."""
        rate = self.rate
        self._units = min(rate.capacity, self._units + amount * rate.token)

    def wait(self, now: float, amount: int = 1) -> float:
        """
        The seconds until the bucket has `amount` tokens, or is full if it never has so many.

        0.0 if it has them now, or else at least a microsecond.  Then `take` succeeds, unless
        somebody else takes tokens first.
        """
        rate = self.rate
        missing = min(amount * rate.token, rate.capacity) - self._filled(now)
        if missing <= 0:
            return 0.0
        return (self._tick - missing // -rate.gain) / _TICKS - now

    def _filled(self, now: float) -> int:
        tick = int(now * _TICKS + 0.5)
        elapsed = tick - self._tick
        if elapsed:
            self._tick = tick
            if elapsed > 0:
                rate = self.rate
                self._units = min(rate.capacity, self._units + elapsed * rate.gain)
        return self._units
