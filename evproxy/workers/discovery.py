"""
Discovery in a worker: the bounds of the servers that are found are shared out among the workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evproxy.interfaces import Discovery, PartlyFailing
from evproxy.model import UpstreamServer


class SharedDiscovery:
    """
    A `Discovery` that returns the share of this worker.

    :param discovery: finds the servers.
    :param mine: returns the share of a server.
    """

    def __init__(
        self, discovery: Discovery, mine: Callable[[UpstreamServer], UpstreamServer]
    ) -> None:
        self._discovery = discovery
        self._mine = mine

    @property
    def problems(self) -> Sequence[str]:
        """The problems of the last set of servers."""
        return self._discovery.problems if isinstance(self._discovery, PartlyFailing) else ()

    def start(
        self,
        changed: Callable[[Sequence[UpstreamServer]], None],
        failed: Callable[[str], None],
    ) -> None:
        """See `evproxy.interfaces.Discovery`."""
        self._discovery.start(lambda servers: changed([*map(self._mine, servers)]), failed)

    def stop(self) -> None:
        """See `evproxy.interfaces.Discovery`."""
        self._discovery.stop()
