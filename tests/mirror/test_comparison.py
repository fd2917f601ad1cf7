"""The comparison of two streams, and which sessions belong to a sample."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproxy.mirror.comparison import Comparison, Verdict
from evproxy.policy.sampling import is_sampled

MOST = 1000


def compared(*events: tuple[int, bytes | None], most: int = MOST) -> Comparison:
    """A comparison after `events`: a stream, and its next bytes, or ``None`` for its end."""
    comparison = Comparison(most)
    for stream, data in events:
        if data is None:
            comparison.end(stream)
        else:
            comparison.add(stream, data)
    return comparison


@pytest.mark.parametrize(
    ("events", "verdict", "offset"),
    [
        ([(0, b"abc"), (1, b"abc")], None, 3),
        ([(0, b"abc"), (1, b"abc"), (0, None), (1, None)], Verdict.EQUAL, 3),
        ([(0, None), (1, None)], Verdict.EQUAL, 0),
        ([(1, b"a"), (0, b"ab"), (1, b"b"), (1, None), (0, None)], Verdict.EQUAL, 2),
        ([(0, b"abc"), (1, b"axc")], Verdict.DIFFERENT, 1),
        ([(0, b"abc"), (0, None), (1, b"abcd")], Verdict.DIFFERENT, 3),
        ([(0, b"abc"), (1, b"ab"), (1, None)], Verdict.DIFFERENT, 2),
        ([(0, b"abc"), (0, None), (1, b"ab"), (1, None)], Verdict.DIFFERENT, 2),
        ([(1, None), (0, b"a")], Verdict.DIFFERENT, 0),
        ([(0, b"abc"), (0, None), (1, b"ab")], None, 2),
        ([(0, b"a" * MOST)], None, 0),
        ([(0, b"a" * MOST), (0, b"a")], Verdict.GIVEN_UP, 0),
        ([(0, b"a" * (MOST + 1))], Verdict.GIVEN_UP, 0),
    ],
)
def test_verdicts(
    events: list[tuple[int, bytes | None]], verdict: Verdict | None, offset: int
) -> None:
    """A verdict comes as soon as it is certain."""
    comparison = compared(*events)
    assert comparison.verdict is verdict
    assert comparison.offset == offset
    if verdict is not None:
        assert comparison.kept == 0
        comparison.add(1, b"more")
        comparison.give_up("late")
        assert comparison.verdict is verdict


@given(
    one=st.binary(max_size=40),
    other=st.binary(max_size=40),
    same=st.binary(max_size=40),
    moves=st.lists(st.tuples(st.integers(0, 1), st.integers(1, 9))),
)
def test_any_pieces(one: bytes, other: bytes, same: bytes, moves: list[tuple[int, int]]) -> None:
    """Whatever the pieces and their order are, the verdict is that of the whole streams."""
    streams = [same + one, same + other]
    left = list(streams)
    comparison = Comparison(MOST)
    for stream, size in [*moves, (0, MOST), (1, MOST)]:
        comparison.add(stream, left[stream][:size])
        left[stream] = left[stream][size:]
        assert comparison.kept <= MOST
    comparison.end(0)
    comparison.end(1)
    if streams[0] == streams[1]:
        assert comparison.verdict is Verdict.EQUAL
    else:
        pairs = zip(streams[0], streams[1], strict=False)
        equal = next((n for n, (a, b) in enumerate(pairs) if a != b), min(map(len, streams)))
        assert (comparison.verdict, comparison.offset) == (Verdict.DIFFERENT, equal)


def test_a_sample_has_its_share() -> None:
    """About a twentieth of many names belong to the sample of 0.05, and a larger one keeps them."""
    names = [f"192.0.2.{number}" for number in range(4000)]
    small = {name for name in names if is_sampled(name, 0.05, b"key")}
    large = {name for name in names if is_sampled(name, 0.5, b"key")}
    assert 120 < len(small) < 280
    assert 1800 < len(large) < 2200
    assert small < large
    assert not any(is_sampled(name, 0, b"key") for name in names)
    assert all(is_sampled(name, 1, b"key") for name in names)
