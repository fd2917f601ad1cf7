"""Bandwidth: how much may move, who comes next, and what a chain of limits makes of it."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproxy.policy.shaping import LEAST_TURN, MOST_TURN, Shaper, byte_rate
from evproxy.policy.token_bucket import TokenBucket

MB = 1_000_000.0


def bucket(bytes_per_second: float) -> TokenBucket:
    return TokenBucket(byte_rate(bytes_per_second), 0.0)


def run(shapers: list[Shaper], seconds: float, late: float = 0.0) -> list[int]:
    """The bytes that each shaper lets through when all have bytes at all times."""
    moved = [0] * len(shapers)
    wakes = [(0.0, index) for index in range(len(shapers))]
    for _ in range(1_000_000):
        now, index = heapq.heappop(wakes)
        if now > seconds:
            return moved
        shaper = shapers[index]
        count = min(shaper.allowance(now), MOST_TURN)
        if count:
            shaper.spend(now, count)
            moved[index] += count
            heapq.heappush(wakes, (now, index))
        else:
            resume = shaper.resume_at(now)
            heapq.heappush(wakes, (resume + late if resume > now else now, index))
    raise AssertionError("the shapers let through too much, or ask to be called too often")


@pytest.mark.parametrize(
    ("bytes_per_second", "burst"),
    [(1.0, 1460), (1000.0, 1460), (14_600.0, 1460), (100_000.0, 10_000), (1e9, 100_000_000)],
)
def test_bursts(bytes_per_second: float, burst: int) -> None:
    """A bucket holds a tenth of a second's bytes, and at least a frame's worth."""
    assert byte_rate(bytes_per_second).burst == burst
    assert Shaper([bucket(bytes_per_second)]).allowance(0.0) == burst


@pytest.mark.parametrize("bytes_per_second", [100.0, 5000.0, MB, 1e9])
@pytest.mark.parametrize("late", [0.0, 0.05])
def test_the_rate_is_kept(bytes_per_second: float, late: float) -> None:
    """A direction moves what its rate gives, also if every timer is 50 ms late."""
    seconds = 100.0 if bytes_per_second < MB else 5.0
    [moved] = run([Shaper([bucket(bytes_per_second)])], seconds, late)
    burst = byte_rate(bytes_per_second).burst
    assert moved <= burst + bytes_per_second * seconds
    assert moved >= bytes_per_second * (seconds - late) - burst


def test_no_small_reads() -> None:
    """Nothing moves until a turn's worth of bytes may."""
    shaper = Shaper([bucket(10_000.0)])
    assert shaper.allowance(0.0) == LEAST_TURN
    shaper.spend(0.0, LEAST_TURN - 460)
    assert shaper.allowance(0.0) == 0
    assert shaper.resume_at(0.0) == pytest.approx(0.1)
    assert shaper.allowance(0.0999) == 0
    assert shaper.allowance(0.1) == LEAST_TURN


def test_asking_twice() -> None:
    """To ask again costs nothing, and a turn may be used in pieces."""
    shared = bucket(MB)
    shaper = Shaper([shared])
    shaper.spend(0.0, 100_000)
    assert shaper.resume_at(0.0) == shaper.resume_at(0.01) == pytest.approx(MOST_TURN / MB)
    assert shared.level(0.01) == 10_000 - MOST_TURN
    ready = shaper.resume_at(0.02)
    assert shaper.allowance(ready) == MOST_TURN
    shaper.spend(ready, 1)
    assert shaper.allowance(ready) == MOST_TURN - 1
    assert shaper.resume_at(ready) == ready
    shaper.spend(ready, MOST_TURN - 1)
    assert shaper.allowance(ready) == 0


@pytest.mark.parametrize("late", [0.0, 0.02])
def test_shares_are_fair(late: float) -> None:
    """Directions that share a bucket get the same, and together all that it gives."""
    shared = bucket(10 * MB)
    moved = run([Shaper([shared]) for _ in range(20)], 20.0, late)
    # Whoever is first takes the burst of the start.
    assert max(moved) - min(moved) <= 2 * MOST_TURN + shared.rate.burst
    assert 10 * MB * (20.0 - late) - 20 * MOST_TURN <= sum(moved) <= 10 * MB * 20.1


def test_first_come_first_served() -> None:
    """Directions get their turns in the order in which they asked."""
    shared = bucket(MB)
    shared.spend(0.0, 100_000)
    shapers = [Shaper([shared]) for _ in range(5)]
    ready = [shaper.resume_at(0.0) for shaper in shapers]
    assert ready == pytest.approx([turn * MOST_TURN / MB for turn in range(1, 6)])
    newcomer = Shaper([shared])
    assert newcomer.resume_at(ready[0]) > ready[-1]
    for shaper, when in zip(shapers, ready, strict=True):
        assert shaper.allowance(when - 0.001) == 0
        assert shaper.allowance(when) == MOST_TURN


