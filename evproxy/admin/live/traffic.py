"""
How many bytes sessions move now, and how fast they connect: the totals of each interval.

An interval ends with a walk: `begin`, `visit` for each session, `end`.  Sessions that end report
themselves (`session_ended`).  Each byte and each connect counts once.
"""

from __future__ import annotations

from math import inf

from evproxy.admin.live.history import Sample
from evproxy.records import SessionRecord
from evproxy.session.session import Session


class Traffic:
    """
    Sums up the traffic of all sessions; an `evproxy.observers.SessionObserver`.

    :param now: when the first interval begins, in seconds on the reactor's clock.
    """

    def __init__(self, now: float) -> None:
        # The bytes of each session at its last visit, unless it had moved none.
        self._seen: dict[int, tuple[int, int]] = {}
        self._since = self._until = now
        # The last session that the walk has visited; infinite between walks.
        self._visited = inf
        self._last_id = self._started = 0
        self._up = self._down = 0
        self._connects = 0
        self._connect_sum = self._connect_most = 0.0
        self._interval = 1.0

    def session_ended(self, record: SessionRecord) -> None:
        """Count what a session has moved since its last visit."""
        up, down = self._seen.pop(record.id, (0, 0))
        self._up += record.bytes_to_upstream - up
        self._down += record.bytes_to_downstream - down
        self._note(record.id)
        if record.connect_time is not None:
            counted = self._until if record.id <= self._visited else self._since
            self._connected(record.started, record.connect_time, counted, inf)

    def begin(self, now: float) -> None:
        """Begin the walk that ends the interval `now`."""
        self._interval = max(now - self._until, 1e-3)
        self._since, self._until = self._until, now
        self._visited = 0

    def visit(self, session: Session) -> tuple[float, float]:
        """
        Count what `session` has moved since its last visit.

        :return: the bytes a second that it moved to upstream and to downstream in the interval.
        """
        self._visited = session.id
        self._note(session.id)
        relay = session.relay
        if relay is None:
            return 0.0, 0.0
        up, down, _ = relay.totals()
        before_up, before_down = self._seen.get(session.id, (0, 0))
        more_up, more_down = up - before_up, down - before_down
        if more_up or more_down:
            self._seen[session.id] = up, down
            self._up += more_up
            self._down += more_down
        if session.connect_time is not None:
            self._connected(session.started, session.connect_time, self._since, self._until)
        return more_up / self._interval, more_down / self._interval

    def end(self, sessions: int, lag: float | None) -> Sample:
        """Return the sample of the interval, and begin the next one."""
        seconds, connects = self._interval, self._connects
        sample = Sample(
            self._until,
            sessions,
            self._started / seconds,
            self._up / seconds,
            self._down / seconds,
            self._connect_sum / connects if connects else None,
            self._connect_most if connects else None,
            lag,
        )
        self._started = self._up = self._down = self._connects = 0
        self._connect_sum = self._connect_most = 0.0
        self._visited = inf
        return sample

    def _note(self, number: int) -> None:
        if number > self._last_id:
            self._started += number - self._last_id
            self._last_id = number

    def _connected(self, started: float, took: float, since: float, until: float) -> None:
        """Count a session that connected after `since`, and not after `until`."""
        if since < started + took <= until:
            self._connects += 1
            self._connect_sum += took
            self._connect_most = max(self._connect_most, took)
