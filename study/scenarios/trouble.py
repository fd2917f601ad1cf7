"""One client or one server is slow, or one callback computes: who else notices?"""

from __future__ import annotations

from collections.abc import Iterator

from .. import predictions, proc
from ..catalogue import Model
from ..computing import COMPUTING_HOST, SECONDS
from ..load import running_load
from ..models.thread_pool import THREADS
from ..processes import running_model
from ..results import Row
from ..stream import Stream
from .contract import Bench, Measure, Scenario

SHORT = f"/?wait={predictions.SERVICE}"
LARGE = 8 << 20
SLOW = 500.0
SLOW_SHARE = 0.2
TWICE = 2.0
"""Times `Plan.seconds`, for what needs some time to build up."""

_LATENCY = (
    Measure("p50", "latency of the others, p50", "ms", plotted=False),
    Measure("p99", "latency of the others, p99", "ms", log=True),
    Measure("p99.9", "latency of the others, p99.9", "ms", plotted=False),
    Measure("unanswered", "not answered", "%", plotted=False),
)


def slow_reader(bench: Bench, model: Model) -> Iterator[Row]:
    """One client asks for 8 MiB, and reads nothing; others send short requests."""
    with running_model(model, bench.upstream) as server, running_load(server.port) as load:
        pid = server.process.pid
        load.open(1, 5.0)
        load.do(do="drop")
        proc.settle(pid)
        before = proc.memory(pid)
        load.do(do="slow", count=1, path=f"/?size={LARGE}")
        seen = load.run(Stream("others", SHORT, 100.0, bench.plan.seconds), grace=0.5)["others"]
        held = proc.memory(pid).minus(before)
        expected = None if model.at_once == 1 else predictions.TAIL
        for key, value in seen.numbers().items():
            guess = {"p99": expected, "unanswered": 100.0 if model.at_once == 1 else 0.0}
            yield Row("slow-reader", model.name, "", key, guess.get(key), value)
        yield Row("slow-reader", model.name, "", "held", 64.0, held.pss / proc.KIB)


def slow_upstream(bench: Bench, model: Model) -> Iterator[Row]:
    """A fifth of the requests takes half a second in the upstream server."""
    seconds, rate = TWICE * bench.plan.seconds, 200.0
    with running_model(model, bench.upstream) as server, running_load(server.port) as load:
        seen = load.run(
            Stream("slow", f"/?wait={SLOW:g}", rate * SLOW_SHARE, seconds),
            Stream("others", SHORT, rate * (1 - SLOW_SHARE), seconds),
            grace=1.0,
        )["others"]
    mean = SLOW_SHARE * SLOW + (1 - SLOW_SHARE) * predictions.SERVICE
    waits = predictions.backlog_wait(model, rate, mean, seconds)
    for key, value in seen.numbers().items():
        expected = predictions.TAIL + waits if key == "p99" else None
        yield Row("slow-upstream", model.name, "", key, expected, value)


def computing(bench: Bench, model: Model) -> Iterator[Row]:
    """Four times a second, the code of a user computes for 50 ms before the connect."""
    seconds = TWICE * bench.plan.seconds
    with (
        running_model(model, bench.upstream, computes=SECONDS) as server,
        running_load(server.port) as load,
    ):
        load.open(1, 5.0)
        load.do(do="drop")
        seen = load.run(
            Stream("computing", SHORT, 4.0, seconds, host=COMPUTING_HOST, even=True),
            Stream("others", SHORT, 100.0, seconds),
            grace=0.5,
        )["others"]
    for key, value in seen.numbers().items():
        expected = predictions.beside_computing(model, SECONDS * 1000) if key == "p99" else None
        yield Row("computing", model.name, "", key, expected, value)


def full_pool(bench: Bench, model: Model) -> Iterator[Row]:
    """Three times as many clients as the pool has threads come at once, for half a second each."""
    clients = 3 * THREADS
    with running_model(model, bench.upstream) as server, running_load(server.port) as load:
        load.open(1, 5.0)
        load.do(do="drop")
        seen = load.run(Stream("all", f"/?wait={SLOW:g}", burst=clients), grace=2.0)["all"]
    last = predictions.last_wave(model, clients, SLOW)
    reached = last if last < 2000 else None
    for key, expected, value in (
        ("first", SLOW, seen.milliseconds(100 / clients)),
        ("last", reached, seen.milliseconds(100)),
        ("unanswered", None, seen.numbers()["unanswered"]),
    ):
        yield Row("full-pool", model.name, "", key, expected, value)


SLOW_READER = Scenario(
    "slow-reader",
    "One client reads slowly",
    "One client asks for 8 MiB and reads nothing; others send 100 short requests a second.",
    "Nobody else notices (a p99 of 10 ms), but with one connection at a time, where everybody "
    "waits for ever. What the proxy holds for the slow client is one chunk: 64 KiB.",
    "TCP makes the sender wait, if the proxy lets it: a proxy that reads on buffers without bound.",
    (*_LATENCY, Measure("held", "memory held for the slow client", "KiB")),
    slow_reader,
)
SLOW_UPSTREAM = Scenario(
    "slow-upstream",
    "One upstream server answers slowly",
    "Of 200 requests a second, a fifth takes 500 ms upstream, and the others take 5 ms.",
    "Little's law: 200/s x 0.104 s = 21 sessions at a time. 16 threads carry 154/s: a queue grows "
    "by 46 requests a second, and the short requests wait in it with the slow ones.",
    "The processor is idle all the time. The pool is full of threads that wait.",
    _LATENCY,
    slow_upstream,
)
COMPUTING = Scenario(
    "computing",
    "One callback computes for 50 ms",
    "Four times a second, code of the user computes for 50 ms of processor time for one client.",
    "A loop is held: others wait up to 55 ms. Threads share one interpreter lock: a short session "
    "needs it about four times, and waits 5 ms each time. Processes do not notice.",
    "This is where the event loop loses. evproxy's watchdog names the callback, but cannot help. "
    "A process does not notice a neighbour that computes, but a fork for each request can cost "
    "more than it saves.",
    _LATENCY,
    computing,
    needs_hook=True,
)
FULL_POOL = Scenario(
    "full-pool",
    "More clients than the pool has threads",
    "48 clients come at once; each is answered after 500 ms.",
    "With 16 threads there are three waves: the last client waits 1,500 ms. One at a time needs "
    "24 s. All others serve everybody after 500 ms.",
    "A client in the queue is connected, as far as it can see: the kernel has accepted it.",
    (
        Measure("first", "the first client is served after", "ms", plotted=False),
        Measure("last", "the last client is served after", "ms"),
        Measure("unanswered", "not served within two seconds", "%", plotted=False),
    ),
    full_pool,
)
