"""What the collector would find, and what is alive: for tests that nothing of a session stays."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest

from evproxy.engine.pipes import Pipe
from evproxy.sockets.destination import Destination

OF_SESSIONS = ("evproxy.session", "evproxy.relay", "evproxy.sockets", "evproxy.upstream")
KEPT = (Destination, Pipe)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What only the collector would find stays to be found."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive() -> Counter[str]:
    """How many objects there are of each type of evproxy's but those that are kept for reuse."""
    return _of_sessions(gc.get_objects())


def garbage() -> Counter[str]:
    """How many objects of each type of evproxy's only the collector finds.  It keeps none."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return _of_sessions(gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def _of_sessions(objects: Iterable[object]) -> Counter[str]:
    return Counter(
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in map(type, objects)
        if kind.__module__.startswith(OF_SESSIONS) and kind not in KEPT
    )
