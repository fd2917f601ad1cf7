"""`ProxyService.reload`: new settings are applied as a whole, or refused as a whole."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint

from evproxy import (
    AccessLogSettings,
    Changes,
    ConfigErrors,
    Discover,
    ListenerSettings,
    Pool,
    PoolSettings,
    ProxyService,
    Settings,
    SettingsError,
    Timeouts,
    UpstreamServer,
)
from evproxy.errors import CannotOpenLog
from evproxy.service.reload_queue import MOST_WAITING
from evproxy.settings import Keepalive, ListenerTLS, PoolTLS
from evproxy.sockets.handed import place_of
from tests.support.certificates import DAY, Authority, names
from tests.support.files import replace
from tests.support.peers import END, IPV6, RESET, Listening, Peer, connect
from tests.support.proxies import Observed
from tests.support.real_servers import free_port
from tests.support.services import ANY_PORT, Ground, listens, until

pytestmark = pytest.mark.oldest_twisted


class Told(Observed):
    """Remembers reloads, too."""

    def __init__(self) -> None:
        super().__init__()
        self.reloads: list[object] = []

    def reload_began(self) -> None:
        self.reloads.append("began")

    def reloaded(self, changes: Changes) -> None:
        self.reloads.append([str(change) for change in changes.lines])

    def reload_refused(self, problems: Sequence[str]) -> None:
        self.reloads.append(tuple(problems))


class Reloaded:
    """A service made of settings, in front of two servers in two pools."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.other = Listening.tcp(ground.reactor)
        self.told = Told()
        self.peers: list[Peer] = []
        self.settings = Settings(
            listeners=(ListenerSettings(ANY_PORT, "one", name="web"),),
            pools=(
                PoolSettings("one", (self.server(ground.upstream),)),
                PoolSettings("two", (self.server(self.other),)),
            ),
            access_log=AccessLogSettings("off"),
            timeouts=Timeouts(drain=0.0),
        )
        self.service = ProxyService.from_settings(ground.reactor, self.settings, [self.told])
        ground.services.append(self.service)

    @staticmethod
    def server(listening: Listening, **fields: Any) -> UpstreamServer:
        return UpstreamServer(f"127.0.0.1:{listening.port}", **fields)

    async def to(self, **fields: Any) -> list[str]:
        """Reload with other settings; return what has changed."""
        self.settings = evolve(self.service.settings, **fields)
        return [str(change) for change in (await self.service.reload(self.settings)).lines]

    async def listener(self, **fields: Any) -> list[str]:
        """Reload with another first listener."""
        first, *others = self.service.settings.listeners
        return await self.to(listeners=(evolve(first, **fields), *others))

    async def refused(self, **fields: Any) -> tuple[str, ...]:
        """Reload with settings that are refused; return the problems."""
        before = self.service.settings
        with pytest.raises(ConfigErrors) as raised:
            await self.service.reload(evolve(before, **fields))
        assert self.service.settings is before
        assert self.told.reloads[-1] == raised.value.problems
        return raised.value.problems

    def client(self, listener: int = 0) -> Peer:
        return self.ground.client(self.service, listener)

    async def served_by(self, listening: Listening, client: Peer | None = None) -> Peer:
        """The server's side of a session of a new client, through which a byte has gone."""
        client = client or self.client()
        server = await listening.accept()
        self.peers.append(server)
        await client.send(b"?")
        assert await server.receive(1) == b"?"
        return server


@pytest.fixture
def reloaded(ground: Ground) -> Any:
    """A service that runs."""
    made = Reloaded(ground)
    made.service.startService()
    yield made
    made.other.close()
    for peer in made.peers:
        peer.close()


async def test_nothing_changes(reloaded: Reloaded) -> None:
    """The same settings change nothing, and the observers are told so."""
    pools, listeners = dict(reloaded.service.pools), reloaded.service.listeners
    assert await reloaded.to() == []
    assert reloaded.told.reloads == ["began", []]
    assert reloaded.service.pools == pools
    assert reloaded.service.listeners == listeners


