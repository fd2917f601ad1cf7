"""Amounts as short text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproxy.cli.top.amounts import age, bars, rate, size, took


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.98 KiB"),
        (1024, "1.00 KiB"),
        (123456, "121 KiB"),
        (5 * 1024**3, "5.00 GiB"),
        (1e18, "888 PiB"),
    ],
)
def test_sizes(number: float, text: str) -> None:
    """Three digits, and the unit that suits them."""
    assert size(number) == text
    assert rate(number) == f"{text}/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.000_085, "85 us"),
        (0.0042, "4.2 ms"),
        (0.25, "250 ms"),
        (4.99, "5.0 s"),
        (12.7, "12s"),
        (None, "-"),
    ],
)
def test_times(seconds: float | None, text: str) -> None:
    """Precise where the time is short."""
    assert took(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59, "59s"), (60, "1m"), (61, "1m 1s"), (3600, "1h"), (90061, "1d 1h")],
)
def test_ages(seconds: float, text: str) -> None:
    """Two units at most."""
    assert age(seconds) == text


@given(st.lists(st.floats(0, 1e12)), st.integers(1, 200))
def test_bars(values: list[float], width: int) -> None:
    """A plot is as wide as it has to be, and its highest bar is full."""
    text = bars(values, width)
    assert len(text) == width
    if any(values[-width:]):
        assert "█" in text
