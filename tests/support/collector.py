"""Counts garbage and live objects, for tests that a session leaves nothing behind."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable, Iterator

import pytest

from evproxy.engine.pipes import Pipe
from evproxy.sockets.destination import Destination

OF_SESSIONS = (
    "evproxy.session",
    "evproxy.mirror",
    "evproxy.relay",
    "evproxy.sockets",
    "evproxy.upstream",
)
KEPT = (Destination, Pipe)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Turn off the collector during the test, so cycles stay."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive() -> Counter[str]:
    """Count the objects of each evproxy type, except objects that are kept for reuse."""
    return _of_sessions(gc.get_objects())


def garbage() -> Counter[str]:
    """Count the objects of each evproxy type that only the collector frees, and free them."""
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
        # Types of extension modules may have no name there.
        if str(kind.__module__).startswith(OF_SESSIONS) and kind not in KEPT
    )
