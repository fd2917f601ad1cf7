"""Two hundred random sessions at once: every byte is checked, and nothing is left."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from evproxy.model import Ending
from evproxy.records import SessionRecord
from tests.support.agents import Agent, Plan
from tests.support.collector import alive
from tests.support.proxies import Proxied

pytestmark = [
    pytest.mark.lingering,
    pytest.mark.staged,
    pytest.mark.oldest_twisted,
    pytest.mark.every_reactor,
]

SESSIONS = 200


@define
class Pair:
    """The two agents of one session, and their plans."""

    client: Agent
    server: Agent
    client_plan: Plan
    server_plan: Plan
    port: int

    def wrongs(self, record: SessionRecord, forgetful: bool) -> Iterator[str]:
        """Return the faults of the session, given its record."""
        client, server = self.client, self.server
        yield from received_wrong("server", server, client, self.client_plan, forgetful)
        yield from received_wrong("client", client, server, self.server_plan, forgetful)
        for count, sender, receiver in (
            (record.bytes_to_upstream, self.client, self.server),
            (record.bytes_to_downstream, self.server, self.client),
        ):
            if not receiver.received <= count <= sender.sent:
                yield f"recorded {count} of {sender.sent} sent, {receiver.received} received"
        if record.reason.how is not Ending.FINISHED and not self.resets:
            yield f"ended by {record.reason}"
        if record.reason.how not in (Ending.FINISHED, Ending.RESET):
            yield f"nobody asked for {record.reason}"

    @property
    def resets(self) -> bool:
        return self.client.resets or self.server.resets


def received_wrong(
    name: str, receiver: Agent, sender: Agent, plan: Plan, forgetful: bool
) -> Iterator[str]:
    """
    Return the faults in the bytes that one agent got from the other.

    Twisted's own transports are `forgetful`: after a failed send, they do not read any more.
    """
    got = f"{name} got {receiver.received} of {sender.sent} bytes"
    if receiver.wrong is not None:
        yield f"{name} got something else from byte {receiver.wrong} on"
    if receiver.received > sender.sent:
        yield f"{got}: more than there was"
    if receiver.saw_end and not sender.ended:
        yield f"{got} and an end that was none"
    if receiver.saw_end and receiver.received != plan.total:
        yield f"{got} and an end before it"
    if receiver.saw_reset and not (receiver.resets or sender.resets):
        yield f"{got} and a reset that was none"
    if not (receiver.saw_end or receiver.saw_reset or receiver.resets):
        yield f"{got} and no end"
    if not receiver.resets and receiver.received != sender.sent:
        if not sender.resets:
            yield f"{got} though nobody reset"
        elif sender.emptied and not forgetful:
            yield f"{got} though all were delivered to evproxy before the reset"


@pytest.mark.deadline(40)
async def test_two_hundred_sessions_by_chance(proxied: Proxied, no_collector: None) -> None:
    """
    Whatever the peers do, each gets the other's bytes in order.

    A peer gets an end only after all bytes, and all bytes that were delivered before a reset.
    Afterwards, nothing of a session is left.
    """
    seed = int(os.environ.get("EVPROXY_TEST_SEED") or random.randrange(2**32))
    chance = random.Random(seed)
    await proxied.start()
    before = alive()
    pairs = await run(proxied, chance)
    records = {int(each.peer.rpartition(":")[2]): each for each in proxied.observed.records}
    wrong = [
        f"session {number}: {what}; {pair.client_plan}; {pair.server_plan}"
        for number, pair in enumerate(pairs)
        for what in pair.wrongs(records[pair.port], proxied.kind == "stream-twisted")
    ]
    assert not wrong, f"EVPROXY_TEST_SEED={seed}\n" + "\n".join(wrong)
    assert len(proxied.observed.records) == SESSIONS
    assert {each.relay for each in records.values()} == {proxied.relay}
    assert any(pair.resets for pair in pairs)
    assert not all(pair.resets for pair in pairs)
    del pairs
    assert not alive() - before, f"EVPROXY_TEST_SEED={seed}"


async def run(proxied: Proxied, chance: random.Random) -> list[Pair]:
    """Connect the sessions, let all agents act at once, and wait until each session is over."""
    over: Deferred[None] = Deferred()
    acting = 2 * SESSIONS

    def done() -> None:
        nonlocal acting
        acting -= 1
        if not acting:
            over.callback(None)

    def agent(sock: Any, plan: Plan, expected: Plan) -> Agent:
        own = random.Random(chance.random())
        return Agent(proxied.reactor, sock, plan, expected, own, done)

    pairs = []
    for _ in range(SESSIONS):
        client, server = await proxied.pair()
        client_plan, server_plan = Plan.drawn(chance), Plan.drawn(chance)
        pairs.append(
            Pair(
                agent(client.socket, client_plan, server_plan),
                agent(server.socket, server_plan, client_plan),
                client_plan,
                server_plan,
                client.socket.getsockname()[1],
            )
        )
    for pair in pairs:
        pair.client.start()
        pair.server.start()
    await over
    await proxied.observed.ended(SESSIONS)
    # The observer is notified of the last session while its sockets are still being closed.
    await deferLater(proxied.reactor, 0)
    return pairs
