"""
The proxy as the admin interface sees it: what it may ask, and what it may change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from evproxy.config.changes import Changes
from evproxy.observe.metrics.family import MetricSource
from evproxy.observe.metrics.tally import Tally
from evproxy.service.status import Status
from evproxy.session.admission import Admission
from evproxy.settings import Settings
from evproxy.sockets.plane import DataPlane
from evproxy.upstream.pool.pool import Pool


class Administered(Protocol):
    """A proxy that has an admin interface; `evproxy.ProxyService` is one."""

    @property
    def settings(self) -> Settings: ...

    @property
    def pools(self) -> dict[str, Pool]: ...

    @property
    def admission(self) -> Admission: ...

    @property
    def tally(self) -> Tally | None:
        """Counts what happens, for metrics; ``None``: nothing does."""

    @property
    def plane(self) -> DataPlane: ...

    @property
    def log_lines_dropped(self) -> int:
        """How many lines of the access log were dropped."""

    @property
    def metric_sources(self) -> Sequence[MetricSource]:
        """Further metrics: each a scope, and what returns its families now."""

    def overview(self) -> Status:
        """A snapshot without servers and sessions, which takes the same time for any number."""

    def end_session(self, session_id: int) -> None:
        """Reset one session."""

    def end_sessions_of(self, pool: str, server: str, over: float = 0.0) -> Deferred[int]:
        """Reset the sessions of one server, evenly within `over` seconds; fires with how many."""

    def reload(self) -> Deferred[Changes]:
        """Read the settings again, and use them."""

    def drain(self, deadline: float | None) -> Deferred[Any]:
        """Accept nothing new, and let running sessions finish."""
