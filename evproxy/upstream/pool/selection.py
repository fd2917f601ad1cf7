"""
Which servers new sessions may go to now, in tiers, and the walk over them.

The balancer is given the servers of the first tier that has a usable one; the tiers after
it are only walked on to.  All of this is worked out anew when something has changed and
the next session comes, never for each session.
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
"""How often the weight of a server grows during slow start."""


class Selection:
    """
    The servers of a pool as its balancer sees them.

    `stale` says that a `refresh` is due, `usable` how many servers may get new sessions, and
    `panic` that all are tried, as none is usable.  `refusing` says that this was told.
    `choosy` says that the balancer may give a client only some of the servers: evproxy's own
    policies give each client all of them.

    :param reactor: tells the time and calls later.
    :param servers: those of the pool.
    :param balancer: orders the first usable tier.
    :param slow_start: seconds in which a server grows to its full weight.
    :param try_all: whether all servers are tried while none is usable.
    :param exhausted: called with the reason why no server is usable.
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
        self._balancer = balancer
        self._slow_start = slow_start
        self._try_all = try_all
        self._exhausted = exhausted
        self._incremental = balancer if isinstance(balancer, Incremental) else None
        self._advancing: IDelayedCall | None = None
        self._growing: IDelayedCall | None = None
        self.choosy = type(balancer) not in POLICIES
        self._further: list[RoundRobin] = []
        self._beyond: list[PoolServer] = []
        self._order: tuple[Balancer, ...] = ()
        self.load_changed = balancer.load_changed if isinstance(balancer, LoadAware) else None
        self.stale = True
        self.usable = 0
        self.panic = False
        self.refusing = False

    def refresh(self) -> None:
        """Work out the tiers, and tell the balancers."""
        self.stale = False
        now = self._reactor.seconds()
        available: list[PoolServer] = []
        open_ones: list[PoolServer] = []
        growing = False
        for server in self._servers:
            server.settle(now, self._slow_start)
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
            self.refusing = False
        if growing and self._growing is None:
            self._growing = self._reactor.callLater(
                self._slow_start / _SLOW_START_STEPS, self._grow
            )
        self._tell(available)

    def _tell(self, available: list[PoolServer]) -> None:
        tiers: dict[tuple[bool, int], list[PoolServer]] = {}
        for server in available:
            tiers.setdefault((server.spec.backup, server.spec.priority), []).append(server)
        in_order = [tiers[tier] for tier in sorted(tiers)] or [[]]
        while len(self._further) < len(in_order) - 1:
            self._further.append(RoundRobin())
        self._order = (self._balancer, *self._further[: len(in_order) - 1])
        self._beyond = [server for tier in in_order[1:] for server in tier]
        for balancer, tier in zip(self._order, in_order, strict=True):
            try:
                balancer.update(tier)
            except Exception:
                # What it gives from now on is judged for each session.
                _log.failure("The balancer could not be told its servers")
        if self._incremental is not None and self._advancing is None:
            self._advancing = self._reactor.callLater(0, self._advance)

    def complete(self) -> None:
        """Finish at once what the balancer would do in slices."""
        if self._incremental is not None:
            while self._incremental.advance():
                pass
        if self._advancing is not None:
            self._advancing.cancel()
            self._advancing = None

    def walk(self, info: ConnectionInfo) -> Iterator[PoolServer]:
        """
        The servers with a free slot that may be tried, best first, none twice.

        :raises BalancerFailed: if a balancer of the user's own cannot say.
        """
        seen: set[PoolServer] | None = None
        own = self._balancer if self.choosy else None
        for balancer in self._order:
            # A policy yields what it was given, but cannot say so.
            candidates: Iterator[Any] = (
                self._given(info) if balancer is own else balancer.candidates(info)
            )
            for server in candidates:
                # An update during the walk may bring back a server that had its turn.
                if seen is not None and server in seen:
                    continue
                # As `has_room` says, without a call for each session.
                if not (server.usable or (self.panic and server.open)):
                    continue
                if server.sessions >= server.limit:
                    continue
                yield server
                if seen is None:
                    seen = set()
                seen.add(server)

    def _given(self, info: ConnectionInfo) -> Iterator[PoolServer]:
        """What a balancer of the user's own gives, each one known to be of the pool."""
        given: set[PoolServer] = set()
        repeated = 0
        try:
            # Whatever it says it gives.
            candidates: Iterator[Any] = self._balancer.candidates(info)
            for server in candidates:
                if not isinstance(server, PoolServer):
                    what = one_line(repr(server))
                    raise BalancerFailed(f"the balancer gave {what}, which is no server")
                # One that has left since the balancer was told is passed over by the walk.
                if not server.leaving and server not in self._servers:
                    raise BalancerFailed(
                        f"the balancer gave {server.name}, which is not in the pool"
                    )
                if server in given:
                    # An update during the walk may bring back each; more than that has no end.
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
        """Whether a new session could go to `server`."""
        return self.may_serve(server) and server.sessions < server.limit

    def may_serve(self, server: PoolServer) -> bool:
        """Whether a new session could go to `server` if it had room."""
        return server.usable or (self.panic and server.open)

    def has_any_room(self) -> bool:
        """Whether a new session could go to any server."""
        return any(self.has_room(server) for server in self._servers)

    def why_hopeless(self, info: ConnectionInfo, tried: Collection[Server]) -> str:
        """
        Why the client could go to no server but those `tried`, even if it had room.

        Empty if it could.

        :raises BalancerFailed: if a balancer of the user's own cannot say.
        """
        if not (self.usable or self.panic):
            return self.why_not()
        if not (self.choosy or tried):
            return ""
        gave_none = True
        for server in chain(self._given(info), self._beyond) if self.choosy else self._servers:
            gave_none = False
            if self.may_serve(server) and server not in tried:
                return ""
        if gave_none:
            return "the balancer gave no server for this client"
        return "every other server is down" if tried else "no server for this client is up"

    def refuse(self) -> None:
        """No server is usable; to be told once for each such period."""
        self.refusing = True
        self._exhausted(self.why_not())

    def why_not(self) -> str:
        """Why no server is usable."""
        if not len(self._servers):
            return "it has no servers"
        return "no server is up; trying them all" if self.panic else "no server is up"

    def stop(self) -> None:
        """No timer is left; the next `refresh` goes on with what they did."""
        for timer in (self._advancing, self._growing):
            if timer is not None:
                timer.cancel()
        self._advancing = self._growing = None
        self.stale = True

    def _grow(self) -> None:
        self._growing = None
        self.stale = True

    def _advance(self) -> None:
        self._advancing = None
        if self._incremental is not None and self._incremental.advance():
            self._advancing = self._reactor.callLater(0, self._advance)
