"""What all workers notice of a server counts once."""

from __future__ import annotations

import pytest

from evproxy.workers.server_changes import MOST_KNOWN, ServerChanges

Steps = list[tuple[int, str]]


@pytest.mark.parametrize(
    ("steps", "counts"),
    [
        ([(0, "down"), (1, "down")], {"down": 1}),
        ([(0, "down"), (1, "down"), (0, "up"), (1, "up")], {"down": 1, "up": 1}),
        ([(0, "draining"), (1, "draining"), (1, "up"), (0, "up")], {"draining": 1, "up": 1}),
        # The other worker gives it sessions.
        ([(0, "ejected"), (0, "up")], {}),
        ([(0, "ejected"), (1, "ejected"), (1, "up"), (0, "up")], {"ejected": 1, "up": 1}),
        ([(0, "ejected"), (0, "down"), (1, "down")], {"down": 1}),
        ([(0, "added"), (1, "added")], {"added": 1}),
        ([(0, "removed"), (1, "removed")], {"removed": 1}),
        ([(0, "added"), (1, "added"), (0, "removed"), (1, "removed")], {"added": 1, "removed": 1}),
        ([(0, "removed"), (1, "removed"), (1, "added"), (0, "added")], {"added": 1, "removed": 1}),
        # A process that replaces a dead one is told what the others know.
        ([(0, "down"), (1, "down"), (1, "died"), (1, "down")], {"down": 1}),
        ([(0, "down"), (1, "down"), (1, "died"), (0, "up")], {"down": 1, "up": 1}),
        ([(0, "down"), (1, "down"), (1, "died"), (0, "died"), (0, "down")], {"down": 1}),
        ([(0, "added"), (1, "added"), (1, "died"), (1, "added")], {"added": 1}),
        ([(0, "died"), (0, "ejected")], {}),
    ],
)
def test_changes(steps: Steps, counts: dict[str, int]) -> None:
    """A change counts when it changes the state of the server in all workers."""
    changes = ServerChanges(2)
    for worker, state in steps:
        if state == "died":
            changes.died(worker)
        else:
            changes.changed(worker, "default", "a:1", state)
    assert changes.counts == {("default", state): number for state, number in counts.items()}


def test_servers_apart() -> None:
    """Two servers, or two pools, have states of their own."""
    changes = ServerChanges(2)
    changes.changed(0, "one", "a:1", "down")
    changes.changed(1, "one", "b:1", "down")
    changes.changed(1, "two", "a:1", "down")
    assert not changes.counts


def test_bound() -> None:
    """Beyond the bound, the server that was seen first is forgotten: it counts as up."""
    changes = ServerChanges(1)
    for number in range(MOST_KNOWN + 1):
        changes.changed(0, "default", str(number), "down")
    changes.changed(0, "default", "0", "down")
    assert changes.counts == {("default", "down"): MOST_KNOWN + 2}
