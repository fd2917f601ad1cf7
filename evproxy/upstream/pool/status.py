"""Snapshots of a pool and of its servers."""

from __future__ import annotations

from attrs import frozen

from evproxy.model import UpstreamServer

STATES = ("up", "down", "ejected", "draining")
"""The states of a server."""


@frozen(kw_only=True)
class ServerStatus:
    """
    A snapshot of an upstream server for status pages and metrics.

    `state` is one of `STATES`; `why` is the reason for the state,
    and `since` is when it began, in seconds on the reactor's clock.  `until` is when the
    ejection ends, on the same clock, even if the server is also down or draining; ``None``: the
    server is not ejected.  `weight` is the effective weight.
    `sessions` is how many sessions hold a slot now; `sessions_total`, `connect_failures`,
    `ejections`, `checks_passed` and `checks_failed` count from the beginning, and so do the bytes
    of sessions that have ended, where metrics are collected.  `connect_time` is
    the decaying peak average, in seconds; a failed connect counts as one that took the whole
    `connect_timeout`.
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
    bytes_to_upstream: int = 0
    bytes_to_downstream: int = 0
    checks_passed: int = 0
    checks_failed: int = 0


@frozen(kw_only=True)
class PoolStatus:
    """
    A snapshot of a pool for status pages and metrics.

    `servers` that left the pool but still have sessions come last.  `waiting` is how many
    sessions are in the queue.
    """

    name: str
    servers: tuple[ServerStatus, ...]
    waiting: int
