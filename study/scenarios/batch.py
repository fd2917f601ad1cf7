"""The batch job: many databases, each of which answers slowly."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from ..batch.databases import PAUSE, Databases
from ..batch.ways import POOL
from ..catalogue import Model
from ..processes import ROOT
from ..results import Row
from .contract import Bench, Measure, Scenario

FOLKLORE = 370.0
"""KiB of one PyMySQL client, as the explainer of event loops says: 0.37 MB."""

WAYS = (
    Model(
        name="threads",
        title="a thread for each database",
        waits_in="thread",
    ),
    Model(
        name="pool",
        title=f"a pool of {POOL} threads",
        waits_in="thread",
        at_once=POOL,
    ),
    Model(name="loop", title="one event loop", waits_in="loop", loops=True),
    Model(
        name="cores",
        title="one event loop for each core",
        waits_in="loop",
        loops=True,
    ),
)


class BatchError(Exception):
    """A way ended badly, or added up wrong."""


def run(bench: Bench, model: Model) -> Iterator[Row]:
    """Do the job in one way, in a process of its own."""
    asked = bench.databases()
    found = _done(model.name, asked)
    if found["total"] != asked.sums:
        raise BatchError(f"{model.name}: the sum is {found['total']}, expected {asked.sums}")
    waves = math.ceil(len(asked.names) / (model.at_once or len(asked.names)))
    threads = 1.0 if model.loops else 1.0 + (model.at_once or len(asked.names))
    note = "SQLite in threads stands in for PostgreSQL" if asked.kind == "sqlite" else ""
    expected: dict[str, float] = {"time": waves * PAUSE * 1000}
    if model.name != "cores":  # whose processes bring threads of their own
        expected["threads"] = threads
    for key in ("time", "cpu", "threads", "memory"):
        yield Row("batch", model.name, "", key, expected.get(key), found[key], note)
    if model.name == "threads":
        client = _done("client", asked)["client"]
        yield Row("batch", model.name, "", "client", FOLKLORE, client, note)


def _done(way: str, asked: Databases) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "study.batch.worker", way, asked.kind],
        cwd=ROOT,
        input=json.dumps(asked.names),
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode:
        raise BatchError(f"{way}: {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


BATCH = Scenario(
    "batch",
    "The batch job: records from many databases",
    "Each database answers a SELECT after 300 ms; the sum over all of them is wanted.",
    "The time is 300 ms x waves: one wave with a thread for each database or with a loop, "
    "more with a pool of 8 threads. One client connection takes 0.37 MB, as PyMySQL's does in the "
    "explainer of event loops from which evproxy grew.",
    "The memory of a client library can weigh more than the thread that waits in it.",
    (
        Measure("time", "time", "ms"),
        Measure("cpu", "processor time, start of the program included", "ms"),
        Measure("threads", "threads", "", plotted=False),
        Measure("memory", "memory at the peak, less before", "KiB"),
        Measure("client", "memory of one client connection (RSS)", "KiB", plotted=False),
    ),
    run,
    participants=WAYS,
)
