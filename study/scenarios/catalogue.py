"""The scenarios, in the order in which they run."""

from __future__ import annotations

from .batch import BATCH
from .ends import LEAVING, QUITTING
from .idle import IDLE
from .rising import RISING
from .trouble import COMPUTING, FULL_POOL, SLOW_READER, SLOW_UPSTREAM

ALL = (IDLE, RISING, SLOW_READER, SLOW_UPSTREAM, COMPUTING, FULL_POOL, LEAVING, QUITTING, BATCH)
