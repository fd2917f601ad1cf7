"""
Servers that discovery brings back: what operators had done to them before is undone by that.
"""

from __future__ import annotations

from collections.abc import Callable

from evproxy.admin.answers import Answer
from evproxy.config.canonical import server_name
from evproxy.upstream.pool.members import DISCOVERED
from evproxy.workers.messages import Operate, Returned
from evproxy.workers.server_observer import ServerObserver

MOST_CHANGED = 10_000
"""The most servers with changes that are remembered; the one changed first is forgotten first."""

_UNDONE = ("remove_server", "drain_server", "weigh_server")


class Returns(ServerObserver):
    """
    Tells the supervisor of servers that operators have changed in this worker, and that discovery
    has added again since.  Satisfies `evproxy.observers.PoolObserver`.

    :param tell: sends a message to the supervisor.
    """

    def __init__(self, tell: Callable[[object], None]) -> None:
        self._tell = tell
        # In the order in which they were changed.
        self._changed: dict[tuple[str, str], None] = {}

    def made(self, answer: Answer, change: Operate) -> Answer:
        """`change` was made in this worker, or refused: return its `answer`."""
        if answer.code == 200 and change.name in _UNDONE:
            self._changed[change.places["pool"], server_name(change.places["server"])] = None
            if len(self._changed) > MOST_CHANGED:
                del self._changed[next(iter(self._changed))]
        return answer

    def server_changed(self, pool: str, server: str, state: str, why: str) -> None:
        """If discovery has added a server that was changed, say so."""
        if state == "added" and why == DISCOVERED and (pool, server) in self._changed:
            del self._changed[pool, server]
            self._tell(Returned(pool, server))
