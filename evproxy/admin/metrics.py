"""
The operation that answers the metrics: it takes a snapshot in slices, and makes the text of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from attrs import frozen

from evproxy.admin.answers import Answer
from evproxy.admin.exposition import ProcessMetrics, text_of
from evproxy.admin.operations import Asked, Context, Operation
from evproxy.admin.pools import own_pools
from evproxy.config.declare import setting
from evproxy.config.rules import Choice, Many
from evproxy.engine.slices import in_slices
from evproxy.engine.threads import Threads
from evproxy.observe.metrics.declared import SCOPES
from evproxy.observe.metrics.families import (
    Growing,
    Numbers,
    pool_families,
    proxy_families,
    relay_families,
    server_families,
    session_families,
)
from evproxy.observe.metrics.family import AnyFamily
from evproxy.observe.metrics.live import LiveTotals
from evproxy.observe.metrics.tally import Tally
from evproxy.observe.watchdog.metrics import loop_metrics
from evproxy.upstream.pool.status import ServerStatus

MOST_SERVERS_MEASURED = 5000
"""The most servers that have metrics of their own; the others are only counted."""

SESSIONS_AT_ONCE = 256
"""How many live sessions are added up in one turn of the reactor: about half a millisecond's
worth."""


@frozen
class Which:
    """Which parts of the metrics to answer."""

    scope: tuple[str, ...] = setting(
        Many("an array of scopes", Choice(SCOPES)),
        "Only these parts of the metrics; may be given more than once. Without it: all.",
        default=(),
    )


class Metrics:
    """
    Answers the metrics of one proxy.

    :param reactor: calls from the thread that looks at the process.
    :param tally: counts what happens.
    """

    def __init__(self, reactor: Any, tally: Tally) -> None:
        self._tally = tally
        self._growing = Growing()
        self._process = ProcessMetrics()
        self._threads = Threads(reactor, "evproxy-metrics", 1)

    @property
    def operation(self) -> Operation:
        """The operation that answers the metrics."""
        return Operation(
            "GET",
            "/metrics",
            "metrics",
            "Answers the metrics, as text for Prometheus or, if Accept asks for it, OpenMetrics.",
            self._answer,
            {"type": "string"},
            query=Which,
            content_type="text/plain",
        )

    async def _answer(self, context: Context, asked: Asked) -> Answer:
        scopes = asked.query.scope or SCOPES
        numbers = await self._numbers(context)
        families = self._families(context, numbers, scopes)
        ready = []
        if "process" in scopes:
            ready = await self._threads.call(self._process.collect).result
        text, content_type = await text_of(context.reactor, families, ready, asked.accept)
        return Answer(text, content_type=content_type)

    def _families(
        self, context: Context, numbers: Numbers, scopes: tuple[str, ...]
    ) -> Iterator[AnyFamily]:
        if "proxy" in scopes:
            yield from proxy_families(numbers)
        if "sessions" in scopes:
            yield from session_families(numbers, self._growing)
        if "pools" in scopes:
            yield from pool_families(numbers)
        if "servers" in scopes:
            yield from server_families(numbers, self._growing)
        if "relay" in scopes:
            yield from relay_families(numbers)
        if "loop" in scopes and numbers.status.loop is not None:
            yield from loop_metrics(numbers.status.loop)
        for scope, source in context.proxy.metric_sources:
            if scope in scopes:
                yield from source()

    async def _numbers(self, context: Context) -> Numbers:
        proxy, tally = context.proxy, self._tally
        tally.count()
        # Before the live sessions are added up, so that no session counts twice.
        listeners = {name: totals.copy() for name, totals in tally.listeners.items()}
        states: Counter[tuple[str, str]] = Counter()
        servers: list[tuple[str, ServerStatus]] = []

        def look(item: tuple[str, ServerStatus]) -> None:
            states[item[0], item[1].state] += 1
            if len(servers) < MOST_SERVERS_MEASURED:
                servers.append(item)

        await in_slices(context.reactor, _servers(context), look)
        live = LiveTotals()
        sessions = proxy.admission.sessions

        def add(number: int) -> None:
            session = sessions.by_id.get(number)
            if session is not None:
                live.add(session)

        ids = iter(tuple(sessions.by_id))
        await in_slices(context.reactor, ids, add, size=SESSIONS_AT_ONCE)
        pipes = proxy.plane.pipes
        return Numbers(
            status=proxy.overview(),
            version=context.version,
            tally=tally,
            listeners=listeners,
            live=live,
            states=states,
            servers=servers,
            left_out=sum(states.values()) - len(servers),
            accepting_paused=proxy.admission.paused,
            log_lines_dropped=proxy.log_lines_dropped,
            pauses=proxy.plane.pauses,
            pipes=(pipes.in_use, pipes.kept, pipes.most),
        )


def _servers(context: Context) -> Iterator[tuple[str, ServerStatus]]:
    for name, pool in own_pools(context.proxy).items():
        for server in pool.each_server():
            yield name, server
