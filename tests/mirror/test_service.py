"""Mirrors of a service: its file, its listeners, reloads and its end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from evproxy import (
    HealthCheck,
    ListenerSettings,
    Mirror,
    PoolSettings,
    ProxyService,
    Settings,
    Timeouts,
)
from evproxy.config.document import parse
from evproxy.config.reading import Surroundings
from evproxy.config.sharing import share
from evproxy.errors import SettingsError
from evproxy.model import UpstreamServer
from evproxy.wire.postgres import SSL_REQUEST
from tests.mirror.test_mirrors import Copies
from tests.session.test_declared_routes import hello
from tests.support.configs import SOUND, problems
from tests.support.peers import END, RESET, Listening, Peer
from tests.support.services import ANY_PORT, Ground, until

PAGE = Path(__file__).resolve().parents[2] / "docs" / "mirror.md"


class Shadowed:
    """A service with a mirror, and its second server."""

    def __init__(self, ground: Ground, listen: str = ANY_PORT, **mirror: Any) -> None:
        self.ground = ground
        self.others: list[Listening] = []
        self.second = self.server()
        self.copies = Copies()
        self.settings = Settings(
            listeners=(ListenerSettings(listen, name="web", pool="web"),),
            pools=(
                self.pool("web", ground.upstream.port, Mirror("next", **mirror)),
                self.pool("next", self.second.port),
            ),
            timeouts=Timeouts(drain=5.0),
        )
        self.service: ProxyService

    def server(self) -> Listening:
        """A server socket that ends with the test."""
        self.others.append(Listening.tcp(self.ground.reactor))
        return self.others[-1]

    def pool(self, name: str, port: int, mirror: Mirror | None = None) -> PoolSettings:
        """The settings of a pool of one server."""
        servers = (UpstreamServer(f"127.0.0.1:{port}"),)
        return PoolSettings(name=name, upstreams=servers, mirror=mirror)

    def start(self, **settings: Any) -> None:
        """Start the service, which ends with the test."""
        reactor = self.ground.reactor
        self.service = ProxyService.from_settings(
            reactor, evolve(self.settings, **settings), observers=[self.copies]
        )
        self.ground.services.append(self.service)
        self.service.startService()

    async def pair(self) -> tuple[Peer, Peer]:
        """A client that has sent a byte, and its server."""
        client = self.ground.client(self.service)
        server = await self.ground.upstream.accept()
        await client.send(b"?")
        assert await server.receive(1) == b"?"
        return client, server

    async def trio(self) -> tuple[Peer, Peer, Peer]:
        """The same, and the server of the copy, which has the byte too."""
        client, server = await self.pair()
        second = await self.second.accept()
        assert await second.receive(1) == b"?"
        return client, server, second


@pytest.fixture
def shadow(ground: Ground) -> Iterator[Callable[..., Shadowed]]:
    """Makes a service with a mirror; its second server ends with the test."""
    made: list[Shadowed] = []

    def make(*arguments: Any, **mirror: Any) -> Shadowed:
        made.append(Shadowed(ground, *arguments, **mirror))
        return made[-1]

    yield make
    for shadowed in made:
        for server in shadowed.others:
            server.close()


Make = Callable[..., Shadowed]


@pytest.mark.every_reactor
async def test_the_example_of_the_page(shadow: Make) -> None:
    """The file in the documentation copies a session, and compares its answers."""
    found = re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    shadowed = shadow()
    text = found[1].replace("fraction = 0.05", "fraction = 1").replace(":8080", ":0")
    text = text.replace("10.0.0.1:8000", f"127.0.0.1:{shadowed.ground.upstream.port}")
    text = text.replace("10.0.0.2:8000", f"127.0.0.1:{shadowed.second.port}")
    shadowed.settings = parse(text, Surroundings())
    shadowed.start()
    client, server, copied = await shadowed.trio()
    for each in (client, server, copied):
        if each is not client:
            await each.send(b"answer")
        each.end()
    assert await client.rest() == (b"answer", END)
    record = await shadowed.copies.only()
    assert (record.outcome, record.answers) == ("whole", "equal")
    assert (record.pool, record.mirror, record.listener) == ("web", "next", "web")


async def test_a_unix_listener(shadow: Make, tmp_path: Path) -> None:
    """Sessions of a UNIX socket are copied, too."""
    shadowed = shadow(f"unix:{tmp_path}/web.sock", hash="peer")
    shadowed.start()
    client, _, second = await shadowed.trio()
    client.end()
    assert await second.rest() == (b"", END)


@pytest.mark.parametrize("answer", [b"S", b"N"])
async def test_postgres_that_asks_for_tls(shadow: Make, answer: bytes) -> None:
    """evproxy asks the second server for TLS as it asks the first one."""
    shadowed = shadow()
    (web,) = shadowed.settings.listeners
    listeners = (evolve(web, preread="postgres"),)
    shadowed.start(listeners=listeners)
    client = shadowed.ground.client(shadowed.service)
    await client.send(SSL_REQUEST)
    assert await client.receive(1) == b"S"
    await client.send(hello("db.example.org"))
    server = await shadowed.ground.upstream.accept()
    assert await server.receive(8) == SSL_REQUEST
    await server.send(b"S")
    second = await shadowed.second.accept()
    assert await second.receive(8) == SSL_REQUEST
    await second.send(answer)
    first = await server.receive(100)
    if answer == b"S":
        assert await second.receive(100) == first
    else:
        assert await second.rest() == (b"", RESET)
        assert (await shadowed.copies.only()).outcome == "unreachable"


async def test_reloads(shadow: Make) -> None:
    """New sessions have the mirror of the reload; a copy goes on, also if its pool is removed."""
    shadowed = shadow()
    shadowed.start()
    client, _, second = await shadowed.trio()
    web, following = shadowed.settings.pools
    plain = evolve(shadowed.settings, pools=(evolve(web, mirror=None),))
    await shadowed.service.reload(plain)
    await shadowed.pair()
    assert shadowed.second.nobody_waits()
    await client.send(b"more")
    assert await second.receive(4) == b"more"
    third = shadowed.server()
    other = shadowed.pool("other", third.port)
    changed = (evolve(web, mirror=Mirror("other")), following, other)
    await shadowed.service.reload(evolve(plain, pools=changed))
    await shadowed.pair()
    await third.accept()
    with pytest.raises(SettingsError, match=r'pools.web.mirror.pool: there is no pool "gone"'):
        await shadowed.service.reload(
            evolve(plain, pools=(evolve(web, mirror=Mirror("gone")), following))
        )


async def test_a_drain(shadow: Make) -> None:
    """Copies that hang, or wait in a queue, hold a drain up no longer than their bound."""
    shadowed = shadow()
    web, following = shadowed.settings.pools
    full = evolve(following.upstreams[0], max_sessions=1)
    following = evolve(following, upstreams=(full,), queue_timeout=60.0)
    shadowed.settings = evolve(shadowed.settings, pools=(web, following))
    shadowed.start()
    reactor, service = shadowed.ground.reactor, shadowed.service
    client, server, second = await shadowed.trio()
    waiting, its_server = await shadowed.pair()
    for each in (client, server, waiting, its_server):
        each.end()
    assert await client.rest() == await waiting.rest() == (b"", END)
    await until(reactor, lambda: service.overview().session_count == 0)
    assert await second.rest() == (b"", END)
    began = reactor.seconds()
    await service.stopService()
    assert 0.9 < reactor.seconds() - began < 3
    outcomes = {(record.outcome, record.bytes_sent) for record in shadowed.copies.records}
    assert outcomes == {("whole", 1), ("stopped", 0)}


async def test_a_copy_waits_for_a_slot(shadow: Make) -> None:
    """It gets one when a copy ends, also after the end of its session."""
    shadowed = shadow()
    web, following = shadowed.settings.pools
    full = evolve(following.upstreams[0], max_sessions=1)
    following = evolve(following, upstreams=(full,), queue_timeout=60.0)
    shadowed.settings = evolve(shadowed.settings, pools=(web, following))
    shadowed.start()
    await shadowed.trio()
    client, _ = await shadowed.pair()
    client.reset()
    await shadowed.service.drain(0)
    assert [record.outcome for record in shadowed.copies.records] == ["whole", "whole"]


async def test_a_server_that_goes_down(shadow: Make) -> None:
    """A second pool that resets the sessions of such servers drops their copies."""
    shadowed = shadow()
    web, following = shadowed.settings.pools
    check = HealthCheck(interval=0.02, timeout=0.02, fall=1, rise=1)
    following = evolve(following, health_check=check, on_down="reset")
    shadowed.settings = evolve(shadowed.settings, pools=(web, following))
    shadowed.start()
    client, server, second = await shadowed.trio()
    shadowed.second.socket.close()
    assert (await shadowed.copies.only()).outcome == "server-down"
    assert (await second.rest())[1] == RESET
    await client.send(b"more")
    assert await server.receive(4) == b"more"
    second.close()


@pytest.mark.parametrize(
    ("mirror", "expected"),
    [
        ('{pool = "wbe"}', '.pool: there is no pool "wbe", did you mean "web"?'),
        ('{pool = "web"}', '.pool: "web" is the pool itself: a copy needs another one'),
        ("{fraction = 0.5}", ".pool: required, but missing"),
        ('{pool = "x", fraction = 1.5}', ".fraction: expected a number from 0 to 1, got 1.5"),
        ('{pool = "x", answers = "keep"}', '.answers: expected one of "drop" or "compare", got'),
        ('{pool = "x", buffer = 0}', ".buffer: expected a whole number from 1 to 1073741824"),
        ('{pool = "x", what = 1}', ".what: unknown key"),
        ('"x"', ": expected a table"),
    ],
)
def test_wrong_mirrors(mirror: str, expected: str) -> None:
    """Each wrong key has one line with its path."""
    text = SOUND.replace("[pools.web]", f"[pools.web]\nmirror = {mirror}", 1)
    text += '\n[pools.x]\nupstreams = ["127.0.0.9:9"]\n'
    text = text.replace("[[listeners]]", '[[listeners]]\npool = "web"', 1)
    found = problems(text)
    assert any(line.startswith(f"pools.web.mirror{expected}") for line in found), found


def test_a_mirror_that_leads_back(shadow: Make) -> None:
    """A copy must not come back to its listener: it would be copied for ever."""
    shadowed = shadow("tcp:9999:interface=127.0.0.1")
    web, _ = shadowed.settings.pools
    pools = (web, shadowed.pool("next", 9999))
    with pytest.raises(SettingsError, match="leads back to the listener"):
        ProxyService.from_settings(shadowed.ground.reactor, evolve(shadowed.settings, pools=pools))


def test_workers_share_copies(shadow: Make) -> None:
    """The bound on copies is that of all workers together."""
    shadowed = shadow(max_copies=5)
    parts = [share(shadowed.settings, worker, 2).pools[0].mirror for worker in range(2)]
    assert [part.max_copies for part in parts if part is not None] == [3, 2]
