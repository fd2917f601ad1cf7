"""
The operation that answers the metrics: it takes a snapshot in slices, and makes the text of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Protocol

from attrs import evolve, frozen

from evproxy.admin.answers import Answer
from evproxy.admin.exposition import text_of
from evproxy.admin.measure import PoolServerStatus, measure
from evproxy.admin.operations import Asked, Context, Operation
from evproxy.admin.process_metrics import ProcessMetrics
from evproxy.admin.scopes import SCOPES
from evproxy.config.declare import setting
from evproxy.config.rules import Choice, Many
from evproxy.observe.metrics.families import (
    Growing,
    Numbers,
    pool_families,
    proxy_families,
    relay_families,
    server_families,
    session_families,
)
from evproxy.observe.metrics.family import AnyFamily, MetricSource
from evproxy.observe.watchdog.metrics import loop_metrics

MOST_SERVERS_MEASURED = 5000
"""The most servers that have metrics of their own; the others are only counted."""


@frozen
class Which:
    """Which parts of the metrics to answer."""

    scope: tuple[str, ...] = setting(
        Many("an array of scopes", Choice(SCOPES)),
        "Only these parts of the metrics; may be given more than once. Without it: all.",
        default=(),
    )


class Servers:
    """
    The servers that pass by: `states` counts all, by pool and state; `kept` has the first ones.

    There are at most `MOST_SERVERS_MEASURED` of these.
    """

    def __init__(self) -> None:
        self.states: Counter[tuple[str, str]] = Counter()
        self.kept: list[PoolServerStatus] = []

    def look(self, item: PoolServerStatus) -> None:
        """A server passes by."""
        self.states[item[0], item[1].state] += 1
        if len(self.kept) < MOST_SERVERS_MEASURED:
            self.kept.append(item)

    def in_numbers(self, numbers: Numbers) -> Numbers:
        """Return `numbers` with these servers."""
        left_out = sum(self.states.values()) - len(self.kept)
        return evolve(numbers, states=self.states, servers=self.kept, left_out=left_out)


@frozen
class Scrape:
    """What one scrape has: the numbers, and the workers that have told theirs, from 0 on."""

    numbers: Numbers
    workers: frozenset[int] = frozenset()


class Source(Protocol):
    """What the numbers come from."""

    async def numbers(self) -> Scrape:
        """Return the numbers of now."""

    def more(self, scrape: Scrape) -> Iterator[MetricSource]:
        """Yield the sources of further families."""

    async def process(self, scrape: Scrape) -> Iterable[AnyFamily]:
        """Return the families of the scope ``process``."""


class OneProcess:
    """The `Source` of a proxy in one process."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._process = ProcessMetrics(context.reactor)

    async def numbers(self) -> Scrape:
        context, servers = self._context, Servers()
        numbers = await measure(context.reactor, context.proxy, context.version, servers.look)
        return Scrape(servers.in_numbers(numbers))

    def more(self, scrape: Scrape) -> Iterator[MetricSource]:
        loop = scrape.numbers.status.loop
        if loop is not None:
            yield "loop", partial(loop_metrics, loop)
        yield from self._context.proxy.metric_sources

    async def process(self, scrape: Scrape) -> Iterable[AnyFamily]:
        return await self._process.collect()


class Metrics:
    """
    Answers metrics.

    :param source: has the numbers.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._growing = Growing()

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
        scrape = await self._source.numbers()
        process: Iterable[AnyFamily] = ()
        if "process" in scopes:
            process = await self._source.process(scrape)
        families = self._families(scrape, scopes, process)
        text, content_type = await text_of(context.reactor, families, asked.accept)
        return Answer(text, content_type=content_type)

    def _families(
        self, scrape: Scrape, scopes: tuple[str, ...], process: Iterable[AnyFamily]
    ) -> Iterator[AnyFamily]:
        numbers = scrape.numbers
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
        for scope, families in self._source.more(scrape):
            if scope in scopes:
                yield from families()
        yield from process


def metrics_of(context: Context) -> Operation:
    """The operation that answers the metrics of a proxy in one process."""
    return Metrics(OneProcess(context)).operation
