"""Short requests at rising load: where does each model stop?"""

from __future__ import annotations

from collections.abc import Iterator

from .. import predictions
from ..catalogue import Model
from ..load import running_load
from ..processes import running_model
from ..results import Row
from ..stream import Stream
from .contract import Bench, Measure, Scenario

HOPELESS = 0.5
"""The share of requests answered under which a higher rate is not tried."""


def run(bench: Bench, model: Model) -> Iterator[Row]:
    """Each request on a new connection, at random times, at one rate after the other."""
    with running_model(model, bench.upstream) as server, running_load(server.port) as load:
        load.open(1, 5.0)
        load.do(do="drop")
        for rate in bench.plan.rates:
            stream = Stream("short", f"/?wait={predictions.SERVICE}", rate, bench.plan.seconds)
            due = len(stream.times()) / bench.plan.seconds
            seen = load.run(stream, grace=0.5)["short"]
            able = predictions.throughput(model, due, predictions.SERVICE)
            # Without a bound, or below it, a request takes as long as the upstream server.
            expected = predictions.SERVICE if able >= due else None
            numbers = seen.numbers()
            at = f"{rate}"
            done = seen.whole / max(bench.plan.seconds, max(seen.latencies, default=0.0))
            yield Row("rising", model.name, at, "throughput", able, done)
            for key, value in numbers.items():
                yield Row("rising", model.name, at, key, expected if key == "p50" else None, value)
            if seen.whole < HOPELESS * seen.sent:
                break


RISING = Scenario(
    "rising",
    "Short requests at rising load",
    "Each request comes on a new connection, at its own time, whatever happened to those before.",
    "The upstream server takes 5 ms. A model that serves n at a time does n/5 ms requests a "
    "second (Little's law): 200 for one at a time, 3,200 for 16 threads. The others follow the "
    "load until the processor is full.",
    "Compare p50 with p99.9: near its limit, a model still looks well in the middle. A latency "
    "that is missing means that this request was not answered half a second after the end.",
    (
        Measure("throughput", "requests answered", "1/s"),
        Measure("p50", "latency p50", "ms", log=True),
        Measure("p99", "latency p99", "ms", log=True),
        Measure("p99.9", "latency p99.9", "ms", log=True),
        Measure("unanswered", "not answered", "%", plotted=False),
    ),
    run,
    "requests a second",
)
