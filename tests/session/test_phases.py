"""Sessions make exactly the changes of phase in the table of `evproxy.session.session`."""

from __future__ import annotations

import ast
import inspect
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from evproxy import Client
from evproxy.model import ConnectionInfo, Phase
from evproxy.session import session as session_module
from evproxy.session.facts import SessionFacts
from evproxy.session.phases import TRANSITIONS
from evproxy.session.session import Session
from tests.support.peers import END, RESET, converse, turn
from tests.support.proxies import Proxied

pytestmark = pytest.mark.deadline(10)

Steps = set[tuple[Phase, Phase]]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Records every change of a session's phase."""
    seen: Steps = set()
    slot: Any = vars(SessionFacts)["phase"]

    class Watched:
        def __get__(self, session: Session, owner: type[Session]) -> Phase:
            phase: Phase = slot.__get__(session, owner)
            return phase

        def __set__(self, session: Session, phase: Phase) -> None:
            if phase is not Phase.ACCEPTED:
                seen.add((slot.__get__(session), phase))
            slot.__set__(session, phase)

    monkeypatch.setattr(SessionFacts, "phase", Watched())
    return seen


class Never:
    """A router that does not answer."""

    def route(self, client: Client) -> Deferred[Any]:
        return Deferred()


@pytest.mark.parametrize("proxied", ["socket"], indirect=True)
async def test_every_transition_of_the_table(proxied: Proxied, steps: Steps) -> None:
    """Sessions that end in every way make all the changes of the table, and no other change."""
    await proxied.start()
    # The session finishes.
    client, server = await proxied.pair()
    client.end()
    assert await server.rest() == (b"", END)
    server.end()
    assert await client.rest() == (b"", END)
    # A peer resets.
    client, server = await proxied.pair()
    await converse(client, server)
    client.reset()
    assert await server.rest() == (b"", RESET)
    await proxied.observed.ended(2)
    # The client leaves before a server is connected, and before a pool is chosen.
    for stalled in (True, False):
        if stalled:
            for each in proxied.pool.candidates(ConnectionInfo("127.0.0.1", 1)):
                each.dialer = Stalled()
        else:
            proxied.factory.context.arrival.router = Never()
        client = proxied.client()
        while not proxied.admission.sessions:
            await turn(proxied.reactor)
        client.reset()
        await proxied.admission.sessions.when_empty()
    assert steps == {(before, after) for before, later in TRANSITIONS.items() for after in later}


class Stalled:
    """A dialer that never connects, and its connector."""

    def connect(self, factory: Any, timeout: float, sockets: Any) -> Any:
        return self

    def stopConnecting(self) -> None:
        """Do nothing."""


def test_each_change_is_checked() -> None:
    """Wherever the code sets a phase, the line before asserts that the table allows the change."""
    tree = ast.parse(inspect.getsource(session_module))
    changes = [
        (block, place)
        for node in ast.walk(tree)
        for block in (getattr(node, "body", None), getattr(node, "orelse", None))
        if isinstance(block, list)
        for place, statement in enumerate(block)
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "self.phase"
    ]
    checked = set()
    for block, place in changes:
        phase = ast.unparse(block[place].value)
        if phase == "Phase.ACCEPTED":
            # The initial phase needs no assertion.
            continue
        assert ast.unparse(block[place - 1]) == f"assert self.phase in _BEFORE{phase}"
        checked.add(phase)
    assert len(checked) == len(TRANSITIONS) - 1
