"""The token bucket, against exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evproxy.policy.token_bucket import Rate, TokenBucket

RATES = st.one_of(
    st.floats(1e-9, 1e12),
    st.sampled_from([0.1, 1 / 3, 1.0, 3.0, 7.0, 1000.0, 1e9]),
)
BURSTS = st.one_of(st.integers(1, 20), st.integers(1, 10**9))
MOMENTS = st.lists(st.integers(0, 2**31 * 10**6 - 1), min_size=1, max_size=40)
"""Microseconds, in any order: the clock goes on, stands still and jumps back."""


class Reference:
    """A token bucket as the textbook has it, in fractions."""

    def __init__(self, rate: Rate, tick: int) -> None:
        self.rate, self.burst, self.tick = Fraction(repr(rate.per_second)), rate.burst, tick
        self.level = Fraction(rate.burst)

    def fill(self, tick: int) -> Fraction:
        gained = max(0, tick - self.tick) * self.rate / 10**6
        self.tick, self.level = tick, min(self.level + gained, Fraction(self.burst))
        return self.level


@given(RATES, BURSTS, MOMENTS, st.data())
def test_bucket_is_exact(rate: float, burst: int, ticks: list[int], data: st.DataObject) -> None:
    """Whatever the clock does, the bucket has exactly as many tokens as the rate says."""
    bucket, reference = (
        TokenBucket(Rate(rate, burst), ticks[0] / 1e6),
        Reference(Rate(rate, burst), ticks[0]),
    )
    for tick in ticks:
        now, level = tick / 1e6, reference.fill(tick)
        amount = data.draw(st.integers(0, 2 * burst))
        assert bucket.level(now) == level // 1
        assert bucket.is_full(now) is (level == burst)
        match data.draw(st.sampled_from(["take", "spend", "give back"])):
            case "take":
                assert bucket.take(now, amount) is (level >= amount)
                reference.level -= amount if level >= amount else 0
            case "spend":
                bucket.spend(now, amount)
                reference.level -= amount
            case _:
                bucket.give_back(amount)
                reference.level = min(level + amount, Fraction(burst))


@given(RATES, BURSTS, st.integers(0, 10**15), st.integers(0, 100), st.integers(0, 100))
@example(1e-9, 1, 0, 100, 1)
def test_wait_is_neither_early_nor_late(
    rate: float, burst: int, tick: int, spent: int, amount: int
) -> None:
    """After the wait the tokens are there, and two microseconds before they are not."""
    now = tick / 1e6
    bucket = TokenBucket(Rate(rate, burst), now)
    bucket.spend(now, spent)
    wait = bucket.wait(now, amount)
    wanted = min(amount, burst)
    assert (wait == 0) is (bucket.level(now) >= wanted)
    if 2e-6 < wait < 1e9:
        assert not bucket.take(now + wait - 2e-6, wanted)
    if wait < 1e9:
        assert bucket.take(now + wait, wanted)


def takes(bucket: TokenBucket, now: float) -> int:
    """How many single tokens the bucket gives at once."""
    count = 0
    while bucket.take(now):
        count += 1
    return count


@pytest.mark.parametrize(
    ("moments", "expected"),
    [
        pytest.param([100, 100, 100], [5, 0, 0], id="a clock that stands still"),
        pytest.param([100, 100.4, 100.5, 100.9, 101], [5, 0, 1, 0, 1], id="two in a second"),
        pytest.param([100, 1e9], [5, 5], id="a clock that jumps ahead"),
        pytest.param([100, 40, 40.5, 41], [5, 0, 1, 1], id="a clock that jumps back"),
        pytest.param([100, 100.25, 40, 40.25], [5, 0, 0, 1], id="halves of a token are kept"),
    ],
)
def test_two_in_a_second(moments: list[float], expected: list[int]) -> None:
    """A burst of 5, then what the rate gives, whatever the clock does."""
    bucket = TokenBucket(Rate(2.0, 5), 100.0)
    assert [takes(bucket, now) for now in moments] == expected


def test_no_drift() -> None:
    """A bucket that is asked a million times gives exactly what its rate gives in that time."""
    bucket = TokenBucket(Rate(0.3, 1), 1e6)
    given = sum(bucket.take(1e6 + step / 3000) for step in range(1, 1_000_001))
    assert given == 1 + int(1_000_000 / 3000 * 0.3)


def test_a_debt_is_paid_off() -> None:
    """Tokens that were spent without being there are missing later."""
    bucket = TokenBucket(Rate(10.0, 10), 0.0)
    bucket.spend(0.0, 30)
    assert bucket.level(0.0) == -20
    assert bucket.wait(0.0, 0) == 2.0
    assert bucket.wait(0.0, 1) == pytest.approx(2.1)
    assert bucket.wait(0.0, 1000) == 3.0
    assert not bucket.take(2.05)
    assert bucket.take(2.1)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
def test_wrong_rates(rate: float) -> None:
    """A rate is more than 0 and finite."""
    with pytest.raises(ValueError, match="a rate must be more than 0"):
        Rate(rate, 1)


def test_wrong_burst() -> None:
    """A bucket that holds nothing would never give anything."""
    with pytest.raises(ValueError, match="a burst must be at least 1, not 0"):
        Rate(1.0, 0)
