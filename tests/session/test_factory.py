"""`ProxyFactory` with a user's own pool, and with any sequence of observers."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.endpoints import TCP4ServerEndpoint

from evproxy import Pool, ProxyFactory, ProxyService, SettingsError, TroubleObserver
from tests.support.peers import RESET, connect
from tests.support.proxies import Observed
from tests.support.unreachable import Refusing


class Own:
    """A user's own pool, which satisfies `evproxy.interfaces.Pool` and has no reactor."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.name = pool.name
        self.connect_timeout = pool.connect_timeout
        self.connect_attempts = pool.connect_attempts
        self.candidates = pool.candidates
        self.wait = pool.wait
        self.claim = pool.claim
        self.connected = pool.connected
        self.connect_failed = pool.connect_failed
        self.abandoned = pool.abandoned
        self.ended = pool.ended
        self.start = pool.start
        self.stop = pool.stop


def test_a_pool_without_a_reactor(reactor: Any) -> None:
    """The error is one line that says what to pass."""
    pool = Own(Pool(reactor, ["127.0.0.1:1"]))
    with pytest.raises(TypeError, match=r"^ProxyFactory: .* needs reactor=$"):
        ProxyFactory(pool)


def test_what_is_no_pool(reactor: Any) -> None:
    """It is refused at once, not by each client."""
    with pytest.raises(SettingsError, match=r"^pool: expected a Pool, .*, got list$"):
        ProxyFactory(["10.0.0.1:80"], reactor=reactor)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"timeouts": 5}, "timeouts: expected a Timeouts, got 5"),
        ({"stages": [5]}, r"stages\[0\]: expected a function, got 5"),
        ({"accept_proxy_protocol_from": "x"}, r"accept_proxy_protocol_from\[0\]: expected "),
    ],
)
def test_an_argument_of_a_wrong_type(reactor: Any, given: dict[str, Any], line: str) -> None:
    """The error is one line that names the argument."""
    with pytest.raises(SettingsError, match=f"^{line}"):
        ProxyFactory(Pool(reactor, ["127.0.0.1:1"]), **given)


@pytest.mark.parametrize("most", [0, -1, None, 2.5])
def test_a_bound_without_room(reactor: Any, most: Any) -> None:
    """A factory that would refuse every client is refused itself."""
    with pytest.raises(SettingsError, match=r"^max_sessions: expected a whole number from 1 to "):
        ProxyFactory(Pool(reactor, ["127.0.0.1:1"]), max_sessions=most)


@pytest.mark.parametrize("deadline", ["10", b"x", float("nan"), True])
async def test_a_drain_with_a_wrong_deadline(reactor: Any, deadline: Any) -> None:
    """The error names it, and the drain has not begun."""
    service = ProxyService(reactor, listen=["tcp:0:interface=127.0.0.1"], upstreams=["127.0.0.1:1"])
    service.startService()
    factory = ProxyFactory(Pool(reactor, ["127.0.0.1:1"]))
    for drain in (service.drain, factory.drain):
        with pytest.raises(SettingsError, match=r"^deadline: expected a number of seconds"):
            drain(deadline)
    assert not service.status().draining
    await service.stopService()
    await factory.drain()


async def test_a_pool_of_ones_own(reactor: Any, refusing: Refusing) -> None:
    """A user's own pool serves if there is a reactor; observers may be any sequence."""
    observed, dead = Observed(), refusing()
    trouble: TroubleObserver = observed
    factory = ProxyFactory(
        Own(Pool(reactor, [dead])), reactor=reactor, observers=(observed,), troubles=(trouble,)
    )
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    client = connect(reactor, ("127.0.0.1", port.getHost().port))
    assert await client.rest() == (b"", RESET)
    await observed.ended()
    assert [name for name, _ in observed.failures] == [dead]
    client.close()
    await port.stopListening()
    factory.admission.close()
