"""
Changes of servers that a worker does not know yet: they are made once discovery finds the servers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from evproxy.admin.answers import Answer
from evproxy.config.canonical import server_name
from evproxy.workers.messages import Operate
from evproxy.workers.server_observer import ServerObserver

MOST_LATE = 10_000
"""The most changes that wait for their server; further ones are not made."""


class LateChanges(ServerObserver):
    """
    Makes changes of operators again in a worker that is new.  Satisfies
    `evproxy.observers.PoolObserver`.

    :param reactor: a change follows in the turn after the one in which its server joins.
    :param operate: runs an operation.
    """

    def __init__(self, reactor: Any, operate: Callable[[Operate], Deferred[Answer]]) -> None:
        self._reactor = reactor
        self._operate = operate
        self._waiting: dict[tuple[str, str], list[Operate]] = {}
        self._count = 0

    def make(self, change: Operate, discovers: bool) -> Deferred[Answer]:
        """
        Make `change`, now or when its server joins the pool for the first time.

        :param discovers: whether its pool discovers servers.
        :return: the answer of now.
        """
        if change.name == "add_server":
            # What waits was done before, to a server of that name that discovery had found.
            name = server_name(change.body.name)
            self._count -= len(self._waiting.pop((change.places["pool"], name), ()))

        def made(answer: Answer) -> Answer:
            if answer.code == 404 and discovers and self._count < MOST_LATE:
                key = change.places["pool"], server_name(change.places["server"])
                self._waiting.setdefault(key, []).append(change)
                self._count += 1
            return answer

        return self._operate(change).addCallback(made)

    def server_changed(self, pool: str, server: str, state: str, why: str) -> None:
        """If a server has joined that changes wait for, make them."""
        if state == "added" and (pool, server) in self._waiting:
            # Other observers are told of the server first.
            self._reactor.callLater(0, self._joined, self._waiting.pop((pool, server)))

    def _joined(self, changes: list[Operate]) -> None:
        self._count -= len(changes)
        for change in changes:
            # It may be gone again: then the answer says so, to nobody.
            self._operate(change)
