"""The intake keeps the bytes of a client before its session relays, and shows them to a looker."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from evproxy import Client
from evproxy.model import Ending
from tests.support.leaks import LoggedErrors
from tests.support.peers import END, RESET, turn
from tests.support.proxies import Proxied

pytestmark = pytest.mark.deadline(10)


class Looks:
    """A router that answers once `wanted` has arrived, or the client has ended its stream."""

    def __init__(self, proxied: Proxied, wanted: bytes) -> None:
        self._proxied = proxied
        self._wanted = wanted
        self._pending: Deferred[object] = Deferred()
        self.seen: list[bytes] = []

    def route(self, client: Client) -> Deferred[object]:
        [session] = self._proxied.admission.sessions
        assert session.intake is not None
        self._intake = session.intake
        session.intake.looker = self._look
        return self._pending

    def _look(self, data: bytes) -> None:
        intake = self._intake
        self.seen.append(b"".join(intake.chunks or ()))
        assert self.seen[-1].endswith(data)
        if self.seen[-1] == b"break":
            raise ValueError("on purpose")
        if (self._wanted in self.seen[-1] or intake.ended) and not self._pending.called:
            self._pending.callback(self._proxied.pool)


async def test_bytes_that_come_in_pieces(proxied: Proxied) -> None:
    """The looker sees each piece together with the earlier pieces; the server gets all pieces."""
    await proxied.start()
    looks = proxied.factory.context.arrival.router = Looks(proxied, b"\n")
    client = proxied.client()
    for count in range(1, 4):
        await client.send(b"a")
        while len(looks.seen) < count:
            await turn(proxied.reactor)
    await client.send(b"\nb")
    server = await proxied.upstream.accept()
    assert looks.seen == [b"a", b"aa", b"aaa", b"aaa\nb"]
    client.end()
    assert await server.rest() == (b"aaa\nb", END)
    server.end()
    assert await client.rest() == (b"", END)
    await proxied.observed.ended()


async def test_a_stream_that_ends_early(proxied: Proxied) -> None:
    """The looker is called when the stream ends, so it does not wait for more bytes."""
    await proxied.start()
    proxied.factory.context.arrival.router = Looks(proxied, b"\n")
    client = proxied.client()
    await client.send(b"a")
    client.end()
    server = await proxied.upstream.accept()
    assert await server.rest() == (b"a", END)
    server.end()
    assert await client.rest() == (b"", END)
    await proxied.observed.ended()


@pytest.mark.parametrize("proxied", ["socket", "stream"], indirect=True)
async def test_a_looker_that_breaks(proxied: Proxied, logged_errors: LoggedErrors) -> None:
    """If a looker raises, its session ends, and the log has the traceback."""
    await proxied.start()
    proxied.factory.context.arrival.router = Looks(proxied, b"\n")
    client = proxied.client()
    await client.send(b"break")
    assert await client.rest() == (b"", RESET)
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.ERROR
    assert len(logged_errors.flush(ValueError)) == 1
