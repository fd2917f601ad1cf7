"""Faults of connects: refused, and hanging."""

from __future__ import annotations

from math import inf

import pytest
from twisted.internet.error import ConnectError
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.task import Clock

from evproxy import PoolSettings
from evproxy.causes import Cause
from evproxy.endpoints import PoolEndpoint
from evproxy.engine.slices import SLICE
from evproxy.errors import SettingsError
from evproxy.faults import Faults, hang, latency, refused
from evproxy.faults.connects import HangingConnects
from evproxy.faults.schedule import active_for
from evproxy.model import Ending, Phase, Side, UpstreamServer
from evproxy.settings import FaultSettings
from tests.support.peers import END, RESET, Listening, converse, turn
from tests.support.proxies import Proxied

pytestmark = pytest.mark.parametrize("proxied", ["socket"], indirect=True)

REFUSED = "Connection was refused by other side: 111: Connection refused."


async def test_a_refused_connect_goes_on_with_the_next_server(proxied: Proxied) -> None:
    """The attempt fails like one that the server refuses, and the session gets another server."""
    other = proxied.closes(Listening.tcp(proxied.reactor))
    first = f"127.0.0.1:{other.port}"
    faults = Faults(proxied.reactor, [refused(server=first)])
    upstreams: list[str | UpstreamServer] = [first]
    upstreams += [UpstreamServer(f"127.0.0.1:{proxied.upstream.port}", backup=True)]
    await proxied.start(stages=[faults], upstreams=upstreams)
    client, server = await proxied.pair()
    await converse(client, server)
    assert proxied.observed.failures == [(first, REFUSED)]
    (status,) = proxied.factory.sessions()
    assert status.attempts == 2


async def test_a_client_whose_servers_refuse(proxied: Proxied) -> None:
    """The session ends as with servers that are not there."""
    await proxied.start(faults=[refused()])
    client = proxied.client()
    assert await client.rest() == (b"", RESET)
    await proxied.observed.ended()
    record = proxied.observed.records[0]
    assert (record.reason.by, record.reason.how) == (Side.UPSTREAM, Ending.UNREACHABLE)
    assert record.error.endswith(REFUSED)
    assert record.cause == Cause.CONNECT_FAILED.value


async def test_a_refused_client(proxied: Proxied) -> None:
    """The client is reset, and no server is asked."""
    await proxied.start(stages=[Faults(proxied.reactor, [refused(stream="downstream")])])
    client = proxied.client()
    assert await client.rest() == (b"", RESET)
    await proxied.observed.ended()
    record = proxied.observed.records[0]
    reason = record.reason
    assert (reason.by, reason.how, reason.phase) == (Side.PROXY, Ending.FAULT, Phase.CONNECTING)
    assert record.error == "a fault refuses the client"
    assert not proxied.observed.failures


async def test_a_connect_hangs_until_its_timeout(proxied: Proxied) -> None:
    """The attempt fails like one that gets no answer."""
    await proxied.start(faults=[hang()], connect_timeout=0.1)
    client = proxied.client()
    began = proxied.reactor.seconds()
    assert await client.rest() == (b"", RESET)
    assert proxied.reactor.seconds() - began >= 0.1
    await proxied.observed.ended()
    record = proxied.observed.records[0]
    assert record.cause == Cause.CONNECT_TIMEOUT.value
    assert record.error.endswith("timed out after 0.1 s")


@pytest.mark.parametrize("how", ["over", "removed", "replaced", "cleared"])
async def test_a_connect_goes_on(proxied: Proxied, how: str) -> None:
    """A connect that hangs goes on once the fault is over, with the bytes that came meanwhile."""
    lasts = 0.1 if how == "over" else 0.0
    began = proxied.reactor.seconds()
    of_listener = Faults(proxied.reactor, [hang(lasts=lasts)])
    of_pool = hang(lasts=0.15)
    await proxied.start(stages=[of_listener], faults=[of_pool])
    client = proxied.client()
    await client.send(b"early")
    await hanging(proxied)
    if how == "removed":
        of_listener.remove("hang_upstream")
    elif how == "replaced":
        of_listener.replace("hang_upstream", refused(server="another"))
    elif how == "cleared":
        of_listener.clear()
    server = await proxied.upstream.accept()
    assert await server.receive(5) == b"early"
    assert proxied.reactor.seconds() - began >= 0.15
    await converse(client, server)


