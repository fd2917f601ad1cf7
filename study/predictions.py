"""
The predictions: pure arithmetic from the facts about a model, made before anything is measured.

Each function says which law it uses.  Some predictions are the folklore of the field, in order to
show where that is wrong.
"""

from __future__ import annotations

import math

from .catalogue import Model

SERVICE = 5.0
"""Milliseconds that the upstream server takes for an ordinary request."""

TAIL = 2 * SERVICE
"""
Milliseconds of the p99 of such requests where nobody is in their way: the wake-ups of four sockets
take time, too, on a machine whose cores the load and the servers share.
"""

KIB_PER = {"queue": 0.0, "process": 2048.0, "thread": 1024.0, "loop": 4.0}
"""
KiB for each idle connection, by what it waits in.

A thread: the 1 MB of the folklore, so 10 GB for 10,000 connections.  A process: the pages that a
small interpreter writes to.  A loop: two sockets' objects.  A queue: nothing.
"""

SWITCH_INTERVAL = 5.0
"""Milliseconds after which a thread that computes gives the lock away (Python's default)."""

LOCK_TAKEN = 4
"""How often the thread of a short session waits in the kernel, and needs the lock again then."""

PAIR = 2
"""Descriptors of one session: its two sockets."""


def served(model: Model, connections: int) -> int:
    """Connections that are served at a time: bounded by threads, or by descriptors."""
    # A loop may hold idle connections for threads that serve requests.
    bound = connections if model.waits_in == "loop" else model.at_once or connections
    if model.descriptors:
        bound = min(bound, model.descriptors // PAIR - 3)
    return min(bound, connections)


def memory(model: Model) -> float:
    """KiB for each connection: per thread (or other holder) x connections, over connections."""
    return KIB_PER[model.waits_in]


def throughput(model: Model, rate: float, milliseconds: float) -> float:
    """Requests a second: Little's law bounds a model that serves `at_once` at a time."""
    if not model.at_once:
        return rate
    return min(rate, model.at_once / (milliseconds / 1000))


def backlog_wait(model: Model, rate: float, milliseconds: float, seconds: float) -> float:
    """Milliseconds that the last request waits, if requests come faster than they are served."""
    able = throughput(model, rate, milliseconds)
    return (rate - able) * seconds / able * 1000


def beside_computing(model: Model, computing: float) -> float:
    """Milliseconds, at worst, of a short request beside a callback that computes so long."""
    if model.loops or model.at_once == 1:
        return SERVICE + computing
    if model.waits_in == "process" or model.name.endswith("-free"):
        return TAIL
    return SERVICE + LOCK_TAKEN * SWITCH_INTERVAL


def last_wave(model: Model, clients: int, milliseconds: float) -> float:
    """Milliseconds until the last of so many clients is served, who all come at once: in waves."""
    return math.ceil(clients / (model.at_once or clients)) * milliseconds


def kept_after_leaving(model: Model, clients: int, resets: bool) -> float:
    """Descriptors still open for clients that left during the connect; evproxy notices a reset."""
    if resets and model.name == "evproxy":
        return 0.0
    return PAIR * min(clients, model.at_once or clients)


def whole_after_sigquit(model: Model, clients: int) -> float:
    """The share of sessions, in percent, that a SIGQUIT lets come to their end."""
    return 100 * served(model, clients) / clients if model.drains else 0.0