async def test_another_pool_on_the_same_socket(reloaded: Reloaded) -> None:
    """New sessions go to the new pool; those before keep theirs; the socket stays bound."""
    [address] = reloaded.service.addresses
    client = reloaded.client()
    server = await reloaded.served_by(reloaded.ground.upstream, client)
    assert await reloaded.listener(pool="two") == ['listener web: pool: "one" -> "two"']
    assert reloaded.service.addresses == [address]
    await reloaded.served_by(reloaded.other)
    await client.send(b"more")
    assert await server.receive(4) == b"more"


async def test_a_listener_comes_and_goes(reloaded: Reloaded) -> None:
    """A new listener serves; one that is gone drains: its sessions go on."""
    new = ListenerSettings(ANY_PORT, "one", name="new")
    before = reloaded.service.settings.listeners
    assert await reloaded.to(listeners=(new, *before)) == ["listener new: added"]
    address: Any = reloaded.service.addresses[0]
    client = connect(reloaded.ground.reactor, (address.host, address.port))
    reloaded.peers.append(client)
    server = await reloaded.served_by(reloaded.ground.upstream, client)
    assert await reloaded.to(listeners=before) == ["listener new: removed"]
    await until(reloaded.ground.reactor, lambda: len(reloaded.service.addresses) == 1)
    await client.send(b"still here")
    assert await server.receive(10) == b"still here"


async def test_listeners_without_a_port_keep_their_order(reloaded: Reloaded) -> None:
    """Of listeners with the same description, the first ones stay."""
    first = reloaded.service.settings.listeners[0]
    await reloaded.to(listeners=(first, evolve(first, name="second")))
    addresses = reloaded.service.addresses
    await reloaded.to(listeners=(first,))
    assert reloaded.service.addresses == addresses[:1]
    assert listens(addresses[0])
    assert not listens(addresses[1])


async def test_the_same_settings_twice(reloaded: Reloaded) -> None:
    """Two listeners of one settings object are two listeners."""
    first = reloaded.service.settings.listeners[0]
    await reloaded.to(listeners=(first, first))
    assert await reloaded.to() == []
    assert len({address.port for address in reloaded.service.addresses}) == 2  # type: ignore[union-attr]
    await reloaded.to(listeners=(first,))


