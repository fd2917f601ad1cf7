"""Servers that operators have changed, and that discovery brings back."""

from __future__ import annotations

import pytest

from evproxy.admin.answers import Problem, as_json
from evproxy.workers.messages import Operate, Returned
from evproxy.workers.returns import Returns

NAME = "127.0.0.1:1"
DONE = as_json({})


class Told:
    def __init__(self) -> None:
        self.messages: list[object] = []
        self.returns = Returns(self.messages.append)

    def made(self, kind: str, name: str = NAME) -> None:
        """An operator has made a change."""
        change = Operate(kind, {"pool": "web", "server": name})
        assert self.returns.made(DONE, change) is DONE

    def added(self, name: str = NAME, why: str = "discovered") -> None:
        """A server has joined the pool."""
        self.returns.server_changed("web", name, "added", why)


@pytest.mark.parametrize("kind", ["remove_server", "drain_server", "weigh_server"])
def test_a_server_that_comes_back(kind: str) -> None:
    """The supervisor is told once, and only of the server that was changed before."""
    told = Told()
    told.added()
    told.made(kind)
    told.added("127.0.0.1:2")
    told.returns.server_changed("web", NAME, "removed", "no longer discovered")
    told.added()
    told.added()
    assert told.messages == [Returned("web", NAME)]


def test_a_server_that_an_operator_adds() -> None:
    """That is another change, and not discovery."""
    told = Told()
    told.made("remove_server")
    told.added(why="by request")
    assert told.messages == []


def test_a_change_that_was_refused() -> None:
    """Nothing was changed."""
    told = Told()
    refused = Problem(404, "there is no such server").answer
    told.returns.made(refused, Operate("drain_server", {"pool": "web", "server": NAME}))
    told.added()
    assert told.messages == []


def test_another_spelling() -> None:
    """A server has one name, however an operator spells it."""
    told = Told()
    told.made("drain_server", "tcp:127.0.0.1:1")
    told.added()
    assert told.messages == [Returned("web", NAME)]


def test_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server that was changed first is forgotten first."""
    monkeypatch.setattr("evproxy.workers.returns.MOST_CHANGED", 1)
    told = Told()
    told.made("drain_server", "127.0.0.1:2")
    told.made("drain_server")
    told.added("127.0.0.1:2")
    told.added()
    assert told.messages == [Returned("web", NAME)]
