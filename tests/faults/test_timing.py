"""When bytes pass a fault that delays them."""

from __future__ import annotations

from math import inf
from random import Random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproxy.faults import FaultSettings, bandwidth, latency, slicer, slow_close
from evproxy.faults.schedule import ByteWindow, next_turn, starts_active
from evproxy.faults.timing import LONGEST_TAIL, TICK, Bandwidth, Latency, Slicer, SlowClose, draw

DRAWS = 20_000


@pytest.mark.parametrize(
    ("distribution", "lowest", "highest", "mean"),
    [
        ("uniform", 0.15, 0.25, 0.2),
        ("normal", 0.0, 0.5, 0.2),
        ("pareto", 0.2, 0.2 + 0.05 * LONGEST_TAIL, 0.25),
    ],
)
def test_distributions_of_jitter(
    distribution: str, lowest: float, highest: float, mean: float
) -> None:
    """Each distribution has its bounds and its mean."""
    random = Random(7)
    drawn = [draw(latency(0.2, 0.05, distribution=distribution), random) for _ in range(DRAWS)]
    assert lowest <= min(drawn)
    assert max(drawn) <= highest
    assert fmean(drawn) == pytest.approx(mean, abs=0.003)
    assert len(set(drawn)) > DRAWS / 2


@pytest.mark.parametrize("distribution", ["uniform", "normal", "pareto"])
def test_a_latency_is_never_negative(distribution: str) -> None:
    """However large the jitter, nothing goes before it came."""
    random = Random(7)
    fault = latency(0.0, 5.0, distribution=distribution)
    assert min(draw(fault, random) for _ in range(1000)) >= 0


def test_without_jitter_nothing_is_drawn() -> None:
    """The latency is exact."""
    timing = Latency(latency(0.2), Random(7))
    assert timing.piece(10.0, 500) == (10.2, 500)
    assert timing.end(11.0) == 11.2


def test_a_bandwidth_takes_its_time_for_each_byte() -> None:
    """Chunks follow each other on a line, in pieces of a tenth of a second at the most."""
    timing = Bandwidth(bandwidth(1000), Random(7))
    times, sizes = zip(*(timing.piece(5.0, left) for left in (250, 150, 50)), strict=True)
    assert sizes == (100, 100, 50)
    assert times == pytest.approx((5.0 + TICK, 5.2, 5.25))
    assert timing.end(5.0) == pytest.approx(5.25)
    assert timing.piece(9.0, 10)[0] == pytest.approx(9.01)


def test_a_bandwidth_of_0_lets_nothing_pass() -> None:
    """Neither bytes nor the end."""
    timing = Bandwidth(bandwidth(0), Random(7))
    assert timing.piece(5.0, 250) == (inf, 250)
    assert timing.end(5.0) == inf


def test_a_very_low_bandwidth_passes_single_bytes() -> None:
    """A piece has one byte at least."""
    assert Bandwidth(bandwidth(1), Random(7)).piece(0.0, 9) == (1.0, 1)


@given(size=st.integers(1, 5000), average=st.integers(1, 300), variation=st.integers(0, 400))
def test_slices_make_up_the_chunk(size: int, average: int, variation: int) -> None:
    """Every slice has a byte at least, and they come in steps of the delay."""
    timing = Slicer(slicer(average, variation, delay=0.5), Random(7))
    left, times = size, []
    while left:
        when, count = timing.piece(1.0, left)
        assert 1 <= count <= min(left, average + variation)
        times.append(when)
        left -= count
    assert times == [1.0 + 0.5 * number for number in range(len(times))]


def test_a_slow_close_delays_the_end_only() -> None:
    """Bytes go when they come."""
    timing = SlowClose(slow_close(3.0), Random(7))
    assert timing.piece(1.0, 5) == (1.0, 5)
    assert timing.end(1.0) == 4.0


@pytest.mark.parametrize(
    ("keys", "active", "expected"),
    [
        ({}, True, [None]),
        ({"after": 2.0}, False, [2.0, None]),
        ({"lasts": 3.0}, True, [3.0, None]),
        ({"after": 2.0, "lasts": 3.0}, False, [2.0, 3.0, None]),
        ({"after": 2.0, "lasts": 3.0, "every": 10.0}, False, [2.0, 3.0, 7.0, 3.0, 7.0]),
        ({"lasts": 1.0, "every": 4.0}, True, [1.0, 3.0, 1.0, 3.0]),
    ],
)
def test_turns_of_a_schedule(
    keys: dict[str, float], active: bool, expected: list[float | None]
) -> None:
    """A fault becomes active after a time, for a time, again and again."""
    fault = FaultSettings("stall", **keys)  # type: ignore[arg-type]
    assert starts_active(fault) is active
    turns = []
    for number, _ in enumerate(expected):
        turns.append(next_turn(fault, active, number == 0))
        active = not active
    assert turns == expected


@given(
    data=st.binary(max_size=60),
    pieces=st.lists(st.integers(1, 9), max_size=60),
    after=st.integers(0, 40),
    inside=st.integers(0, 30),
)
def test_the_window_of_bytes_is_exact(
    data: bytes, pieces: list[int], after: int, inside: int
) -> None:
    """However the bytes come, exactly those of the window are inside."""
    until = after + inside if inside else 0
    window = ByteWindow(FaultSettings("stall", after_bytes=after, until_bytes=until))
    found: list[bool] = []
    passed, left = b"", data
    for size in [*pieces, len(data) or 1]:
        piece, left = left[:size], left[size:]
        for part, within in window.split(piece):
            passed += part
            found += [within] * len(part)
    assert passed == data
    places = range(len(data))
    assert found == [after <= place < (until or len(data)) for place in places]
