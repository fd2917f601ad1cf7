"""
How many bytes sessions move now, and how fast they connect: the totals of each interval.

An interval ends with a walk: `begin`, `visit` for each session, `end`.  Sessions that have ended
come in batches (`ended`), all of them before `begin` and again before `end`.  Each byte and each
connect counts once.
"""

from __future__ import annotations

from collections.abc import Sequence

from evproxy.admin.live.interval import Interval
from evproxy.session.facts import EndedSessions
from evproxy.session.session import Session


class Traffic:
    """
    Sums up the traffic of all sessions.

    :param now: when the first interval begins, in seconds on the reactor's clock.
    :param last_id: the number of the last session that has begun before.
    :param step: the difference between the numbers of two sessions in a row.
    """

    def __init__(self, now: float, last_id: int = 0, step: int = 1) -> None:
        # The bytes of each session at its last visit, unless it had moved none.
        self._seen: dict[int, tuple[int, int]] = {}
        self._since = self._until = now
        # The sessions whose connects this walk has counted; ``None`` between walks.
        self._counted: set[int] | None = None
        self._last_id, self._step = last_id, step
        self._started = 0
        self._up = self._down = 0
        self._connects = 0
        self._connect_sum = self._connect_most = 0.0
        self._interval = 1.0

    def ended(self, sessions: EndedSessions) -> None:
        """Count what sessions that have ended have moved since their last visit."""
        seen, counted = self._seen, self._counted
        numbers, connects, started = sessions.numbers, sessions.connects, sessions.started
        self._up += sum(sessions.to_upstream)
        self._down += sum(sessions.to_downstream)
        for number in seen.keys() & numbers if seen else ():
            before_up, before_down = seen.pop(number)
            self._up -= before_up
            self._down -= before_down
        self._note(max(numbers))
        since = self._until if counted is None else self._since
        if counted is None and min(started) > since:
            # The common case: each has begun in this interval.
            self._connected([took for took in connects if took is not None])
            return
        self._connected(
            [
                took
                for took, begun, number in zip(connects, started, numbers, strict=True)
                if took is not None
                and begun + took > since
                and (counted is None or number not in counted)
            ]
        )

    def begin(self, now: float) -> None:
        """Begin the walk that ends the interval `now`."""
        self._interval = max(now - self._until, 1e-3)
        self._since, self._until = self._until, now
        self._counted = set()

    def visit(self, session: Session) -> tuple[float, float]:
        """
        Count what `session` has moved since its last visit.

        :return: the bytes a second that it moved to upstream and to downstream in the interval.
        """
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
        took = session.connect_time
        if took is not None and self._since < session.started + took <= self._until:
            assert self._counted is not None
            self._counted.add(session.id)
            self._connected([took])
        return more_up / self._interval, more_down / self._interval

    def end(self, sessions: int, lag: float | None) -> Interval:
        """
        Return what happened in the interval, and begin the next one.

        :param sessions: how many there are.
        :param lag: the longest turn of the loop, in seconds; ``None``: nothing measures it.
        """
        interval = Interval(
            self._until,
            self._interval,
            sessions,
            self._started,
            self._up,
            self._down,
            self._connects,
            self._connect_sum,
            self._connect_most,
            lag,
        )
        self._started = self._up = self._down = self._connects = 0
        self._connect_sum = self._connect_most = 0.0
        self._counted = None
        return interval

    def _note(self, number: int) -> None:
        if number > self._last_id:
            self._started += (number - self._last_id) // self._step
            self._last_id = number

    def _connected(self, took: Sequence[float]) -> None:
        if took:
            self._connects += len(took)
            self._connect_sum += sum(took)
            self._connect_most = max(self._connect_most, max(took))
