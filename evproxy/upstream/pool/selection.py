"""
The servers that new sessions may use now, in tiers, and the walk over them.

The pool's balancer orders the first tier that has a usable server.  The walk goes on to the
later tiers only when the first one has no more servers.  The tiers are computed again at the
first session after a change, not for each session.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import chain
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from evproxy.errors import BalancerFailed
from evproxy.interfaces import Balancer, Server
from evproxy.model import ConnectionInfo
from evproxy.policy.balance.by_name import POLICIES, Incremental, LoadAware, RoundRobin
from evproxy.upstream.pool.members import Members
from evproxy.upstream.pool.server import PoolServer
from evproxy.upstream.reasons import one_line

_log = Logger()

_SLOW_START_STEPS = 10
"""In how many steps the weight of a server grows during slow start."""


class Selection:
    """
    The servers of a pool, in the order to try them.

    `stale` says that a `refresh` is due, and `usable` how many servers may get new sessions.
    `panic` says that no server is usable, but all are tried.  `exhausted_announced` says that
    the observer knows that no server is usable.  `restricted` says that the balancer may give
    a client only some of the servers; evproxy's own policies give each client all of them.

    :param reactor: the time and the timers.
    :param servers: the servers of the pool.
    :param balancer: orders the first usable tier.
    :param slow_start: seconds in which a server grows to its full weight.
    :param try_all: whether all servers are tried while none is usable.
    :param exhausted: called with the reason when no server is usable.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        servers: Members,
        balancer: Balancer,
        slow_start: float,
        try_all: bool,
        exhausted: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._servers = servers
        self._exhausted = exhausted
        self._advance_timer: IDelayedCall | None = None
        self._grow_timer: IDelayedCall | None = None
        self._later_balancers: list[RoundRobin] = []
        self._later_servers: list[PoolServer] = []
        self._order: tuple[Balancer, ...] = ()
        self.stale = True
        self.usable = 0
        self.panic = False
        self.exhausted_announced = False
        self.use(balancer, slow_start, try_all)

    def use(self, balancer: Balancer, slow_start: float, try_all: bool) -> None:
        """Order the servers by these from the next `refresh` on; the arguments are as above."""
        self._slow_start = slow_start
        self._try_all = try_all
        self._balancer = balancer
        self._incremental = balancer if isinstance(balancer, Incremental) else None
        self.restricted = type(balancer) not in POLICIES
        self.load_changed = balancer.load_changed if isinstance(balancer, LoadAware) else None
        self.stale = True

    def refresh(self) -> None:
        """Compute the tiers, and update the balancers."""
        self._compute()
        if self._incremental is not None and self._advance_timer is None:
            self._advance_timer = self._reactor.callLater(0, self._advance)

    def fill(self) -> None:
        """
        Do a first `refresh`, with all work of the balancer's `advance`, at once.

        Uses no timer: a pool may be made in a thread.
        """
        self._compute()
        if self._incremental is not None:
            while self._incremental.advance():
                pass

    def _compute(self) -> None:
        self.stale = False
        now = self._reactor.seconds()
        available: list[PoolServer] = []
        open_ones: list[PoolServer] = []
        growing = False
        for server in self._servers:
            server.update_derived(now, self._slow_start)
            growing = growing or server.slow_since is not None
            if server.usable:
                available.append(server)
            elif server.open:
                open_ones.append(server)
        self.usable = len(available)
        self.panic = self._try_all and not available and bool(open_ones)
        if self.panic:
            available = open_ones
        if self.usable:
            self.exhausted_announced = False
        if growing and self._grow_timer is None:
            self._grow_timer = self._reactor.callLater(
                self._slow_start / _SLOW_START_STEPS, self._grow
            )
        self._update_balancers(available)

    def _update_balancers(self, available: list[PoolServer]) -> None:
        tiers: dict[tuple[bool, int], list[PoolServer]] = {}
        for server in available:
            tiers.setdefault((server.spec.backup, server.spec.priority), []).append(server)
        in_order = [tiers[tier] for tier in sorted(tiers)] or [[]]
        while len(self._later_balancers) < len(in_order) - 1:
            self._later_balancers.append(RoundRobin())
        self._order = (self._balancer, *self._later_balancers[: len(in_order) - 1])
        self._later_servers = [server for tier in in_order[1:] for server in tier]
        for balancer, tier in zip(self._order, in_order, strict=True):
            try:
                balancer.update(tier)
            except Exception:
                # `_verified` still checks each server that the balancer yields.
                _log.failure("The balancer raised an exception in update()")

    def walk(self, info: ConnectionInfo) -> Iterator[PoolServer]:
        """
        Yield the servers with a free slot that a session may try, best first, none twice.

        :raises BalancerFailed: if a user's own balancer fails.
        """
        seen: set[PoolServer] | None = None
        own = self._balancer if self.restricted else None
        for balancer in self._order:
            # A policy yields the `PoolServer`s of its last update, but its type does not say so.
            candidates: Iterator[Any] = (
                self._verified(info) if balancer is own else balancer.candidates(info)
            )
            for server in candidates:
                # After an update during the walk, a policy may yield a server a second time.
                if seen is not None and server in seen:
                    continue
                # The same as `has_room`, inlined: this runs for each session.
                if not (server.usable or (self.panic and server.open)):
                    continue
                if server.sessions >= server.limit:
                    continue
                yield server
                if seen is None:
                    seen = set()
                seen.add(server)

    def _verified(self, info: ConnectionInfo) -> Iterator[PoolServer]:
        """Yield the candidates of a user's own balancer, after checking that the pool has them."""
        given: set[PoolServer] = set()
        repeated = 0
        try:
            # The balancer may yield anything, whatever its type says.
            candidates: Iterator[Any] = self._balancer.candidates(info)
            for server in candidates:
                if not isinstance(server, PoolServer):
                    what = one_line(repr(server))
                    raise BalancerFailed(f"the balancer gave {what}, which is not a server")
                # The walk skips a server that has left since the last update.
                if not server.leaving and server not in self._servers:
                    raise BalancerFailed(
                        f"the balancer gave {server.name}, which is not in the pool"
                    )
                if server in given:
                    # An update during the walk may repeat each server once.  More repetitions
                    # mean that the iterator never ends.
                    repeated += 1
                    if repeated > len(self._servers):
                        return
                given.add(server)
                yield server
        except BalancerFailed:
            raise
        except Exception as error:
            why = one_line(f"{type(error).__name__}: {error}")
            raise BalancerFailed(f"the balancer raised {why}") from error

    def has_room(self, server: PoolServer) -> bool:
        """Whether a new session could go to `server` now."""
        return self.may_serve(server) and server.sessions < server.limit

    def may_serve(self, server: PoolServer) -> bool:
        """Whether a new session could go to `server` if a slot were free."""
        return server.usable or (self.panic and server.open)

    def has_any_room(self) -> bool:
        """Whether a new session could go to any server now."""
        return any(self.has_room(server) for server in self._servers)

    def why_not_wait(self, info: ConnectionInfo, tried: Collection[Server]) -> str:
        """
        Why it is pointless to wait: no server except those `tried` may serve this client.

        Empty if another server may.

        :raises BalancerFailed: if a user's own balancer fails.
        """
        if not (self.usable or self.panic):
            return self.why_exhausted()
        if not (self.restricted or tried):
            return ""
        gave_none = True
        given = chain(self._verified(info), self._later_servers)
        for server in given if self.restricted else self._servers:
            gave_none = False
            if self.may_serve(server) and server not in tried:
                return ""
        if gave_none:
            return "the balancer gave no server for this client"
        return "every other server is down" if tried else "no server for this client is up"

    def announce_exhausted(self) -> None:
        """Announce that no server is usable; call this once for each such period."""
        self.exhausted_announced = True
        self._exhausted(self.why_exhausted())

    def why_exhausted(self) -> str:
        """Why no server is usable."""
        if not len(self._servers):
            return "the pool has no servers"
        if self.panic:
            return "no server is up; trying them all"
        if any(server.state == "up" for server in self._servers):
            return "every server that is up has weight 0"
        return "no server is up"

    def stop(self) -> None:
        """Cancel the timers; the next `refresh` starts them again."""
        for timer in (self._advance_timer, self._grow_timer):
            if timer is not None:
                timer.cancel()
        self._advance_timer = self._grow_timer = None
        self.stale = True

    def _grow(self) -> None:
        self._grow_timer = None
        self.stale = True

    def _advance(self) -> None:
        self._advance_timer = None
        if self._incremental is not None and self._incremental.advance():
            self._advance_timer = self._reactor.callLater(0, self._advance)
