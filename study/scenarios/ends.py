"""A client leaves, or the proxy is told to stop: what becomes of sessions?"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from .. import predictions, proc
from ..catalogue import Model
from ..load import running_load
from ..processes import running_model
from ..results import Row
from ..stream import Stream
from ..worker import LOOPBACK
from .contract import Bench, Measure, Scenario

LEAVERS = 20
STAY = 0.1
NOTICED = 0.3
CLIENTS = 40
PART = 600.0
QUIT_AFTER = 0.3
END = 3.0


@contextmanager
def unreachable() -> Iterator[int]:
    """A port at which a connect takes for ever: the queue of its listener is full (listen(2))."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((LOOPBACK, 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield int(listener.getsockname()[1])


def leaving(bench: Bench, model: Model) -> Iterator[Row]:
    """Clients leave while the proxy connects them to a server that does not answer."""
    for setting, resets in (("reset", True), ("end of stream", False)):
        with (
            unreachable() as port,
            running_model(model, port) as server,
            running_load(server.port) as load,
        ):
            pid = server.process.pid
            proc.settle(pid)
            before = proc.descriptors(pid)
            load.do(do="leave", count=LEAVERS, seconds=STAY, resets=resets)
            time.sleep(NOTICED)
            kept = max(0, proc.descriptors(pid) - before)
        expected = predictions.kept_after_leaving(model, LEAVERS, resets)
        yield Row("leaving", model.name, setting, "kept", expected, kept)


def quitting(bench: Bench, model: Model) -> Iterator[Row]:
    """SIGQUIT comes when each of 40 clients has got half of its answer."""
    with running_model(model, bench.upstream) as server, running_load(server.port) as load:
        load.open(1, 5.0)
        load.do(do="drop")
        load.start(Stream("all", f"/?part={PART:g}&size=4096", burst=CLIENTS), grace=END)
        time.sleep(QUIT_AFTER)
        server.quit()
        asked = time.monotonic()
        ended = server.wait(END)
        took = time.monotonic() - asked
        outcomes = load.seen()["all"].outcomes
    whole = predictions.whole_after_sigquit(model, CLIENTS)
    found = {key: 100 * outcomes.get(key, 0) / CLIENTS for key in ("whole", "cut", "reset")}
    yield Row("quitting", model.name, "", "whole", whole, found["whole"])
    yield Row("quitting", model.name, "", "cut", 0.0 if whole else 100.0, found["cut"])
    yield Row("quitting", model.name, "", "reset", None, found["reset"])
    wait = PART / 1000 - QUIT_AFTER if whole else 0.0
    yield Row("quitting", model.name, "", "ended", wait * 1000, took * 1000 if ended else None)


LEAVING = Scenario(
    "leaving",
    "A client leaves while it is being connected",
    "20 clients send a request, wait 0.1 s, and leave; the server never answers the connect.",
    "A model that waits for the connect does not look at the client: it holds two descriptors for "
    "each client that has left, until the connect times out. evproxy cancels the connect of a "
    "client that resets; an end of the stream may be a half-close, whose client still reads.",
    "Each of these connects may still succeed, and be work for a server that nobody waits for.",
    (Measure("kept", "descriptors held 0.3 s later", ""),),
    leaving,
    "how the clients leave",
)
QUITTING = Scenario(
    "quitting",
    "SIGQUIT in the middle of it all",
    "40 clients have got half of an answer of 4 KiB when the proxy gets SIGQUIT.",
    "Threads and processes serve their clients to the end: all of them, or as many as there are "
    "threads. A loop that just stops cuts every session off, and evproxy drains.",
    "Where a stopped loop closes its sockets, the client gets an orderly end of the stream after "
    "half an answer: without a length in the protocol, it would take that for all of it.",
    (
        Measure("whole", "answered in full", "%"),
        Measure("cut", "cut off, with an end that looks orderly", "%", plotted=False),
        Measure("reset", "reset", "%", plotted=False),
        Measure("ended", "the process ended after", "ms", plotted=False),
    ),
    quitting,
)
