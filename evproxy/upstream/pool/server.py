"""An upstream server as it is at run time: its load, its state and its statistics."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, inf

from attrs import Factory, define, field, frozen

from evproxy.interfaces import Dialer, PoolSession
from evproxy.model import UpstreamServer
from evproxy.policy.health import EjectionRecord, slow_start_part

DECAY = 10.0
"""Seconds in which a connect time loses all but 1/e of its say, as Finagle's ``PeakEwma``."""

SAMPLE = DECAY / 100
"""Seconds in which one connect time has a say for all that are no new peak."""


@frozen(kw_only=True)
class ServerStatus:
    """
    A snapshot of an upstream server for people and metrics.

    `state` is ``up``, ``down``, ``ejected`` or ``draining``, `why` says what made it so and
    `since` when, in seconds on the reactor's clock.  `until` is when its ejection ends, on the
    same clock, even while it is down or draining as well; ``None``: it is not ejected.
    `weight` is the effective one.
    `sessions` hold a slot now; `sessions_total`, `connect_failures` and `ejections` count
    from the beginning.  `connect_time` is the decaying peak average, in seconds; a connect
    that failed counts as one that took the whole `connect_timeout`.
    """

    spec: UpstreamServer
    name: str
    state: str
    why: str
    since: float
    until: float | None
    weight: float
    sessions: int
    sessions_total: int
    connect_failures: int
    ejections: int
    connect_time: float


@define(eq=False, slots=True)
class PoolServer:
    """
    The state of one upstream server of one pool; an `evproxy.interfaces.Server`.

    `given` is the value it was configured or discovered with, `spec` the one in force.
    `limit` is how many sessions it may have, infinite where there is no bound.
    `down_why` and `drain_why` say why it is, or was last, down or draining.
    `usable` says whether it may get new sessions, `open` whether it might but for its
    health; `settle` derives both.  `held` are its sessions, where the pool needs them,
    `found_down` says whether those that it had then were ended, and `late` are those that
    were still connecting then.
    """

    given: UpstreamServer
    dialer: Dialer
    _seconds: Callable[[], float]
    discovered: bool = False
    held: set[PoolSession] | None = None
    found_down: bool = field(init=False, default=False)
    late: set[PoolSession] = field(init=False, factory=set)

    spec: UpstreamServer = field(init=False)
    name: str = field(init=False)
    limit: float = field(init=False)
    weight: float = field(init=False)
    usable: bool = field(init=False)
    open: bool = field(init=False)

    down: bool = field(init=False, default=False)
    down_why: str = field(init=False, default="")
    draining: bool = field(init=False, default=False)
    drain_why: str = field(init=False, default="")
    leaving: bool = field(init=False, default=False)
    slow_since: float | None = field(init=False, default=None)
    ejection: EjectionRecord = field(init=False, factory=EjectionRecord)

    announced: str = field(init=False, default="up")
    why: str = field(init=False, default="")
    since: float = field(init=False, default=Factory(lambda self: self._seconds(), takes_self=True))

    sessions: int = field(init=False, default=0)
    sessions_total: int = field(init=False, default=0)
    connect_failures: int = field(init=False, default=0)
    ejections: int = field(init=False, default=0)
    _peak: float = field(init=False, default=0.0)
    _peak_at: float = field(init=False, default=0.0)

    def __attrs_post_init__(self) -> None:
        self.respecify(self.given)

    def respecify(self, spec: UpstreamServer) -> None:
        """`spec` is in force from now on; its endpoint is the one it always was."""
        self.spec = spec
        self.name = spec.name
        self.limit = spec.max_sessions or inf
        self.settle(0.0, 0.0)

    def settle(self, now: float, slow_start: float) -> None:
        """Derive what the hot path reads from what may have changed."""
        self.open = not (self.draining or self.leaving) and self.spec.weight > 0
        self.usable = self.open and not self.down and self.ejection.until is None
        part = 1.0
        if self.slow_since is not None:
            part = slow_start_part(self.slow_since, now, slow_start)
            if part >= 1:
                self.slow_since = None
        self.weight = self.spec.weight * part if self.open else 0.0

    @property
    def state(self) -> str:
        """``draining``, ``down``, ``ejected`` or ``up``: the first that is true."""
        if self.draining or self.leaving:
            return "draining"
        if self.down:
            return "down"
        return "up" if self.ejection.until is None else "ejected"

    @property
    def connect_time(self) -> float:
        """Seconds: a new peak counts at once and decays from then on; 0 if unknown."""
        if not self._peak:
            return 0.0
        return self._peak * exp((self._peak_at - self._seconds()) / DECAY)

    def took(self, seconds: float) -> None:
        """A connect took `seconds`, or counts as one that did."""
        now = self._seconds()
        if self._peak:
            if seconds <= self._peak and now - self._peak_at < SAMPLE:
                return
            kept = exp((self._peak_at - now) / DECAY)
            seconds = max(seconds, self._peak * kept + seconds * (1 - kept))
        self._peak = seconds
        self._peak_at = now

    def forget_connects(self) -> None:
        """How fast it connects is not known any more."""
        self._peak = 0.0

    def status(self) -> ServerStatus:
        """What it is like now."""
        return ServerStatus(
            spec=self.spec,
            name=self.name,
            state=self.state,
            why=self.why,
            since=self.since,
            until=self.ejection.until,
            weight=self.weight,
            sessions=self.sessions,
            sessions_total=self.sessions_total,
            connect_failures=self.connect_failures,
            ejections=self.ejections,
            connect_time=self.connect_time,
        )
