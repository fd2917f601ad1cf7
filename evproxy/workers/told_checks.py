"""
The health checks of a pool in a worker: the supervisor does them, and tells the verdicts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from random import Random
from typing import Any

from attrs import evolve

from evproxy.errors import Shortage
from evproxy.interfaces import Probe
from evproxy.policy.health import Verdict
from evproxy.settings import HealthCheck, PoolSettings
from evproxy.upstream.pool.checks import ServerChecks
from evproxy.upstream.pool.server import PoolServer
from evproxy.workers.messages import Check, Checked, Prevented, Uncheck


class Verdicts:
    """
    Passes the verdicts of the supervisor to the pools of this worker.

    :param tell: sends a message to the supervisor.
    """

    def __init__(self, tell: Callable[[Any], None]) -> None:
        self.tell = tell
        self._numbers = count(1)
        self._wanted: dict[int, tuple[ToldChecks, PoolServer]] = {}

    def checks_for(
        self,
        settings: Callable[[], PoolSettings],
        reactor: object,
        probe: Probe,
        timing: HealthCheck,
        random: Random,
        decided: Callable[[PoolServer, Verdict], None],
        prevented: Callable[[Shortage], None],
    ) -> ServerChecks:
        """The checks of one pool, as `evproxy.Pool` asks for them in `checks_for`."""
        return ToldChecks(self, settings(), timing, decided, prevented)

    def want(self, checks: ToldChecks, server: PoolServer, within: float) -> Callable[[], None]:
        """Be told about `server`; return what ends that."""
        number = next(self._numbers)
        self._wanted[number] = checks, server
        self.tell(Check(number, checks.pool, server.spec, server.down, within))
        return partial(self._unwant, number)

    def _unwant(self, number: int) -> None:
        del self._wanted[number]
        self.tell(Uncheck(number))

    def received(self, message: Checked | Prevented) -> None:
        """The supervisor tells a verdict."""
        wanted = self._wanted.get(message.check)
        if wanted is None:
            return
        checks, server = wanted
        if isinstance(message, Prevented):
            checks.prevented(Shortage(message.what, message.remedy))
        elif message.verdict.up == server.down:
            checks.decided(server, message.verdict)


class ToldChecks:
    """
    The checks of one pool; a `ServerChecks`.

    :param verdicts: passes the verdicts.
    :param pool: the settings of the pool.
    :param settings, decided, prevented: as in `Checks`.
    """

    def __init__(
        self,
        verdicts: Verdicts,
        pool: PoolSettings,
        settings: HealthCheck,
        decided: Callable[[PoolServer, Verdict], None],
        prevented: Callable[[Shortage], None],
    ) -> None:
        self.pool = evolve(pool, upstreams=(), discover=None)
        self.settings = settings
        self.decided = decided
        self.prevented = prevented
        self._verdicts = verdicts
        self._wanted: dict[PoolServer, Callable[[], None]] = {}

    @property
    def fast_interval(self) -> float:
        """Seconds until the first check of a server that joins."""
        return self.settings.fast_interval or self.settings.interval / 4

    def add(self, server: PoolServer, within: float) -> None:
        """Have `server` checked; the first check comes `within` this many seconds."""
        self.remove(server)
        self._wanted[server] = self._verdicts.want(self, server, within)

    def remove(self, server: PoolServer) -> None:
        """Have `server` checked no more."""
        end = self._wanted.pop(server, None)
        if end is not None:
            end()

    def stop(self) -> None:
        """Have no server checked."""
        for server in list(self._wanted):
            self.remove(server)
