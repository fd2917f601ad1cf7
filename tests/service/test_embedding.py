"""`ProxyService` as those who embed it call it: what it accepts, and what it refuses, and how."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint

from evproxy import Keepalive, Pool, ProxyService, SettingsError
from tests.support.peers import converse
from tests.support.proxies import Observed
from tests.support.services import Ground
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
    """An option that the pool has itself is refused where there is a pool."""
    pool = Pool(reactor, ["127.0.0.1:1"])
    with pytest.raises(SettingsError) as raised:
        ProxyService(reactor, pool=pool, **given)
    line = f"{argument}: cannot be given together with pool, which has its own"
    assert str(raised.value) == line


def test_a_forgotten_reactor() -> None:
    """Without the reactor, the error says that it is the first argument."""
    with pytest.raises(TypeError, match=r"^ProxyService: the first argument is the reactor, got "):
        ProxyService(["tcp:0"], ["127.0.0.1:1"])


async def test_a_server_endpoint_object(ground: Ground) -> None:
    """A listener may be an endpoint, with a description beside it."""
    endpoint = TCP4ServerEndpoint(ground.reactor, 0, interface="127.0.0.1")
    service = ground.service(endpoint, "tcp:0:interface=127.0.0.1")
    service.startService()
    for listener in range(2):
        client, server = await ground.session(service, listener)
        await converse(client, server)


def test_what_is_no_server_endpoint(reactor: Any) -> None:
    """Another object is refused by what it is."""
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", 1)
    with pytest.raises(SettingsError, match=r"^listen: expected a server endpoint description or"):
        ProxyService(reactor, [endpoint], ["127.0.0.1:1"])  # type: ignore[list-item]


def test_the_pools_by_name(reactor: Any) -> None:
    """The pool that the arguments describe is there by its name, to be changed."""
    service = ProxyService(reactor, ["tcp:0"], ["127.0.0.1:1"])
    service.pools["default"].add("127.0.0.1:2")
    assert [each.name for each in service.pools["default"].servers] == [
        "127.0.0.1:1",
        "127.0.0.1:2",
    ]


async def test_an_observer_of_troubles(ground: Ground, refusing: Refusing) -> None:
    """Connects that fail are told to the observers of troubles, too."""
    observed = Observed()
    service = ground.service(
        upstreams=[refusing()], troubles=[observed], keepalive=Keepalive(idle=7)
    )
    service.startService()
    ground.client(service)
    await observed.until(lambda: bool(observed.failures))
    assert service.settings.keepalive.idle == 7
