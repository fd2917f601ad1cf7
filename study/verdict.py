"""What became of a prediction."""

from __future__ import annotations

NEAR = 2.0
"""A measured number within this factor of the prediction is as predicted."""

SMALL = 5.0
"""Numbers under this one, in any unit of the study, count as equal: they are noise, or nothing."""


def verdict(predicted: float | None, measured: float | None) -> str:
    """
    Compare a prediction with what was measured, in a few words.

    :param predicted: ``None``: nothing was predicted.
    :param measured: ``None``: the model did not get that far.
    """
    if predicted is None:
        return ""
    if measured is None:
        return "wrong: not reached"
    if max(abs(predicted), abs(measured)) < SMALL:
        return "as predicted"
    if predicted <= 0 or measured <= 0:
        return f"wrong: {'more' if measured > predicted else 'less'} than predicted"
    factor = measured / predicted
    if 1 / NEAR <= factor <= NEAR:
        return "as predicted"
    times = max(factor, 1 / factor)
    said = f"{times:.1f}" if times < 10 else f"{times:,.0f}"
    return f"wrong: {said} times {'more' if factor > 1 else 'less'}"