async def test_a_port_that_is_taken(reloaded: Reloaded) -> None:
    """If one listener cannot be bound, nothing changes, and none of the others is bound."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port, free = taken.getsockname()[1], free_port()
        first = reloaded.service.settings.listeners[0]
        problems = await reloaded.refused(
            listeners=(
                evolve(first, pool="two"),
                ListenerSettings(f"tcp:{free}:interface=127.0.0.1", "three"),
                ListenerSettings(f"tcp:{port}:interface=127.0.0.1", "three"),
            ),
            pools=(*reloaded.settings.pools, PoolSettings("three")),
        )
    assert problems == (f"listeners: cannot listen on 127.0.0.1:{port}: Address already in use",)
    assert sorted(reloaded.service.pools) == ["one", "two"]
    await reloaded.served_by(reloaded.ground.upstream)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", free)).close()


@pytest.mark.parametrize(
    "interface",
    ["127.0.0.1", "localhost", "0.0.0.0", *([r"\:\:1", r"0\:0\:\:1", r"\:\:"] if IPV6 else [])],
)
async def test_a_description_of_the_same_address(reloaded: Reloaded, interface: str) -> None:
    """A listener with another description keeps its socket, and the clients in its queue."""
    port = free_port()
    listen = f"tcp:{port}:interface={interface}"
    await reloaded.listener(listen=listen)
    # At the bound, clients wait in the accept queue.
    await reloaded.to(max_sessions=1)
    first = reloaded.client()
    await reloaded.served_by(reloaded.ground.upstream, first)
    waiting = [reloaded.client() for _ in range(3)]
    await reloaded.listener(listen=f"{listen}:backlog=99", pool="two")
    await reloaded.to(max_sessions=0)
    for client in waiting:
        await reloaded.served_by(reloaded.other, client)


async def test_a_description_of_the_same_address_and_a_port_that_is_taken(
    reloaded: Reloaded,
) -> None:
    """A socket that would have moved stays where it is, if another listener cannot be bound."""
    listen = f"tcp:{free_port()}:interface=127.0.0.1"
    await reloaded.listener(listen=listen)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        await reloaded.refused(
            listeners=(
                evolve(reloaded.service.settings.listeners[0], listen=f"{listen}:backlog=99"),
                ListenerSettings(f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1", "two"),
            )
        )
    await reloaded.served_by(reloaded.ground.upstream)


async def test_the_permissions_of_a_path(reloaded: Reloaded, tmp_path: Path) -> None:
    """A UNIX listener gets another mode while it listens, and removes its path at its end."""
    path = tmp_path / "socket"
    await reloaded.listener(listen=f"unix:{path}", unix_mode="600")
    inode = path.stat().st_ino
    await reloaded.listener(unix_mode="666")
    assert path.stat().st_ino == inode
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    await reloaded.served_by(reloaded.ground.upstream)
    await reloaded.service.stopService()
    assert list(tmp_path.iterdir()) == []


async def test_a_path_that_moves_to_another_listener(reloaded: Reloaded, tmp_path: Path) -> None:
    """A listener that is gone leaves its path to a new one."""
    path = tmp_path / "socket"
    await reloaded.listener(listen=f"unix:{path}")
    inode = path.stat().st_ino
    await reloaded.listener(listen=f"unix:{path}:mode=600", pool="two")
    assert path.stat().st_ino == inode
    await reloaded.served_by(reloaded.other)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_socket_of_another_process_moves(
    reloaded: Reloaded, tmp_path: Path, kind: str
) -> None:
    """A socket that another process owns stays so with another listener: it goes on listening."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET) as owned:
        owned.bind(str(path) if kind == "unix" else ("127.0.0.1", 0))
        owned.listen()
        if kind == "unix":
            path.chmod(0o640)
            listen = f"unix:{path}"
        else:
            listen = f"tcp:{owned.getsockname()[1]}:interface=127.0.0.1"
        handed = reloaded.service.plane.listening.handed
        handed.offer_at(place_of(owned), os.dup(owned.fileno()))
        await reloaded.listener(listen=listen)
        [address] = reloaded.service.addresses
        await reloaded.listener(listen=f"{listen}:backlog=99", pool="two")
        await reloaded.served_by(reloaded.other)
        if kind == "unix":
            assert stat.S_IMODE(path.stat().st_mode) == 0o640
        await reloaded.service.stopService()
        assert listens(address)


async def test_a_stored_socket_has_an_owner(reloaded: Reloaded, tmp_path: Path) -> None:
    """A listener whose socket is kept elsewhere still gets its mode, and removes its path."""
    path = tmp_path / "socket"
    await reloaded.listener(listen=f"unix:{path}:mode=666")
    [listener] = reloaded.service.listeners
    sock = listener.socket
    assert sock is not None
    with socket.socket(fileno=os.dup(sock.fileno())):
        listener.keep_socket()
        await reloaded.listener(listen=f"unix:{path}:mode=600")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        await reloaded.served_by(reloaded.ground.upstream)
        [address] = reloaded.service.addresses
        reloaded.service.listeners[0].keep_socket()
        await reloaded.listener(listen=ANY_PORT)
        assert not listens(address)
        assert not path.exists()


