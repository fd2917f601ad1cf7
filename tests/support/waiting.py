"""Waiting until something holds."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred


class Waiting:
    """Those who wait until something holds; call `look` after each change."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def until(self, holds: Callable[[], bool]) -> Deferred[None]:
        """Fires once `holds`, which is looked at now and after each change."""
        deferred: Deferred[None] = Deferred()
        self._waiting.append((holds, deferred))
        self.look()
        return deferred

    def look(self) -> None:
        """Something has changed."""
        done = [each for each in self._waiting if each[0]()]
        self._waiting = [each for each in self._waiting if each not in done]
        for _, deferred in done:
            deferred.callback(None)
