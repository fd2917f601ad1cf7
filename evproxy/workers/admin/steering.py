"""
The operators' side of a supervisor: the admin interface, and what it keeps of the workers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from evproxy.sockets.handed import HandedSockets
from evproxy.workers.admin.changes import MadeChanges
from evproxy.workers.admin.crew import Crew
from evproxy.workers.admin.whole import Whole
from evproxy.workers.measures import Measures
from evproxy.workers.messages import Drained, Measured, Returned, ServerChanged, Walked
from evproxy.workers.process import WorkerProcess
from evproxy.workers.totals import Totals
from evproxy.workers.walks import Walks

if TYPE_CHECKING:
    from evproxy.admin.interface import AdminPort


class Steering:
    """
    What operators see of all workers, and change.

    :param reactor: Twisted's.
    :param proxy: the supervisor, with its slots.
    :param handed: listening sockets that the admin interface may take over.
    :param checks: returns how many checks of a server of a pool have passed, and failed.
    :raises SettingsError: if a setting of the admin interface is wrong.

    `admin` is the admin interface; ``None``: there is none.  `made`: the changes of servers.
    """

    def __init__(
        self,
        reactor: Any,
        proxy: Whole,
        handed: HandedSockets,
        checks: Callable[[str, str], tuple[int, int]],
    ) -> None:
        self.made = MadeChanges()
        self.admin: AdminPort | None = None
        self._measures = Measures()
        self._walks = Walks()
        self._totals = Totals(reactor, len(proxy.slots), checks)
        self._crew = Crew(reactor, proxy.slots, self._totals, self._measures, self._walks)
        settings = proxy.settings.admin
        if settings.listen:
            # An HTTP server is loaded only where it is wanted.
            from evproxy.workers.admin.interface import admin_of_workers

            self.admin = admin_of_workers(reactor, proxy, settings, self._crew, self.made, handed)

    @property
    def poll(self) -> Callable[[], Awaitable[tuple[int, int]]] | None:
        """Measures the workers, for `evproxy.workers.polling.Polling`."""
        return None if self.admin is None else self._crew.poll

    def repeat(self, process: WorkerProcess) -> None:
        """Have `process`, which has been told to start, make the changes of operators."""
        self._crew.repeat(process, self.made)

    def received(
        self, worker: int, message: Measured | Walked | Drained | ServerChanged | Returned
    ) -> None:
        """`worker` has told of a server, a part of what was asked, or its last numbers."""
        if isinstance(message, Measured):
            self._measures.received(worker, message)
        elif isinstance(message, Walked):
            self._walks.received(worker, message)
        elif isinstance(message, ServerChanged):
            self._totals.changes.changed(worker, message.pool, message.server, message.state)
        elif isinstance(message, Returned):
            self.made.forget(message.pool, message.server)
        elif message.numbers is not None:
            self._totals.told(worker, self._measures.at_the_end(worker, message.numbers))

    def died(self, worker: int) -> None:
        """The process of `worker` has ended: keep what it had counted."""
        self._totals.died(worker)
        self._measures.died(worker)
