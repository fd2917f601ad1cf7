"""
Bandwidth: how many bytes a direction of a session may move now, and when it may go on.

Pure: the caller passes the time.  A direction has a chain of token buckets, the narrowest
first: its own, its client's and its listener's.  Every byte takes a token from each, so the
strictest rate decides.
"""

from __future__ import annotations

from collections.abc import Sequence

from evproxy.policy.token_bucket import Rate, TokenBucket

BURST_SECONDS = 0.1
"""A bucket holds the bytes of so many seconds: more than the engine's timers are late."""

LEAST_TURN = 1460
"""The least bytes of a bucket and of a turn: what one Ethernet frame carries of a TCP stream."""

MOST_TURN = 64 * 1024
"""The most bytes of a turn: one read of the relay."""


def byte_rate(bytes_per_second: float) -> Rate:
    """
    The rate for a bucket of bytes, with a burst of 0.1 seconds, and at least 1460 bytes.

    :raises ValueError: if `bytes_per_second` is 0 or less.
    """
    return Rate(bytes_per_second, max(LEAST_TURN, int(bytes_per_second * BURST_SECONDS)))


class Shaper:
    """
    One direction of one session.

    While all buckets of the chain have a turn's worth of bytes, the direction moves them at
    once.  Otherwise it waits in line for a turn: it takes the bytes of the turn from the
    narrowest bucket, which gets into debt, and waits until that debt is paid off; then from
    the next bucket.  So directions that share a bucket get their turns in the order in which
    they asked, as in deficit round robin (M. Shreedhar and G. Varghese, 1995), and nobody
    needs a list of those who wait.  A direction that waits for its own narrow bucket takes
    nothing yet from a bucket that others need.

    A turn is what the smallest bucket of the chain holds, at most 64 KiB.  No read is smaller
    than a turn because of a limit.  Directions with the same rates get the same share.

    Up to any time, a bucket lets through at most its burst and what its rate gave by then.  A
    direction may keep one turn that it has not used.

    :param buckets: the chain, the narrowest first; at least one.
    """

    __slots__ = ("_buckets", "_turn", "_place", "_granted", "_ready", "_asked")

    def __init__(self, buckets: Sequence[TokenBucket]) -> None:
        self._buckets = tuple(buckets)
        self._turn = min(MOST_TURN, *(bucket.rate.burst for bucket in self._buckets))
        self._place = 0
        """How many buckets have given the turn, from the narrowest on."""
        self._granted = 0
        """The bytes that are left of a turn that every bucket has given."""
        self._ready = self._asked = 0.0

    def allowance(self, now: float) -> int:
        """The bytes that may move now; 0: none before `resume_at`."""
        if self._granted:
            return self._granted
        if self._place:
            return self._turn if self._has_turn(now) else 0
        least = min([bucket.level(now) for bucket in self._buckets])
        return least if least >= self._turn else 0

    def resume_at(self, now: float) -> float:
        """
        Wait in line if nothing may move now.  Returns when to call `allowance` again.

        `allowance` may be 0 at that time, if the next bucket of the chain has its own line:
        then call `resume_at` again.  Asking twice gives no second turn.
        """
        if self.allowance(now):
            return now
        if not self._place:
            self._ready = self._asked = now
        return now if self._has_turn(now) else self._ready

    def spend(self, now: float, amount: int) -> None:
        """
        `amount` bytes have moved.

        More than `allowance` may have moved, where a transport delivers what it likes: then the
        buckets get into debt, and the direction waits for longer.
        """
        granted = min(amount, self._granted)
        if granted:
            self._granted -= granted
            amount -= granted
            if not self._granted:
                self._place = 0
        if amount:
            for bucket in self._buckets:
                bucket.spend(now, amount)

    def close(self) -> None:
        """The direction has ended: give back what it has taken and not used."""
        unused = self._granted or self._turn
        for bucket in self._buckets[: self._place]:
            bucket.give_back(unused)
        self._place = self._granted = 0

    def _has_turn(self, now: float) -> bool:
        """Go on through the chain as far as the time allows; whether the turn is complete."""
        if now < self._asked:
            # The clock has jumped back: what is left to wait stays the same.
            self._ready -= self._asked - now
        self._asked = now
        while now >= self._ready:
            if self._place == len(self._buckets):
                self._granted = self._turn
                return True
            bucket = self._buckets[self._place]
            bucket.spend(now, self._turn)
            self._ready = now + bucket.wait(now, 0)
            self._place += 1
        return False
