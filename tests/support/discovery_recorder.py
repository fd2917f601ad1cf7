"""A double of the pool of a discovery, which records the callbacks and can wait for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field

from evproxy.model import UpstreamServer
from tests.support.waiting import Waiting


@define
class Told:
    """
    The callbacks of a discovery, in order.

    `problems`: the problems of the last set, if the discovery `source` has them.
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
        """Wait until `holds` is true of the callbacks; the test's deadline is the timeout."""
        await self._waiting.until(holds)

    async def servers(self, *endpoints: str) -> tuple[UpstreamServer, ...]:
        """Wait until the last set has the `endpoints`, in any order."""
        await self.until(lambda: bool(self.sets) and self.endpoints() == sorted(endpoints))
        return self.sets[-1]

    async def failure(self) -> str:
        """Wait for the next failure."""
        before = len(self.failures)
        await self.until(lambda: len(self.failures) > before)
        return self.failures[-1]

    async def problem(self) -> str:
        """Wait until the last set has a problem, and return the first one."""
        await self.until(lambda: bool(self.problems))
        return self.problems[0]

    def endpoints(self) -> list[str]:
        """The endpoints of the last set, sorted."""
        return sorted(server.endpoint for server in self.sets[-1])
