"""The models by name, in the order in which the study shows them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import frozen

from .models.thread_pool import THREADS

FREE_THREADED = ("python3.14t", "python3.13t")
"""Names of interpreters without the global lock, best first."""


@frozen(kw_only=True)
class Model:
    """
    One model, and the facts from which predictions follow.

    `name`: its name on the command line.  `module`: its module in ``study.models``.  `title`: its
    name in reports.  `waits_in`: what holds an idle connection: ``queue``, ``process``, ``thread``
    or ``loop``.  `at_once`: sessions that can make progress at a time; 0: no bound but
    descriptors.  `descriptors`: the highest descriptor that it can use; 0: no bound of its own.
    `loops`: callbacks of different sessions wait for each other.  `drains`: SIGQUIT lets sessions
    end.  `hooked`: it can run the hook that computes.  `python`: the interpreter.  `command`: how
    to start what is no module: a function of its port, of the upstream server's port, and of a
    directory for its files.
    """

    name: str
    title: str
    waits_in: str
    module: str = ""
    at_once: int = 0
    descriptors: int = 0
    loops: bool = False
    drains: bool = True
    hooked: bool = True
    python: str = sys.executable
    command: Callable[[int, int, Path], Sequence[str]] | None = None


ALL = (
    Model(
        name="one",
        module="one_at_a_time",
        title="one connection at a time",
        waits_in="queue",
        at_once=1,
    ),
    Model(
        name="process",
        module="process_each",
        title="a process for each connection",
        waits_in="process",
    ),
    Model(
        name="thread",
        module="thread_each",
        title="a thread for each connection",
        waits_in="thread",
    ),
    Model(
        name="pool",
        module="thread_pool",
        title=f"a pool of {THREADS} threads",
        waits_in="queue",
        at_once=THREADS,
    ),
    Model(
        name="select",
        module="loop_select",
        title="event loop on select",
        waits_in="loop",
        descriptors=1000,
        loops=True,
        drains=False,
    ),
    Model(
        name="epoll",
        module="loop_epoll",
        title="event loop on epoll",
        waits_in="loop",
        loops=True,
        drains=False,
    ),
    Model(
        name="twisted",
        module="twisted_pairs",
        title="Twisted's pairs",
        waits_in="loop",
        loops=True,
        drains=False,
    ),
    Model(
        name="asyncio",
        module="asyncio_streams",
        title="asyncio's streams",
        waits_in="loop",
        loops=True,
        drains=False,
    ),
    Model(name="evproxy", module="evproxy_itself", title="evproxy", waits_in="loop", loops=True),
    Model(
        name="cores",
        module="loop_per_core",
        title="one epoll loop for each core",
        waits_in="loop",
        loops=True,
        drains=False,
    ),
)


def models() -> tuple[Model, ...]:
    """`ALL`, and threads without the global lock where an interpreter of `FREE_THREADED` is."""
    free = next(filter(None, map(shutil.which, FREE_THREADED)), None)
    if free is None:
        return ALL
    more = Model(
        name="thread-free",
        module="thread_each",
        title="a thread for each connection, free-threaded",
        waits_in="thread",
        python=free,
    )
    return (*ALL, more)