async def test_servers(reloaded: Reloaded) -> None:
    """A pool gets another server; sessions of the server that has left go on."""
    pool, client = reloaded.service.pools["one"], reloaded.client()
    server = await reloaded.served_by(reloaded.ground.upstream, client)
    one, two = reloaded.service.settings.pools
    assert await reloaded.to(pools=(evolve(one, upstreams=two.upstreams), two)) == [
        f"pool one: server {two.upstreams[0].name}: added",
        f"pool one: server {one.upstreams[0].name}: removed",
    ]
    assert reloaded.service.pools["one"] is pool
    await reloaded.served_by(reloaded.other)
    client.end()
    assert await server.rest() == (b"", END)


async def test_a_pool_that_is_gone_while_sessions_wait(reloaded: Reloaded) -> None:
    """A session in the queue of a pool that is gone still gets its slot, and then it stops."""
    one, two = reloaded.service.settings.pools
    full = evolve(one, upstreams=(reloaded.server(reloaded.ground.upstream, max_sessions=1),))
    await reloaded.to(pools=(full, two))
    pool = reloaded.service.pools["one"]
    holder, waiting = reloaded.client(), reloaded.client()
    server = await reloaded.served_by(reloaded.ground.upstream, holder)
    await waiting.send(b"?")
    await until(reloaded.ground.reactor, lambda: pool.status().waiting == 1)
    first = evolve(reloaded.service.settings.listeners[0], pool="two")
    assert await reloaded.to(listeners=(first,), pools=(two,)) == [
        'listener web: pool: "one" -> "two"',
        "pool one: removed",
    ]
    assert list(reloaded.service.pools) == ["two"]
    holder.end()
    server.end()
    second = await reloaded.ground.upstream.accept()
    reloaded.peers.append(second)
    assert await second.receive(1) == b"?"
    await reloaded.served_by(reloaded.other)


async def test_names_that_differ_in_case(reloaded: Reloaded) -> None:
    """Pools whose names differ in case only are two pools."""
    one, two = reloaded.service.settings.pools
    first = evolve(reloaded.service.settings.listeners[0], pool="ONE", name="WEB")
    changes = await reloaded.to(listeners=(first,), pools=(evolve(one, name="ONE"), two))
    assert changes == [
        'listener web: pool: "one" -> "ONE"',
        'listener web: name: "web" -> "WEB"',
        "pool ONE: added",
        "pool one: removed",
    ]
    await reloaded.served_by(reloaded.ground.upstream)


async def test_limits_count_those_that_are_there(reloaded: Reloaded) -> None:
    """The sessions of a listener count for limits that change."""
    await reloaded.listener(max_sessions=5)
    await reloaded.served_by(reloaded.ground.upstream)
    await reloaded.listener(max_sessions=1)
    client = reloaded.client()
    assert await client.rest() == (b"", RESET)
    assert reloaded.service.status().listeners[0].refused == {"listener-sessions": 1}
    await reloaded.listener(max_sessions=2)
    await reloaded.served_by(reloaded.ground.upstream)
    await reloaded.listener(max_sessions=0)
    await reloaded.served_by(reloaded.ground.upstream)


@pytest.mark.parametrize(
    ("limit", "refusal"),
    [("max_sessions", "listener-sessions"), ("max_sessions_per_peer", "client-sessions")],
)
async def test_first_limits_count_those_that_are_there(
    reloaded: Reloaded, limit: str, refusal: str
) -> None:
    """The sessions of a listener without limits count for its first ones, and for new ones."""
    for _ in range(2):
        first = reloaded.client()
        await reloaded.served_by(reloaded.ground.upstream, first)
        await reloaded.listener(**{limit: 1})
        client = reloaded.client()
        assert await client.rest() == (b"", RESET)
        assert reloaded.service.status().listeners[0].refused == {refusal: 1}
        first.reset()
        await until(reloaded.ground.reactor, lambda: reloaded.service.session_count == 0)
        last = reloaded.client()
        await reloaded.served_by(reloaded.ground.upstream, last)
        await reloaded.listener(**{limit: 0})
        last.reset()
        await until(reloaded.ground.reactor, lambda: reloaded.service.session_count == 0)