async def hanging(proxied: Proxied) -> None:
    """Wait until a session connects, and some turns more."""
    while [each.phase for each in proxied.factory.sessions()] != [Phase.CONNECTING]:
        await turn(proxied.reactor)
    for _ in range(10):
        await turn(proxied.reactor)
    (status,) = proxied.factory.sessions()
    assert status.phase is Phase.CONNECTING


async def test_a_client_leaves_while_the_connect_hangs(proxied: Proxied) -> None:
    """The session ends, and the fault keeps nothing of it: removing the fault connects nobody."""
    faults = Faults(proxied.reactor, [hang()])
    await proxied.start(stages=[faults])
    client = proxied.client()
    await hanging(proxied)
    client.reset()
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.LEFT
    faults.clear()
    client, server = await proxied.pair()
    server.end()
    assert await client.rest() == (b"", END)


async def test_a_hanging_connect_keeps_the_proxy_header(proxied: Proxied) -> None:
    """The server gets the header first, as without the fault."""
    server_with_header = UpstreamServer(f"127.0.0.1:{proxied.upstream.port}", send_proxy_protocol=1)
    await proxied.start(faults=[hang(lasts=0.02)], upstreams=[server_with_header])
    client, server = await proxied.pair()
    await client.send(b"hello")
    client.end()
    received, how = await server.rest()
    assert (received[:11], received[-7:], how) == (b"PROXY TCP4 ", b"\r\nhello", END)


async def test_the_same_seed_refuses_the_same_connects(proxied: Proxied) -> None:
    """The n-th connect has the same draw in each run; about half of them fail."""
    await proxied.start()
    await proxied.pair()
    (status,) = proxied.factory.sessions()
    runs = []
    for seed in (7, 7, 8):
        faults = Faults(proxied.reactor, [refused(probability=0.5)], seed=seed)
        runs.append([faults.of_connect(status) is None for _ in range(40)])
    assert runs[0] == runs[1] != runs[2]
    assert 10 < sum(runs[0]) < 30


async def test_an_endpoint_of_a_pool_with_faults(proxied: Proxied) -> None:
    """The program's connect fails, with the reason."""
    settings = PoolSettings(upstreams=(UpstreamServer("127.0.0.1:1"),), faults=(refused(),))
    with pytest.raises(ConnectError, match="Connection was refused"):
        await PoolEndpoint(proxied.reactor, settings).connect(Factory.forProtocol(Protocol))


async def test_a_fault_takes_the_place_of_one_of_its_own_sort(proxied: Proxied) -> None:
    """A fault of bytes cannot replace a fault of connects, nor the other way round."""
    faults = Faults(proxied.reactor, [hang(name="one"), latency(1.0, name="two")])
    with pytest.raises(SettingsError, match="faults: 'one' is of kind hang"):
        faults.replace("one", latency(1.0, stream="upstream"))
    with pytest.raises(SettingsError, match="faults: 'two' is of kind latency"):
        faults.replace("two", hang())
    assert [each.kind for each in faults.current.values()] == ["hang", "latency"]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({}, {0: inf, 99: inf}),
        ({"after": 2.0}, {1: 0.0, 2: inf}),
        ({"lasts": 3.0}, {0: 3.0, 2: 1.0, 3: 0.0, 50: 0.0}),
        ({"after": 1.0, "lasts": 3.0, "every": 10.0}, {0: 0.0, 1: 3.0, 4: 0.0, 12: 2.0, 15: 0.0}),
    ],
)
def test_how_long_a_fault_of_connects_is_active(
    proxied: Proxied, schedule: dict[str, float], expected: dict[float, float]
) -> None:
    """The time counts from when the fault was injected."""
    fault = FaultSettings("hang", **schedule)  # type: ignore[arg-type]
    assert {age: active_for(fault, age) for age in expected} == expected


def test_many_connects_go_on_in_slices(proxied: Proxied) -> None:
    """A fault that is removed lets go only so many connects in one turn of the reactor."""
    clock = Clock()
    dialed: list[float] = []
    hanging = HangingConnects(clock)

    def dial(seconds: float) -> None:
        dialed.append(seconds)

    for _ in range(SLICE + 1):
        hanging.one(inf).connect(ClientFactory(), 5.0, dial)
    hanging.release()
    assert len(dialed) == SLICE
    clock.advance(0)
    assert dialed == [5.0] * (SLICE + 1)
    assert not clock.getDelayedCalls()
