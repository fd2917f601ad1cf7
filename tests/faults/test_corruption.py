"""Which bytes a `corrupt` changes, and to what."""

from __future__ import annotations

from collections import Counter
from math import sqrt
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproxy.faults import corrupt
from evproxy.faults.corruption import BLOCK, Corruption
from tests.support.faulty_stage import FaultySession

SIZE = 255 * 1024
STREAM = Random(5).randbytes(SIZE)


@pytest.mark.parametrize("share", [0.0, 0.0005, 1 / 256, 0.01, 0.25, 0.7, 0.9995, 1.0])
def test_the_share_of_changed_bytes(share: float) -> None:
    """It is what the setting says, within five standard deviations; 0 and 1 are exact."""
    changed = Corruption(share, Random(7)).change(STREAM)
    count = sum(one != other for one, other in zip(STREAM, changed, strict=True))
    assert abs(count - SIZE * share) <= 5 * sqrt(SIZE * share * (1 - share))


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_changed_bytes_have_every_other_value(share: float) -> None:
    """Each of the 255 others has the same probability, whatever the byte was."""
    changed = Corruption(share, Random(7)).change(STREAM)
    found = Counter(one ^ other for one, other in zip(STREAM, changed, strict=True))
    del found[0]
    assert len(found) == 255
    expected = SIZE * share / 255
    assert max(abs(count - expected) for count in found.values()) <= 5 * sqrt(expected)


@given(
    share=st.floats(0, 1),
    sizes=st.lists(st.integers(1, 2 * BLOCK), max_size=8),
)
def test_chunks_change_nothing(share: float, sizes: list[int]) -> None:
    """However the stream comes in chunks, the same bytes of it are changed."""
    in_chunks, whole = (Corruption(share, Random(7)) for _ in range(2))
    data, passed = STREAM[: sum(sizes)], b""
    for size in sizes:
        passed += in_chunks.change(data[len(passed) : len(passed) + size])
    assert passed == whole.change(data)


def test_a_session_with_corrupted_bytes() -> None:
    """The draws follow from the seed."""
    received = []
    for seed in (1, 1, 2):
        session = FaultySession(corrupt(0.5), seed=seed)
        session.download(STREAM[:1000])
        received.append(session.client.received)
    assert received[0] == received[1] != received[2]