async def test_timeouts(reloaded: Reloaded) -> None:
    """New sessions get the new timeouts, and those before keep theirs."""
    before = reloaded.client()
    await reloaded.served_by(reloaded.ground.upstream, before)
    await reloaded.to(timeouts=Timeouts(idle=0.05, drain=0.0))
    after = reloaded.client()
    await reloaded.served_by(reloaded.ground.upstream, after)
    assert await after.rest() == (b"", RESET)
    await before.send(b"!")


async def test_the_access_log(reloaded: Reloaded, tmp_path: Path) -> None:
    """Sessions that end after the reload are in the new log, those that ended before in the old."""

    async def session() -> None:
        count = len(reloaded.told.records)
        client = reloaded.client()
        server = await reloaded.served_by(reloaded.ground.upstream, client)
        client.end()
        server.end()
        await reloaded.told.until(lambda: len(reloaded.told.records) > count)

    one, two = tmp_path / "one", tmp_path / "two"
    await reloaded.to(access_log=AccessLogSettings(str(one)))
    await session()
    await reloaded.to(access_log=AccessLogSettings(str(two), "json"))
    assert len(one.read_text().splitlines()) == 1
    await session()
    await reloaded.to(access_log=AccessLogSettings("off"))
    [line] = two.read_text().splitlines()
    assert line.startswith("{")
    await session()
    assert len(one.read_text().splitlines()) == len(two.read_text().splitlines()) == 1


async def test_the_lines_of_sessions_that_last(reloaded: Reloaded, tmp_path: Path) -> None:
    """Sessions of before have lines in the intervals of the log that is there now."""
    client = reloaded.client()
    await reloaded.served_by(reloaded.ground.upstream, client)
    one, two = tmp_path / "one", tmp_path / "two"
    reactor = reloaded.ground.reactor
    for path in (one, two):
        await reloaded.to(access_log=AccessLogSettings(str(path), "json", True, 0.1))
        await until(reactor, lambda: '"reason_how": "interval"' in path.read_text())  # noqa: B023
    await reloaded.served_by(reloaded.ground.upstream)
    await until(reactor, lambda: '"reason_how": "start"' in two.read_text())
    assert '"reason_how": "start"' not in one.read_text()
    await reloaded.to(access_log=AccessLogSettings(str(one), "json"))
    client.reset()
    await reloaded.told.ended()
    await reloaded.to(access_log=AccessLogSettings("off"))
    last = one.read_text().splitlines()[-1]
    assert '"reason_by": "downstream", "reason_how": "reset"' in last


async def test_the_sessions_of_a_listener_are_counted_on(
    reloaded: Reloaded, tmp_path: Path
) -> None:
    """The count of a listener has its sessions of before, too."""
    log = tmp_path / "log"
    client = reloaded.client()
    await reloaded.served_by(reloaded.ground.upstream, client)
    await reloaded.listener(pool="two")
    await reloaded.to(access_log=AccessLogSettings(str(log), "tcplog"))
    other = reloaded.client()
    await reloaded.served_by(reloaded.other, other)
    other.reset()
    await reloaded.told.ended()
    client.reset()
    await reloaded.told.until(lambda: len(reloaded.told.records) == 2)
    await reloaded.to(access_log=AccessLogSettings("off"))
    assert [line.split()[-2] for line in log.read_text().splitlines()] == [
        "2/2/0/0/0",
        "1/1/0/0/0",
    ]


@pytest.mark.parametrize("kind", ["directory", "FIFO"])
async def test_a_log_that_cannot_be_opened(reloaded: Reloaded, tmp_path: Path, kind: str) -> None:
    """A log that cannot be opened refuses the reload as a whole."""
    path = tmp_path
    if kind == "FIFO":
        path = tmp_path / "fifo"
        os.mkfifo(path)
    [problem] = await reloaded.refused(
        access_log=AccessLogSettings(str(path)), timeouts=Timeouts(idle=1)
    )
    assert problem.startswith(f"access_log.path: cannot write the access log to {path}: ")


