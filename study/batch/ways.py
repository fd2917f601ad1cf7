"""
The ways to do the batch job; each asks every database, and adds up what they say.

A way is a function of the kind and the names of the databases.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeAlias

from .clients import ask, ask_in_loop

POOL = 8
"""Threads of the pool."""

Way: TypeAlias = Callable[[str, Sequence[str]], int]


def threads(kind: str, names: Sequence[str]) -> int:
    """A thread for each database."""
    sums: list[int] = []

    def work(name: str) -> None:
        sums.append(ask(kind, name))

    each = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in each:
        thread.start()
    for thread in each:
        thread.join()
    return sum(sums)


def pool(kind: str, names: Sequence[str]) -> int:
    """A pool of `POOL` threads."""
    with ThreadPoolExecutor(POOL) as executor:
        return sum(executor.map(lambda name: ask(kind, name), names))


def loop(kind: str, names: Sequence[str]) -> int:
    """
    One event loop: psycopg's asynchronous connections on Twisted's asyncio reactor.

    SQLite has no asynchronous client: there, the reactor's own pool of threads does the work.
    """
    import asyncio

    from twisted.internet import asyncioreactor, defer, threads

    own = asyncio.new_event_loop()
    asyncio.set_event_loop(own)
    asyncioreactor.install(own)
    from twisted.internet import reactor as installed

    reactor: Any = installed
    sums: list[int] = []
    failures: list[Any] = []

    def begin(name: str) -> Any:
        if kind == "sqlite":
            return threads.deferToThread(ask, kind, name)
        return defer.Deferred.fromFuture(asyncio.ensure_future(ask_in_loop(name)))

    def run() -> None:
        done = defer.gatherResults([begin(name) for name in names], consumeErrors=True)
        done.addCallbacks(sums.extend, failures.append)
        done.addBoth(lambda _: reactor.stop())

    reactor.callLater(0, run)  # asyncio's loop runs only after the reactor's start
    reactor.run(installSignalHandlers=False)
    for failure in failures:
        failure.raiseException()
    return sum(sums)


def cores(kind: str, names: Sequence[str]) -> int:
    """One event loop for each core, each with its share of the databases."""
    count = len(os.sched_getaffinity(0))
    shares = [share for number in range(count) if (share := names[number::count])]
    # A process that is forked would have the reactor of its parent.
    with ProcessPoolExecutor(len(shares), mp_context=get_context("spawn")) as executor:
        return sum(executor.map(loop, [kind] * len(shares), shares))


WAYS: dict[str, Way] = {"threads": threads, "pool": pool, "loop": loop, "cores": cores}
