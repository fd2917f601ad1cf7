"""
The proxy as the admin interface sees it: what it may ask, and what it may change.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import Deferred

from evproxy.service.status import Status
from evproxy.session.admission import Admission
from evproxy.settings import Settings
from evproxy.upstream.pool.pool import Pool


class Administered(Protocol):
    """A proxy that has an admin interface; `evproxy.ProxyService` is one."""

    @property
    def settings(self) -> Settings: ...

    @property
    def pools(self) -> dict[str, Pool]: ...

    @property
    def admission(self) -> Admission: ...

    def overview(self) -> Status:
        """A snapshot without servers and sessions, which takes the same time for any number."""

    def end_session(self, session_id: int) -> None:
        """Reset one session."""

    def end_sessions_of(self, pool: str, server: str, over: float = 0.0) -> Deferred[int]:
        """Reset the sessions of one server, evenly within `over` seconds; fires with how many."""

    def drain(self, deadline: float | None) -> Deferred[Any]:
        """Accept nothing new, and let running sessions finish."""