async def test_what_needs_a_restart(reloaded: Reloaded) -> None:
    """All problems are named at once."""
    assert await reloaded.refused(relay="stream", keepalive=Keepalive(idle=7), max_sessions=4) == (
        "keepalive: idle: 60 -> 7, which needs a restart",
        'relay: "auto" -> "stream", which needs a restart',
    )


async def test_settings_that_are_wrong(reloaded: Reloaded) -> None:
    """Each problem is a line with the path of its key."""
    one, two = reloaded.service.settings.pools
    first = reloaded.service.settings.listeners[0]
    assert await reloaded.refused(listeners=(evolve(first, pool="none"),)) == (
        "listeners[0].pool: there is no pool 'none'",
    )
    problems = await reloaded.refused(
        listeners=(
            evolve(first, tls=ListenerTLS(certificates=("/none.pem",))),
            ListenerSettings("nonsense:", "two"),
            evolve(first, deny_files=("/none",)),
            evolve(first, route="no_such_module:route"),
        ),
        pools=(evolve(one, upstreams=(*one.upstreams, UpstreamServer("nonsense"))), two),
    )
    assert [problem.partition(":")[0] for problem in problems] == [
        "pools.one.'nonsense' is not an upstream server",
        "listeners[0].tls",
        "listeners[1].'nonsense",
        "listeners[2].deny_files[0]",
        "listeners[3].no_such_module",
    ]


async def test_a_loop(reloaded: Reloaded) -> None:
    """Servers that lead back to a listener are refused."""
    port = free_port()
    loop = UpstreamServer(f"127.0.0.1:{port}")
    await reloaded.listener(listen=f"tcp:{port}:interface=127.0.0.1")
    one, two = reloaded.service.settings.pools
    [problem] = await reloaded.refused(pools=(evolve(one, upstreams=(loop,)), two))
    assert problem.startswith("pools.one.upstreams[0]: ")


async def test_two_at_once(reloaded: Reloaded) -> None:
    """Reloads wait for each other; those that read the same source share one."""
    reads = 0
    go_on = threading.Event()

    def read() -> Settings:
        nonlocal reads
        reads += 1
        go_on.wait(20)
        return evolve(reloaded.settings, max_sessions=reads)

    reloaded.service.settings_from = read
    first = reloaded.service.reload()
    await until(reloaded.ground.reactor, lambda: reads == 1)
    others = [reloaded.service.reload() for _ in range(50)]
    more = [reloaded.service.reload(reloaded.settings) for _ in range(MOST_WAITING - 1)]
    with pytest.raises(SettingsError, match=f"{MOST_WAITING} reloads wait already"):
        await reloaded.service.reload(reloaded.settings)
    go_on.set()
    assert [str(change) for change in (await first).lines] == ["max_sessions: 0 -> 1"]
    for other in others:
        assert [str(change) for change in (await other).lines] == ["max_sessions: 1 -> 2"]
    for one in more:
        await one
    assert reads == 2


async def test_no_file(reloaded: Reloaded) -> None:
    """A service that is not made of a file has nothing to read again."""
    with pytest.raises(SettingsError, match="there is no configuration file to read again"):
        await reloaded.service.reload()


async def test_a_server_that_joins_while_a_reload_is_prepared(reloaded: Reloaded) -> None:
    """A server that cannot be had with the new settings refuses them as a whole."""
    service = reloaded.service
    before = service.settings
    one, two = before.pools
    settings = evolve(
        before,
        listeners=(evolve(before.listeners[0], pool="two"),),
        pools=(evolve(one, connect_timeout=1.0), evolve(two, tls=PoolTLS())),
    )

    def join(_: object) -> Deferred[None]:
        service.pools["two"].add("unix:/socket")
        return succeed(None)

    with pytest.raises(SettingsError, match="a name is needed to verify unix:/socket"):
        await service.reload(settings, join)
    assert service.settings is before
    assert service.pools["one"].connect_timeout == one.connect_timeout
    await reloaded.served_by(reloaded.ground.upstream)


