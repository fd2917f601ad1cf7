"""An upstream server at run time: its load, its state and its statistics."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, inf

from attrs import Factory, define, field

from evproxy.interfaces import Dialer, PoolSession
from evproxy.model import UpstreamServer, proxy_version
from evproxy.policy.health import EjectionRecord, slow_start_part
from evproxy.upstream.pool.status import ServerStatus

DECAY = 10.0
"""Seconds after which a connect time keeps 1/e of its influence, as in Finagle's ``PeakEwma``."""

SAMPLE = DECAY / 100
"""Within this many seconds of the last sample, only a new peak counts."""


@define(eq=False, slots=True)
class PoolServer:
    """
    The state of one upstream server of one pool; an `evproxy.interfaces.Server`.

    `given` is the configured or discovered value; `spec` is the value in force.
    `limit` is the most sessions that the server may have, infinite if there is no bound.
    `proxy_version` is the version of the PROXY header that the server gets, by default
    `pool_proxy_version`; 0: none.
    `down_why` and `drain_why` say why the server is, or was last, down or draining.
    `usable` says whether the server may get new sessions; `open` is the same without regard
    to health.  `update_derived` sets both.
    `bytes_to_upstream` and `bytes_to_downstream`: those of sessions that have ended, where metrics
    are collected.
    Only pools with ``on_down = "reset"`` use these: `held` are the server's sessions,
    `was_down` says whether the server was down at the last change, and `connecting` are the
    sessions that were still connecting when the server went down.
    """

    given: UpstreamServer
    dialer: Dialer
    _seconds: Callable[[], float]
    discovered: bool = False
    held: set[PoolSession] | None = None
    pool_proxy_version: int = 0
    was_down: bool = field(init=False, default=False)
    connecting: set[PoolSession] = field(init=False, factory=set)

    spec: UpstreamServer = field(init=False)
    name: str = field(init=False)
    limit: float = field(init=False)
    proxy_version: int = field(init=False)
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
    bytes_to_upstream: int = field(init=False, default=0)
    bytes_to_downstream: int = field(init=False, default=0)
    checks_passed: int = field(init=False, default=0)
    checks_failed: int = field(init=False, default=0)
    _peak: float = field(init=False, default=0.0)
    _peak_at: float = field(init=False, default=0.0)

    def __attrs_post_init__(self) -> None:
        self.respecify(self.given)
        self.update_derived(0.0, 0.0)

    def respecify(self, spec: UpstreamServer) -> None:
        """
        Put `spec` in force; its endpoint must be the same as before.

        Call `update_derived` after it.
        """
        self.spec = spec
        self.name = spec.name
        self.limit = spec.max_sessions or inf
        self.proxy_version = proxy_version(spec, self.pool_proxy_version)

    def update_derived(self, now: float, slow_start: float) -> None:
        """Derive `open`, `usable` and `weight`, which the hot path reads, from the state."""
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

    def add_connect_time(self, seconds: float) -> None:
        """Add a connect of `seconds` to the average."""
        now = self._seconds()
        if self._peak:
            if seconds <= self._peak and now - self._peak_at < SAMPLE:
                return
            kept = exp((self._peak_at - now) / DECAY)
            seconds = max(seconds, self._peak * kept + seconds * (1 - kept))
        self._peak = seconds
        self._peak_at = now

    def forget_connect_times(self) -> None:
        """Reset the average: the connect time is unknown."""
        self._peak = 0.0

    def status(self) -> ServerStatus:
        """A snapshot of the server."""
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
            bytes_to_upstream=self.bytes_to_upstream,
            bytes_to_downstream=self.bytes_to_downstream,
            checks_passed=self.checks_passed,
            checks_failed=self.checks_failed,
            connect_time=self.connect_time,
        )
