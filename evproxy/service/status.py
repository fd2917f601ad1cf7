"""
A snapshot of a service, for logs, metrics, pages and tests.
"""

from __future__ import annotations

from attrs import frozen

from evproxy.observe.watchdog.status import LoopStatus
from evproxy.records import SessionStatus
from evproxy.service.certificates import CertificateStatus
from evproxy.service.listener import ListenerStatus
from evproxy.upstream.pool.status import PoolStatus


@frozen(kw_only=True)
class Status:
    """
    A snapshot of a service.

    `sessions` has the oldest sessions.  `session_count` is the number of all sessions, and
    `max_sessions` their bound.  `draining` says whether the service drains, and `drained` whether
    it has drained and not started again.  `certificates` are those of the listeners that end TLS.
    `loop` is what the watchdog knows; ``None``: there is none.
    """

    listeners: tuple[ListenerStatus, ...]
    pools: tuple[PoolStatus, ...]
    sessions: tuple[SessionStatus, ...]
    session_count: int
    max_sessions: int
    draining: bool
    certificates: tuple[CertificateStatus, ...] = ()
    loop: LoopStatus | None = None
    drained: bool = False

    @property
    def state(self) -> str:
        """``running``, ``draining`` or ``drained``."""
        if self.drained:
            return "drained"
        return "draining" if self.draining else "running"
