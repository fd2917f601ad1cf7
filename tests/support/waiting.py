"""Waiting until a condition holds."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred


class Waiting:
    """Callers that wait for conditions; call `look` after each change."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def until(self, holds: Callable[[], bool]) -> Deferred[None]:
        """Return a Deferred that fires once `holds` is true; checked now and after each change."""
        deferred: Deferred[None] = Deferred()
        self._waiting.append((holds, deferred))
        self.look()
        return deferred

    def look(self) -> None:
        """Check the conditions after a change."""
        done = [each for each in self._waiting if each[0]()]
        self._waiting = [each for each in self._waiting if each not in done]
        for _, deferred in done:
            deferred.callback(None)
