"""The tally counts the same, however many sessions it counts at a time."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproxy.model import Ending, Phase, Side, close_reason
from evproxy.observe.metrics.families import Growing
from evproxy.observe.metrics.family import Declared
from evproxy.observe.metrics.tally import BATCH, Histogram, ListenerTotals, Tally
from evproxy.session.facts import Ended, EndedSessions

TIMES = st.none() | st.floats(0, 1e5)
ENDED = st.builds(
    lambda by, how, phase, *more: (close_reason(by, how, phase), None, *more),
    st.sampled_from(Side),
    st.sampled_from(Ending),
    st.sampled_from(Phase),
    st.integers(0, 9),
    TIMES,
    TIMES,
    st.floats(0, 1e5),
    st.integers(0, 10**12),
    st.integers(0, 10**12),
    st.integers(1, 10**9),
    st.floats(0, 1e5),
)


@given(st.lists(ENDED), st.lists(st.integers(0, 20)))
def test_batches(sessions: list[Ended], places: list[int]) -> None:
    """Counting after any session gives what counting each by itself gives."""
    told: list[Ended] = []

    def tell(ended: EndedSessions) -> None:
        told.extend(zip(*ended, strict=True))

    at_once, one_by_one = ListenerTotals(counted=tell), ListenerTotals()
    for number, session in enumerate(sessions):
        at_once.ended(session)
        if number in places:
            at_once.count()
        one_by_one.ended(session)
        one_by_one.count()
    at_once.count()
    assert at_once.ends == one_by_one.ends == Counter(session[0] for session in sessions)
    assert at_once.sessions == len(sessions)
    assert told == sessions
    assert at_once.bytes == (sum(each[6] for each in sessions), sum(each[7] for each in sessions))
    assert at_once.attempts == sum(each[2] for each in sessions)
    assert at_once.connects.counts == one_by_one.connects.counts
    assert at_once.durations.counts.total() == len(sessions)
    assert at_once.durations.sum == pytest.approx(sum(each[5] for each in sessions))


def test_what_is_kept_is_bounded() -> None:
    """After `BATCH` sessions, none is kept any more."""
    totals = ListenerTotals()
    reason = close_reason(Side.DOWNSTREAM, Ending.FINISHED, Phase.RELAYING)
    for number in range(10 * BATCH):
        totals.ended((reason, None, 1, 0.1, None, 0.2, 3, 4, number, 0.0))
        assert len(totals.fresh) == (number + 1) % BATCH
    assert totals.ends == {reason: 10 * BATCH}


@given(st.lists(st.floats(0, 100)))
def test_a_histogram(values: list[float]) -> None:
    """A bucket counts the values that are at most its bound, as Prometheus defines it."""
    histogram = Histogram((0.5, 1.0, 5.0))
    histogram.add(values)
    histogram.add([None])
    family = Declared("x_seconds", "histogram", "proxy", ("a",), "X.").of_histograms(
        [(("b",), histogram)]
    )
    found = {(suffix, dict(labels).get("le")): value for suffix, labels, value in family.samples}
    for bound in (0.5, 1.0, 5.0):
        assert found["_bucket", str(bound)] == sum(value <= bound for value in values)
    assert found["_bucket", "+Inf"] == found["_count", None] == len(values)
    assert found["_sum", None] == pytest.approx(sum(values))


def test_a_copy_stays_as_it_is() -> None:
    """What is copied for a scrape does not change with the next session."""
    totals = ListenerTotals()
    reason = close_reason(Side.DOWNSTREAM, Ending.FINISHED, Phase.RELAYING)
    totals.ended((reason, None, 1, 0.1, 0.1, 0.2, 3, 4, 1, 0.0))
    totals.count()
    copy = totals.copy()
    totals.ended((reason, None, 1, 0.1, 0.1, 0.2, 3, 4, 1, 0.0))
    totals.count()
    assert (copy.sessions, copy.bytes, copy.durations.counts.total()) == (1, (3, 4), 1)
    assert (totals.sessions, totals.bytes) == (2, (6, 8))


def test_rare_events() -> None:
    """Events of pools and of accepting are counted by their labels."""
    tally = Tally()
    tally.server_changed("web", "a:1", "down", "why")
    tally.server_changed("web", "a:2", "down", "why")
    tally.pool_exhausted("web", "why")
    tally.discovery_failed("web", "why")
    tally.accepting_paused("why")
    tally.pressure_began("what", "remedy")
    assert tally.changes == {("web", "down"): 2}
    assert (tally.exhausted["web"], tally.discovery_failures["web"]) == (1, 1)
    assert (tally.pauses, tally.shortages) == (1, 1)


def test_a_counter_never_goes_back() -> None:
    """A smaller value than the last is left out; a server that was gone begins anew."""
    growing = Growing()
    key, other = ("web", "a:1"), ("web", "b:1")
    assert list(growing.never_less("evproxy_server_x", [(key, 5)])) == [(key, 5)]
    assert list(growing.never_less("evproxy_server_x", [(key, 3)])) == [(key, 5)]
    assert list(growing.never_less("evproxy_server_y", [(key, 3)])) == [(key, 3)]
    assert list(growing.never_less("evproxy_server_x", [(other, 1)])) == [(other, 1)]
    assert list(growing.never_less("evproxy_server_x", [(key, 3)])) == [(key, 3)]
