"""
The history of a proxy: a sample a second, of the last 15 minutes.

Pure.
"""

from __future__ import annotations

import json
from collections import deque
from typing import NamedTuple

SAMPLES = 900
"""How many samples are kept: 15 minutes at one a second.  A sample takes about 150 bytes."""


class Sample(NamedTuple):
    """
    What a proxy did in one interval.

    `at`: when the interval ended, in seconds on the reactor's clock.  `sessions`: how many there
    were then.  `started`: sessions that began, a second.  `to_upstream`, `to_downstream`: bytes
    passed on, a second.  `connect_mean`, `connect_most`: seconds from accept to the connection with
    the server, for the sessions that got one in the interval; ``None``: none did.  `lag`: the
    longest turn of the event loop in the interval, in seconds; ``None``: nothing measures it.
    """

    at: float
    sessions: int
    started: float
    to_upstream: float
    to_downstream: float
    connect_mean: float | None
    connect_most: float | None
    lag: float | None

    @property
    def text(self) -> str:
        """The sample as a JSON array, in the order of the fields."""
        values = [None if each is None else _short(each) for each in self]
        return json.dumps(values, separators=(",", ":"))


def _short(number: float) -> float | int:
    """Six decimals at most: microseconds."""
    short = round(number, 6)
    return int(short) if short == int(short) else short


class History:
    """The last samples, the oldest first, each as the text of a JSON array."""

    def __init__(self) -> None:
        self._samples: deque[str] = deque(maxlen=SAMPLES)

    def add(self, sample: Sample) -> None:
        """Add `sample`; the oldest one goes once there are `SAMPLES`."""
        self._samples.append(sample.text)

    @property
    def text(self) -> str:
        """All samples as a JSON array."""
        return f"[{','.join(self._samples)}]"
