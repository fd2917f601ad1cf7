"""Idle connections beside a few active ones: what does waiting cost?"""

from __future__ import annotations

import time
from collections.abc import Iterator

from .. import predictions, proc
from ..catalogue import Model
from ..load import Load, running_load
from ..processes import running_model
from ..results import Row
from ..stream import Stream
from .contract import Bench, Measure, Scenario

ACTIVE = 8
RATE = 200.0
FIRST = 8


def run(bench: Bench, model: Model) -> Iterator[Row]:
    """Open more and more connections to one process, and measure it after each step."""
    with running_model(model, bench.upstream) as server, running_load(server.port) as load:
        pid = server.process.pid
        bounded = model.at_once > 0 and model.waits_in != "loop"
        if not bounded:
            # What a model loads at its first sessions is no memory of a session.
            load.open(FIRST, 5.0)
            load.do(do="drop")
        proc.settle(pid)
        before, files = proc.memory(pid), proc.descriptors(pid)
        opened = 0
        # A bounded model serves no more of many than of few.
        for count in bench.plan.idle[-1:] if bounded else bench.plan.idle:
            at = f"{count}"
            if not bounded and model.waits_in == "process" and count > bench.plan.processes:
                note = f"not run: about {count * predictions.memory(model) / 2**20:.0f} GiB"
                yield Row("idle", model.name, at, "total", predictions.memory(model), None, note)
                continue
            count = min(count, bench.plan.most)
            expected = predictions.served(model, count)
            # A bounded model keeps the others waiting: there is nothing to wait for.
            opened += load.open(count - opened, 15.0 if expected == count else 1.0)
            proc.settle(pid)
            grown = proc.memory(pid).minus(before).each(max(opened, 1))
            yield Row("idle", model.name, at, "served", expected, opened)
            if not bounded:
                total = predictions.memory(model)
                for key, value in grown.items():
                    yield Row("idle", model.name, at, key, total if key == "total" else None, value)
            held = (proc.descriptors(pid) - files) / max(opened, 1)
            yield Row("idle", model.name, at, "descriptors", predictions.PAIR, held)
            yield from _active(model, at, pid, load, bench.plan.seconds)


def _active(model: Model, at: str, pid: int, load: Load, seconds: float) -> Iterator[Row]:
    switched, used, began = proc.switches(pid), proc.cpu_seconds(pid), time.monotonic()
    seen = load.run(
        Stream("active", f"/?wait={predictions.SERVICE}", RATE, seconds, kept=ACTIVE), grace=0.5
    )["active"]
    took = time.monotonic() - began
    bounded = model.at_once > 0 and model.waits_in != "loop"
    expected = None if bounded else predictions.TAIL
    yield Row("idle", model.name, at, "p99", expected, seen.milliseconds(99))
    if seen.whole:
        per_request = (proc.switches(pid) - switched) / seen.whole
        yield Row("idle", model.name, at, "switches", 2.0, per_request)
    yield Row("idle", model.name, at, "cpu", None, 100 * (proc.cpu_seconds(pid) - used) / took)


IDLE = Scenario(
    "idle",
    "Idle connections beside a few active ones",
    "Thousands of clients are connected and do nothing; eight clients send 200 requests a second.",
    "Memory = what one connection waits in x connections: 1 MB for a thread (so 10 GB for 10,000), "
    "2 MB for a process, 4 KiB for the objects of a loop. A bounded model serves as many as it has "
    "threads, and select as many as 1,000 descriptors allow. A request costs two context switches. "
    "The active clients notice nothing: a p99 of 10 ms.",
    "The stack of a thread is a reservation of addresses. What a thread really holds are the few "
    "pages that it has touched, in the process and in the kernel. The pool and the model with one "
    "connection are small because they do not serve the others at all.",
    (
        Measure("served", "connections served", "", plotted=False),
        Measure("total", "memory for each connection, stacks and kernel included", "KiB", log=True),
        Measure("pss", "of it PSS without stacks", "KiB", plotted=False),
        Measure("stacks", "of it stacks of threads", "KiB", plotted=False),
        Measure("kernel", "of it kernel stacks and page tables", "KiB", plotted=False),
        Measure("sockets", "sockets of client, proxy and server in the kernel", "KiB", False),
        Measure("descriptors", "descriptors for each connection", "", plotted=False),
        Measure("switches", "context switches for each request", "", plotted=False),
        Measure("p99", "latency of the active clients, p99", "ms", log=True),
        Measure("cpu", "use of the processor for 200 requests a second", "%"),
    ),
    run,
    "idle connections",
)
