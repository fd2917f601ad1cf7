"""
What workers had counted that have died.

Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from attrs import evolve

from evproxy.observe.metrics.families import Numbers
from evproxy.observe.metrics.live import ServerKey
from evproxy.observe.metrics.tally import ListenerTotals, Tally
from evproxy.service.listener import ListenerStatus
from evproxy.upstream.pool.status import ServerStatus
from evproxy.workers.sums import COUNTED, add_totals

MOST_GONE = 4096
"""How many servers that are in no pool are remembered, beside twice as many as there are."""


class Gone:
    """The sums of all workers that have died."""

    def __init__(self) -> None:
        self._tally = Tally()
        self._listeners: dict[str, ListenerTotals] = {}
        self._refused: dict[str, Counter[str]] = {}
        self._servers: dict[ServerKey, Counter[str]] = {}
        self._lost: Counter[str] = Counter()
        self._log_lines_dropped = self._pauses = 0

    def add(self, numbers: Numbers) -> None:
        """
        A worker has died, whose last `numbers` these are.  Its servers are added one by one.

        Its sessions are lost; what they have moved stays.
        """
        self._tally.include_events(numbers.tally)
        self._listeners = add_totals((self._listeners, numbers.listeners))
        for (listener, _), number in numbers.live.phases.items():
            self._lost[listener] += number
        for listener, (up, down) in numbers.live.listener_bytes.items():
            totals = self._listeners.setdefault(listener, ListenerTotals())
            totals.bytes = totals.bytes[0] + up, totals.bytes[1] + down
        for each in numbers.status.listeners:
            self._refused.setdefault(each.name, Counter()).update(each.refused)
        self._log_lines_dropped += numbers.log_lines_dropped
        self._pauses += numbers.pauses

    def add_server(self, key: ServerKey, server: ServerStatus, numbers: Numbers) -> None:
        """Add a server of a worker that has died, with these last `numbers`."""
        up, down = numbers.live.server_bytes.get(key, (0, 0))
        counts = self._servers.setdefault(key, Counter())
        counts.update({name: getattr(server, name) for name in COUNTED})
        counts.update({"bytes_to_upstream": up, "bytes_to_downstream": down})

    def beside(self, numbers: Numbers) -> Numbers:
        """Return `numbers`, which are fresh sums of the workers that live, with those of here."""
        numbers.tally.include_events(self._tally)
        status = numbers.status
        return evolve(
            numbers,
            status=evolve(status, listeners=tuple(map(self._listener, status.listeners))),
            listeners=add_totals((numbers.listeners, self._listeners)),
            log_lines_dropped=numbers.log_lines_dropped + self._log_lines_dropped,
            pauses=numbers.pauses + self._pauses,
            lost=dict(self._lost),
        )

    def of_server(self, key: ServerKey) -> Mapping[str, int]:
        """What workers had counted of one server."""
        return self._servers.get(key, {})

    def forget(self, known: Mapping[ServerKey, object]) -> Iterator[None]:
        """Forget servers that are not `known`, once there are many; a step for each."""
        if len(self._servers) > 2 * len(known) + MOST_GONE:
            for key in tuple(self._servers):
                if key not in known:
                    del self._servers[key]
                yield None

    def _listener(self, listener: ListenerStatus) -> ListenerStatus:
        refused = Counter(listener.refused)
        refused.update(self._refused.get(listener.name, {}))
        return evolve(listener, refused=dict(refused))