@pytest.mark.parametrize(
    "rates", [[MB, 5 * MB, 9 * MB], [9 * MB, MB, 5 * MB], [9 * MB, 5 * MB, MB]]
)
def test_the_strictest_decides(rates: list[float]) -> None:
    """The narrowest of a chain decides, wherever it is."""
    [moved] = run([Shaper(list(map(bucket, rates)))], 10.0)
    assert 0.95 * 10 * MB <= moved <= 10.1 * MB


def test_a_narrow_client_does_not_hold_up_others() -> None:
    """A client with many sessions and little bandwidth takes no more of its listener's."""
    listener, client = bucket(10 * MB), bucket(0.1 * MB)
    crowd = [Shaper([client, listener]) for _ in range(500)]
    moved = run([*crowd, Shaper([listener])], 5.0)
    assert sum(moved[:-1]) <= 0.1 * MB * 5.1
    assert moved[-1] >= 0.95 * (10 - 0.1) * MB * 5


def test_what_moved_beyond_is_missing_later() -> None:
    """A transport that delivers more than allowed makes its direction wait for longer."""
    shaper = Shaper([bucket(MB)])
    shaper.spend(0.0, 600_000)
    assert shaper.allowance(0.5) == 0
    assert shaper.resume_at(0.5) == pytest.approx(0.5 + MOST_TURN / MB)
    shaper.spend(0.5, 1_000_000)
    ready = shaper.resume_at(0.5)
    shaper.spend(ready, shaper.allowance(ready))
    assert shaper.resume_at(ready) == pytest.approx(1.5 + 2 * MOST_TURN / MB)


@pytest.mark.parametrize("granted", [False, True])
def test_an_end_gives_back(granted: bool) -> None:
    """A direction that ends leaves the bytes that it did not use to the others."""
    narrow, wide = bucket(MB), bucket(2 * MB)
    shaper = Shaper([narrow, wide])
    shaper.spend(0.0, 100_000)
    now = shaper.resume_at(0.0)
    assert wide.level(0.0) == 100_000
    if granted:
        assert shaper.allowance(now) == MOST_TURN
        shaper.spend(now, 1000)
    shaper.close()
    used = 1000 if granted else 0
    assert narrow.level(now) == int(MB * now) - used
    assert wide.level(now) == 200_000 - used
    shaper.close()
    assert narrow.level(now) == int(MB * now) - used


def test_a_clock_that_jumps_back() -> None:
    """A direction that waits goes on waiting for what was left, not until the old time."""
    shaper = Shaper([bucket(MB)])
    shaper.spend(0.0, 100_000)
    now = 1000.0
    shaper.spend(now, 100_000)
    ready = shaper.resume_at(now)
    assert shaper.resume_at(10.0) == pytest.approx(10.0 + ready - now)
    assert shaper.allowance(10.0 + (ready - now) / 2) == 0
    assert shaper.allowance(10.001 + ready - now) == MOST_TURN


def test_a_clock_that_stands_still() -> None:
    """While no time passes, a direction moves its burst and no more."""
    shaper = Shaper([bucket(MB)])
    moved = 0
    for _ in range(100):
        count = shaper.allowance(5.0)
        shaper.spend(5.0, count)
        moved += count
        shaper.resume_at(5.0)
    assert moved == 100_000


@given(
    st.lists(st.sampled_from([2000.0, 50_000.0, MB]), min_size=1, max_size=3),
    st.lists(
        st.tuples(st.integers(0, 3), st.floats(0, 0.5), st.sampled_from([0.1, 1.0])), max_size=80
    ),
)
def test_no_bucket_gives_more_than_it_has(
    rates: list[float], steps: list[tuple[int, float, float]]
) -> None:
    """Whoever asks and whenever, all that moved is within the burst and the rate of each bucket."""
    buckets = list(map(bucket, rates))
    shapers = [Shaper(buckets) for _ in range(4)]
    moved, now = 0, 0.0
    for index, pause, part in steps:
        now += pause
        shaper = shapers[index]
        count = int(shaper.allowance(now) * part)
        shaper.spend(now, count)
        moved += count
        if not shaper.allowance(now):
            assert shaper.resume_at(now) >= now
        for each in buckets:
            assert moved <= each.rate.burst + each.rate.per_second * (now + 1e-6)
