"""When a worker that has died is replaced, and how often that is reported."""

from __future__ import annotations

from evproxy.workers.replacement import LONGEST_DELAY, PERIOD, SAID_EACH, STEADY, Replacement


def test_delays_grow_to_a_bound() -> None:
    """Each death in a row doubles the delay, up to the bound."""
    replacement = Replacement()
    delays = [replacement.delay(0.0) for _ in range(200)]
    assert delays[:3] == [0.1, 0.2, 0.4]
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST_DELAY
    assert replacement.restarts == 200


def test_a_steady_worker_starts_anew() -> None:
    """A worker that has lived for a while is replaced at once, whatever was before."""
    replacement = Replacement()
    for _ in range(10):
        replacement.delay(STEADY / 2)
    assert replacement.delay(STEADY) == 0.1


def test_reports() -> None:
    """The first deaths are reported one by one, then their number once a period."""
    replacement = Replacement()
    reports = []
    for second in range(1000, 1000 + 3 * int(PERIOD)):
        replacement.delay(1.0)
        reports.append(replacement.report(float(second)))
    assert reports[:SAID_EACH] == [1] * SAID_EACH
    assert [each for each in reports[SAID_EACH:] if each] == [60, 60]
    assert sum(map(bool, reports)) == SAID_EACH + 2


def test_a_steady_worker_is_reported() -> None:
    """A death after a long life is always reported."""
    replacement = Replacement()
    for second in range(3):
        replacement.delay(100.0)
        assert replacement.report(float(second)) == 1
