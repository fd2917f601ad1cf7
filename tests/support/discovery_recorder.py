"""Stands in for a pool that is told of servers and failures, and for who waits for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field

from evproxy.model import UpstreamServer
from tests.support.waiting import Waiting


@define
class Told:
    """
    All that a discovery told, in order.

    `problems`: what was wrong with the last set, if the discovery `source` tells it.
    """

    sets: list[tuple[UpstreamServer, ...]] = field(factory=list)
    failures: list[str] = field(factory=list)
    problems: tuple[str, ...] = ()
    source: Any = field(default=None, eq=False)
    _waiting: Waiting = field(factory=Waiting, init=False, eq=False)

    def changed(self, servers: Sequence[UpstreamServer]) -> None:
        """A discovery's first callback."""
        self.sets.append(tuple(servers))
        self.problems = tuple(self.source.problems) if self.source is not None else ()
        self._waiting.look()

    def failed(self, reason: str) -> None:
        """A discovery's second callback."""
        self.failures.append(reason)
        self._waiting.look()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until `holds` of what has been told; the test's deadline bounds it."""
        await self._waiting.until(holds)

    async def servers(self, *endpoints: str) -> tuple[UpstreamServer, ...]:
        """Wait until the last set is that of `endpoints`, in any order."""
        await self.until(lambda: bool(self.sets) and self.endpoints() == sorted(endpoints))
        return self.sets[-1]

    async def failure(self) -> str:
        """Wait for one more failure than there is now."""
        before = len(self.failures)
        await self.until(lambda: len(self.failures) > before)
        return self.failures[-1]

    async def problem(self) -> str:
        """Wait until something is wrong with the last set, and give the first thing."""
        await self.until(lambda: bool(self.problems))
        return self.problems[0]

    def endpoints(self) -> list[str]:
        """The endpoints of the last set, sorted."""
        return sorted(server.endpoint for server in self.sets[-1])
