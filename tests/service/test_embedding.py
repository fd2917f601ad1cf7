"""`ProxyService` in programs that embed it: the arguments it accepts, and its errors."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.endpoints import (
    HostnameEndpoint,
    StandardIOEndpoint,
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
)

from evproxy import (
    HealthCheck,
    Keepalive,
    ListenerSettings,
    Pool,
    PoolSettings,
    ProxyService,
    Settings,
    SettingsError,
    UpstreamServer,
)
from tests.support.peers import converse
from tests.support.proxies import Observed
from tests.support.services import ANY_PORT, Ground, until
from tests.support.unreachable import Refusing


@pytest.mark.parametrize(
    ("given", "argument"),
    [
        ({"upstreams": ["127.0.0.1:1"]}, "upstreams"),
        ({"balance": "least-sessions"}, "balance"),
        ({"connect_timeout": 1.0}, "connect_timeout"),
        ({"connect_attempts": 1}, "connect_attempts"),
        ({"source": "127.0.0.1"}, "source"),
    ],
)
def test_options_of_a_pool_beside_a_pool(
    reactor: Any, given: dict[str, Any], argument: str
) -> None:
    """Beside a pool object, an option that the pool has itself is refused."""
    pool = Pool(reactor, ["127.0.0.1:1"])
    with pytest.raises(SettingsError) as raised:
        ProxyService(reactor, pool=pool, **given)
    line = f"{argument}: cannot be given together with pool, which has its own"
    assert str(raised.value) == line


def test_a_forgotten_reactor() -> None:
    """Without the reactor, the error says that it is the first argument."""
    wrong: Any = ["127.0.0.1:1"]
    with pytest.raises(TypeError, match=r"^ProxyService: the first argument is the reactor, got "):
        ProxyService(["tcp:0"], wrong)
    with pytest.raises(TypeError, match=r"^Pool: the first argument is the reactor, got "):
        Pool(wrong)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"listen": 5}, "listen: expected a sequence of at least one server endpoint descrip"),
        (
            {"listen": ["stdio:"]},
            "'stdio:' cannot be listened on: standard input is one",
        ),
        ({"listen": [StandardIOEndpoint(object())]}, "listen: standard input is one connection"),
        ({"upstreams": 5}, "upstreams: expected a sequence of at least one server (or a pool)"),
        ({"keepalive": None}, "keepalive: expected a Keepalive, got None"),
        ({"admin": {}}, "admin: expected an AdminSettings, got {}"),
        ({"stages": 5}, "stages: expected a sequence, got 5"),
        ({"stages": [5]}, "stages[0]: expected a function, got 5"),
        ({"observers": None}, "observers: expected a sequence, got None"),
        ({"troubles": None}, "troubles: expected a sequence, got None"),
        ({"source": 5}, "source: expected "),
        ({"accept_proxy_protocol_from": 5}, "accept_proxy_protocol_from: expected "),
    ],
)
def test_an_argument_of_a_wrong_type(reactor: Any, given: dict[str, Any], line: str) -> None:
    """The error is one line that names the argument."""
    arguments = {"listen": [ANY_PORT], "upstreams": ["127.0.0.1:1"], **given}
    with pytest.raises(SettingsError) as raised:
        ProxyService(reactor, **arguments)
    assert str(raised.value).startswith(line)


def test_settings_of_a_wrong_type(reactor: Any) -> None:
    """A table of a file is no `Settings`, and what is no text is no endpoint."""
    wrong: Any = {}
    with pytest.raises(SettingsError, match=r"^settings: expected a Settings, got \{\}$"):
        ProxyService(reactor, settings=wrong)
    several: list[Any] = [{"a": PoolSettings()}, ({},), [5]]
    for pools in several:
        with pytest.raises(SettingsError, match=r"^pools(\[0\])?: expected a "):
            Settings(pools=pools)
    with pytest.raises(SettingsError, match=r"^endpoint: expected a string, got \{\}$"):
        UpstreamServer(wrong)


async def test_a_server_endpoint_object(ground: Ground) -> None:
    """A listener may be an endpoint object; another listener may be a description."""
    endpoint = TCP4ServerEndpoint(ground.reactor, 0, interface="127.0.0.1")
    service = ground.service(endpoint, "tcp:0:interface=127.0.0.1")
    service.startService()
    for listener in range(2):
        client, server = await ground.session(service, listener)
        await converse(client, server)


def test_what_is_no_server_endpoint(reactor: Any) -> None:
    """An object that is no endpoint is refused, and the error shows the object."""
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", 1)
    with pytest.raises(SettingsError, match=r"^listen: expected a server endpoint description or"):
        ProxyService(reactor, [endpoint], ["127.0.0.1:1"])  # type: ignore[list-item]


def test_the_pools_by_name(reactor: Any) -> None:
    """A program can find the pool of the arguments by its name, and change it."""
    service = ProxyService(reactor, ["tcp:0"], ["127.0.0.1:1"])
    service.pools["default"].add("127.0.0.1:2")
    assert [each.name for each in service.pools["default"].servers] == [
        "127.0.0.1:1",
        "127.0.0.1:2",
    ]


async def test_an_observer_of_troubles(ground: Ground, refusing: Refusing) -> None:
    """Observers passed as `troubles` are notified of failed connects."""
    observed = Observed()
    service = ground.service(
        upstreams=[refusing()], troubles=[observed], keepalive=Keepalive(idle=7)
    )
    service.startService()
    ground.client(service)
    await observed.until(lambda: bool(observed.failures))
    assert service.settings.keepalive.idle == 7


async def test_a_client_endpoint_object(ground: Ground) -> None:
    """A server may be an endpoint object, and its health check uses the object too."""
    endpoint = TCP4ClientEndpoint(ground.reactor, "127.0.0.1", ground.upstream.port)
    service = ground.service(upstreams=[endpoint])
    service.startService()
    client, server = await ground.session(service)
    await converse(client, server)
    [status] = service.pools["default"].servers
    assert status.name.startswith("endpoint:TCP4ClientEndpoint at 0x")
    assert service.status().sessions[0].upstream == status.name


async def test_the_check_of_a_client_endpoint_object(ground: Ground) -> None:
    """A health check connects through the endpoint object, and cannot use another port."""
    dead = TCP4ClientEndpoint(ground.reactor, "127.0.0.1", 1)
    pool = Pool(ground.reactor, [dead], health_check=HealthCheck(interval=0.01, fall=1))
    service = ground.service(pool=pool)
    service.startService()
    await until(ground.reactor, lambda: pool.servers[0].state == "down")
    with pytest.raises(SettingsError, match=r"^health_check.port: cannot check port 81: endpoint:"):
        Pool(ground.reactor, [dead], health_check=HealthCheck(port=81))


def test_two_client_endpoint_objects(reactor: Any) -> None:
    """Each object is a separate server; an object with a useful `repr` is named after it."""
    pool = Pool(reactor, [TCP4ClientEndpoint(reactor, "127.0.0.1", 1) for _ in range(2)])
    pool.add(HostnameEndpoint(reactor, "localhost", 80))
    assert len({each.name for each in pool.servers}) == 3
    assert pool.servers[2].name == "endpoint:HostnameEndpoint localhost:80"


@pytest.mark.parametrize("wrong", [17, None, TCP4ServerEndpoint(None, 0)])
def test_what_is_no_server(reactor: Any, wrong: Any) -> None:
    """An object that is no server is refused, and the error shows the object."""
    with pytest.raises(SettingsError, match=r"^upstreams: expected an address, an UpstreamServer"):
        ProxyService(reactor, ["tcp:0"], [wrong])


def test_tags(reactor: Any) -> None:
    """A server keeps its tags, for balancers and status pages."""
    pool = Pool(reactor, [UpstreamServer("127.0.0.1:1", tags=("zone:a", "ssd"))])
    assert pool.servers[0].spec.tags == ("zone:a", "ssd")
    with pytest.raises(SettingsError, match=r"^tags\[0\]: expected a tag: "):
        UpstreamServer("127.0.0.1:1", tags=("two words",))


def test_settings_beside_arguments(reactor: Any) -> None:
    """All settings may come as one value; an argument beside the value is refused."""
    settings = Settings(
        listeners=(ListenerSettings("tcp:0"),),
        pools=(PoolSettings(upstreams=(UpstreamServer("127.0.0.1:1"),)),),
    )
    assert ProxyService(reactor, settings=settings).settings is settings
    with pytest.raises(SettingsError, match=r"^idle_timeout: cannot be given together with sett"):
        ProxyService(reactor, settings=settings, idle_timeout=5.0)
    with pytest.raises(SettingsError, match=r"^servers: cannot be given together with settings"):
        Pool(reactor, ["127.0.0.1:1"], settings=settings.pools[0])


def test_a_subclass_from_settings(reactor: Any) -> None:
    """`from_settings` also runs the constructor of a subclass."""

    class Own(Pool):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            self.own = True

    assert Own.from_settings(reactor, PoolSettings()).own


async def test_the_status(ground: Ground) -> None:
    """One snapshot has the listeners, the pools with their servers, and the sessions."""
    service = ground.service(ANY_PORT, max_sessions=7)
    before = service.status()
    assert [each.address for each in before.listeners] == [""]
    service.startService()
    await ground.session(service)
    await ground.session(service)
    status = service.status(most_sessions=1)
    address: Any = service.addresses[0]
    [listener], [pool], [session] = status.listeners, status.pools, status.sessions
    assert (listener.name, listener.address) == (ANY_PORT, f"127.0.0.1:{address.port}")
    assert [each.sessions for each in pool.servers] == [2]
    assert (pool.name, pool.waiting) == ("default", 0)
    assert (session.id, session.pool) == (1, "default")
    assert (status.session_count, status.max_sessions) == (2, 7)
    assert not status.draining
    stopped = service.stopService()
    assert service.status().draining
    service.end_session(1)
    service.end_session(2)
    await stopped
    after = service.status()
    assert (after.session_count, after.draining) == (0, False)


async def test_one_observer_of_everything(ground: Ground, refusing: Refusing) -> None:
    """An observer of a service is also notified of what happens to the servers of its pools."""

    class Servers:
        def __init__(self) -> None:
            self.states: list[str] = []

        def server_changed(self, pool: str, server: str, state: str, why: str) -> None:
            self.states.append(state)

        def pool_exhausted(self, pool: str, why: str) -> None: ...

        def discovery_failed(self, pool: str, why: str) -> None: ...

        def discovery_recovered(self, pool: str) -> None: ...

    observer = Servers()
    service = ground.service(observers=[observer])
    service.startService()
    service.pools["default"].add(refusing())
    assert observer.states == ["added"]


async def test_a_pool_that_cannot_start(ground: Ground) -> None:
    """No listener is left behind, and the service can start once the pool can."""

    class Broken(Pool):
        broken = True

        def start(self, user: object = None) -> None:
            super().start(user)
            if self.broken:
                raise ZeroDivisionError

    pool = Broken(ground.reactor, [f"127.0.0.1:{ground.upstream.port}"])
    service = ground.service(pool=pool)
    with pytest.raises(ZeroDivisionError):
        service.startService()
    assert service.addresses == []
    assert not service.running
    await service.stopService()
    pool.broken = False
    service.startService()
    await ground.session(service)