async def test_a_source_that_fails(reloaded: Reloaded) -> None:
    """An exception in a user's own function is the reason why the reload is refused."""

    def read() -> Settings:
        raise ZeroDivisionError("no")

    reloaded.service.settings_from = read
    with pytest.raises(SettingsError, match="ZeroDivisionError: no"):
        await reloaded.service.reload()
    assert reloaded.told.reloads[-1] == ("ZeroDivisionError: no",)


async def test_an_exception_ends_a_reload(reloaded: Reloaded) -> None:
    """Whatever breaks, the observers hear the end of the reload, in one line."""

    def agreed(_: Changes) -> Deferred[None]:
        raise ZeroDivisionError("no")

    with pytest.raises(SettingsError, match="ZeroDivisionError: no"):
        await reloaded.service.reload(reloaded.settings, agreed)
    with pytest.raises(SettingsError, match="in a thread"):
        await reloaded.service.reload(
            reloaded.settings, lambda _: fail(CannotOpenLog("in a thread"))
        )
    assert reloaded.told.reloads == [
        "began",
        ("ZeroDivisionError: no",),
        "began",
        ("in a thread",),
    ]
    assert await reloaded.to() == []


async def test_a_service_that_stops(reloaded: Reloaded) -> None:
    """A drain refuses reloads, also one in progress; it does not wait for a file."""
    go_on, reads = threading.Event(), threading.Event()

    def read() -> Settings:
        reads.set()
        go_on.wait(20)
        return evolve(reloaded.settings, max_sessions=7)

    reloaded.service.settings_from = read
    late = reloaded.service.reload()
    await until(reloaded.ground.reactor, reads.is_set)
    client = reloaded.client()
    await reloaded.served_by(reloaded.ground.upstream, client)
    drained = reloaded.service.drain(None)
    early = reloaded.service.reload(reloaded.settings)
    go_on.set()
    for result in (late, early):
        with pytest.raises(SettingsError, match="evproxy stops"):
            await result
    client.reset()
    await drained
    assert reloaded.service.settings.max_sessions == 0


async def test_before_the_start_and_after_the_stop(ground: Ground) -> None:
    """A service that does not run gets other settings, too, and binds nothing."""
    made = Reloaded(ground)
    await made.to(listeners=(*made.settings.listeners, ListenerSettings(ANY_PORT, "two")))
    assert made.service.addresses == []
    made.service.startService()
    await made.served_by(made.other, made.client(1))
    await made.service.stopService()
    await made.listener(pool="two")
    assert made.service.addresses == []
    made.service.startService()
    await made.served_by(made.other)
    made.other.close()
    for peer in made.peers:
        peer.close()


async def test_a_service_that_is_only_bound(ground: Ground) -> None:
    """Between bind and start, a reload binds, and starts no pool."""
    made = Reloaded(ground)
    made.service.privilegedStartService()
    await made.to(listeners=(*made.settings.listeners, ListenerSettings(ANY_PORT, "two")))
    assert len(made.service.addresses) == 2
    made.service.startService()
    await made.served_by(made.other, made.client(1))
    made.other.close()
    for peer in made.peers:
        peer.close()


async def test_a_pool_of_the_program(ground: Ground) -> None:
    """A pool object stays; settings that change it are refused, all others are applied."""
    pool = Pool(ground.reactor, [f"127.0.0.1:{ground.upstream.port}"])
    service = ground.service(pool=pool)
    service.startService()
    await service.reload(evolve(service.settings, max_sessions=5))
    assert service.pools == {"default": pool}
    assert service.admission.limit == 5
    with pytest.raises(ConfigErrors, match="the service has a pool of its own"):
        await service.reload(evolve(service.settings, pools=(PoolSettings("web"),)))
    await ground.session(service)


