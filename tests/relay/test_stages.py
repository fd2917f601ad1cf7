"""Stages between the two sides; `tests/session/test_ends.py` has how sessions with them end."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from evproxy.engine.loop import CHUNK
from evproxy.model import Ending, Side
from evproxy.relay.stages import HELD, PassThrough
from evproxy.sockets.plane import DataPlane
from tests.support.bulk import BULK
from tests.support.leaks import LoggedErrors
from tests.support.peers import END, RESET, converse, turn
from tests.support.proxies import Proxied
from tests.support.stages import Later, Shift

each_kind = pytest.mark.parametrize("proxied", ["socket", "socket-twisted"], indirect=True)


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The stages of the one session of the test."""
    stages: list[Any] = []
    join: Any = DataPlane.join

    def staged(plane: DataPlane, *arguments: Any) -> Any:
        *others, _, paces = arguments
        return join(plane, *others, tuple(stages), paces)

    monkeypatch.setattr(DataPlane, "join", staged)
    return stages


@each_kind
async def test_a_stage_changes_bytes(proxied: Proxied, stages: list[Any]) -> None:
    """Each side gets the bytes that the stage made, and the record names the stream relay."""
    stages.append(Shift(1))
    await proxied.start()
    client, server = await proxied.pair()
    await client.send(b"HAL")
    assert await server.receive(3) == b"IBM"
    await server.send(b"HAL")
    assert await client.receive(3) == b"IBM"
    client.end()
    server.end()
    await proxied.observed.ended()
    assert proxied.observed.records[0].relay == "stream"


class Naming(PassThrough):
    """Adds its name to all that passes."""

    def __init__(self, name: bytes) -> None:
        self._name = name

    def upload(self, data: bytes) -> None:
        super().upload(data + self._name)

    def download(self, data: bytes) -> None:
        super().download(data + self._name)


@each_kind
async def test_stages_are_passed_in_order(proxied: Proxied, stages: list[Any]) -> None:
    """The first stage is next to the client."""
    stages += [Naming(b"1"), PassThrough(), Naming(b"2")]
    await proxied.start()
    client, server = await proxied.pair()
    await client.send(b"?")
    assert await server.receive(3) == b"?12"
    await server.send(b"!")
    assert await client.receive(3) == b"!21"


class Equal(Naming):
    """Equals every other `Equal`: a stage may be a value."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal)

    def __hash__(self) -> int:
        return 0


@each_kind
async def test_stages_that_are_equal(proxied: Proxied, stages: list[Any]) -> None:
    """Each of two equal stages is passed once."""
    stages += [Equal(b"1"), Equal(b"2")]
    await proxied.start()
    client, server = await proxied.pair()
    await client.send(b"?")
    assert await server.receive(3) == b"?12"
    await server.send(b"!")
    assert await client.receive(3) == b"!21"


@each_kind
async def test_a_slow_stage_makes_the_peer_wait(proxied: Proxied, stages: list[Any]) -> None:
    """A slow stage holds at most the bound and one read, and loses nothing."""
    later = Later(proxied.reactor, 0.002)
    stages.append(later)
    await proxied.start()
    client, server = await proxied.pair()
    sending = Deferred.fromCoroutine(client.send(BULK))
    sending.addCallback(lambda _: client.end())
    assert await server.rest() == (BULK, END)
    await sending
    assert 0 < later.most < HELD + CHUNK + 1


@each_kind
async def test_what_a_stage_holds_is_delivered_before_a_reset(
    proxied: Proxied, stages: list[Any]
) -> None:
    """A stage with a delay of an hour passes on its bytes when their peer resets."""
    stages.append(Later(proxied.reactor, 3600))
    await proxied.start()
    client, server = await proxied.pair()
    await client.send(b"held")
    while not stages[0].most:
        await turn(proxied.reactor)
    client.reset()
    assert await server.rest() == (b"held", RESET)
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.RESET


class Breaking(PassThrough):
    """Raises an exception when the session is over."""

    def closed(self) -> None:
        super().closed()
        raise ArithmeticError


class Closed(PassThrough):
    """Remembers that the session is over."""

    over = False

    def closed(self) -> None:
        super().closed()
        self.over = True


@each_kind
async def test_a_stage_that_breaks_when_the_session_is_over(
    proxied: Proxied, stages: list[Any], logged_errors: LoggedErrors
) -> None:
    """Each exception is logged, and later stages are still notified that the session is over."""
    stages += [Breaking(), Breaking(), Closed()]
    await proxied.start()
    client, server = await proxied.pair()
    await converse(client, server)
    client.end()
    server.end()
    await proxied.observed.ended()
    assert stages[-1].over
    assert len(logged_errors.flush(ArithmeticError)) == 2


class Refusing(PassThrough):
    """Raises an exception for all bytes of the client."""

    def upload(self, data: bytes) -> None:
        raise ArithmeticError


@pytest.mark.parametrize("proxied", ["socket"], indirect=True)
async def test_a_stage_that_breaks(
    proxied: Proxied, stages: list[Any], logged_errors: LoggedErrors
) -> None:
    """The session is reset, and neither peer is blamed."""
    stages.append(Refusing())
    await proxied.start()
    client, server = await proxied.pair()
    await client.send(b"?")
    assert await server.rest() == (b"", RESET)
    assert await client.rest() == (b"", RESET)
    await proxied.observed.ended()
    reason = proxied.observed.records[0].reason
    assert (reason.by, reason.how) == (Side.PROXY, Ending.ERROR)
    assert len(logged_errors.flush(ArithmeticError)) == 1