async def test_an_endpoint_of_the_program(ground: Ground) -> None:
    """A listener that is an endpoint object stays bound, and takes other settings."""
    endpoint = TCP4ServerEndpoint(ground.reactor, 0, interface="127.0.0.1")
    service = ground.service(endpoint)
    service.startService()
    addresses = service.addresses
    [listener] = service.settings.listeners
    await service.reload(evolve(service.settings, listeners=(evolve(listener, max_sessions=1),)))
    assert service.addresses == addresses
    await ground.session(service)
    assert (await ground.client(service).rest())[0] == b""


async def test_networks_are_read_again(reloaded: Reloaded, tmp_path: Path) -> None:
    """A reload reads the lists of networks at once, or is refused if one of them is wrong."""
    file = tmp_path / "denied"
    file.write_text("192.0.2.0/24\n")
    await reloaded.listener(deny_files=(str(file),))
    await reloaded.served_by(reloaded.ground.upstream)
    replace(file, "127.0.0.0/8\n")
    assert await reloaded.to() == ["listener web: its files have changed"]
    assert await reloaded.client().rest() == (b"", RESET)
    replace(file, "nonsense\n")
    [problem] = await reloaded.refused()
    assert problem.startswith(f"listeners[0].deny_files[0]: {file}: ")
    assert await reloaded.client().rest() == (b"", RESET)


async def test_certificates_are_read_again(reloaded: Reloaded, tmp_path: Path) -> None:
    """A reload reads certificates at once, or is refused if one of them is wrong."""
    authority = Authority.new()
    path = tmp_path / "site.pem"

    def save(name: str) -> None:
        new = path.with_suffix(".new")
        authority.issue(names(name), 90 * DAY).save(new)
        os.replace(new, path)

    save("one.test")
    await reloaded.listener(tls=ListenerTLS(certificates=(str(path),)))
    assert [each.names for each in reloaded.service.status().certificates] == [("one.test",)]
    save("two.test")
    assert await reloaded.to() == ["listener web: its files have changed"]
    assert [each.names for each in reloaded.service.status().certificates] == [("two.test",)]
    assert await reloaded.to() == []
    path.write_text("nonsense")
    [problem] = await reloaded.refused()
    assert problem.startswith(f"listeners[0].tls: {path}: ")
    assert [each.names for each in reloaded.service.status().certificates] == [("two.test",)]
    await reloaded.listener(tls=None)
    assert reloaded.service.status().certificates == ()
    await reloaded.served_by(reloaded.ground.upstream)


async def test_discovery(reloaded: Reloaded, tmp_path: Path) -> None:
    """A pool with discovery keeps its servers while other things change."""
    file = tmp_path / "servers.json"
    file.write_text(f'{{"upstreams": ["127.0.0.1:{reloaded.other.port}"]}}')
    found = Discover("file", path=str(file))
    one, two = reloaded.service.settings.pools
    await reloaded.to(pools=(evolve(one, upstreams=(), discover=found), two))
    await until(reloaded.ground.reactor, lambda: len(reloaded.service.pools["one"].servers) == 1)
    await reloaded.to(pools=(evolve(reloaded.service.settings.pools[0], connect_timeout=1.0), two))
    await reloaded.served_by(reloaded.other)


async def test_a_read_does_not_block(reloaded: Reloaded) -> None:
    """While a file is read, however long that takes, sessions go on."""
    go_on = threading.Event()

    def read() -> Settings:
        go_on.wait(20)
        return reloaded.settings

    reloaded.service.settings_from = read
    result: Deferred[Changes] = reloaded.service.reload()
    for _ in range(10):
        await reloaded.served_by(reloaded.ground.upstream)
    assert not result.called
    go_on.set()
    await result
