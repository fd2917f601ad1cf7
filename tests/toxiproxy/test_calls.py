"""Every call of Toxiproxy's API: its status, its body, its errors and its defaults."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from evproxy.faults.faults import MOST_FAULTS
from evproxy.toxiproxy.api import VERSION, answer
from evproxy.toxiproxy.errors import ApiError
from evproxy.toxiproxy.proxies import MOST_PROXIES, Proxies, place_of
from evproxy.toxiproxy.toxics import ATTRIBUTES, new_toxic
from tests.support.logged import logged_lines
from tests.support.peers import END, Listening, connect, turn


class Calls:
    """Calls the API, without HTTP."""

    def __init__(self, reactor: Any) -> None:
        self.proxies = Proxies(reactor, seed=1)

    async def __call__(
        self, call: str, body: Any = None, user_agent: str = "curl/8"
    ) -> tuple[int, Any]:
        """The status and the body of the answer to `call`: a method and a path."""
        method, path = call.split(" ")
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        found = await answer(self.proxies, method, path, user_agent, content)
        return found.status, found.text or found.body


@pytest.fixture
def call(reactor: Any) -> Iterator[Calls]:
    """Calls an API whose proxies end with the test."""
    calls = Calls(reactor)
    yield calls
    pytest_twisted.blockon(Deferred.fromCoroutine(calls.proxies.stop()))


REDIS = {"name": "redis", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:9"}


def port_in(body: Any) -> int:
    """The port in an answer about a proxy."""
    return int(body["listen"].rpartition(":")[2])


async def test_a_proxy_is_made(call: Calls) -> None:
    """The answer has the real port, and the defaults."""
    status, body = await call("POST /proxies", REDIS)
    assert status == 201
    assert body == {
        "name": "redis",
        "listen": f"127.0.0.1:{port_in(body)}",
        "upstream": "127.0.0.1:9",
        "enabled": True,
        "toxics": [],
    }
    assert port_in(body) > 0
    assert await call("GET /proxies") == (200, {"redis": body})
    assert await call("GET /proxies/redis") == (200, body)


async def test_a_proxy_that_is_not_enabled(call: Calls) -> None:
    """It does not listen until it is enabled, and has its port from then on."""
    assert (await call("POST /proxies", REDIS | {"enabled": False}))[1]["enabled"] is False
    status, body = await call("POST /proxies/redis", {"enabled": True})
    assert (status, body["enabled"]) == (200, True)
    port = port_in(body)
    assert (await call("PATCH /proxies/redis", {"enabled": False}))[1]["enabled"] is False
    assert port_in((await call("PATCH /proxies/redis", {"enabled": True}))[1]) == port


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"", 400, "bad request body: "),
        (b"{", 400, "bad request body: "),
        (b"[]", 400, "bad request body: "),
        (b"\xff", 400, "bad request body: "),
        ({"name": 5, "upstream": "x"}, 400, "bad request body: "),
        ({"upstream": "127.0.0.1:9"}, 400, "missing required field: name"),
        ({"name": "a"}, 400, "missing required field: upstream"),
        (REDIS, 409, "proxy already exists"),
        (REDIS | {"name": "b", "listen": "nowhere"}, 500, "listen tcp: address nowhere: "),
        (REDIS | {"name": "b", "upstream": "nowhere"}, 500, "upstream: "),
        (REDIS | {"name": "b", "enabled": 1}, 400, "bad request body: "),
    ],
)
async def test_wrong_proxies(call: Calls, body: Any, status: int, error: str) -> None:
    """Each has its status and its error, and makes no proxy."""
    await call("POST /proxies", REDIS)
    found, answered = await call("POST /proxies", body)
    assert found == answered["status"] == status
    assert answered["error"].startswith(error)
    assert list(call.proxies.by_name) == ["redis"]


async def test_an_address_in_use(call: Calls, reactor: Any) -> None:
    """The proxy is not made."""
    other = Listening.tcp(reactor)
    where = f"127.0.0.1:{other.port}"
    status, body = await call("POST /proxies", REDIS | {"listen": where})
    other.close()
    assert status == 500
    assert body["error"] == f"listen tcp {where}: bind: Address already in use"
    assert not call.proxies.by_name


async def test_a_proxy_is_changed(call: Calls) -> None:
    """What is absent or null stays; toxics stay; the name stays."""
    made = (await call("POST /proxies", REDIS))[1]
    await call("POST /proxies/redis/toxics", {"type": "latency"})
    status, body = await call("POST /proxies/redis", {"upstream": "127.0.0.1:10", "listen": None})
    assert status == 200
    assert (body["upstream"], body["enabled"]) == ("127.0.0.1:10", True)
    assert body["listen"] == made["listen"]
    assert len(body["toxics"]) == 1
    status, body = await call("PATCH /proxies/redis", {"listen": "127.0.0.1:0", "name": "x"})
    assert (status, body["name"]) == (200, "redis")
    assert await call("PATCH /proxies/redis", {}) == (200, body)


async def test_a_proxy_keeps_its_server_if_the_new_one_is_wrong(call: Calls) -> None:
    """Enabled or not: the proxy stays as it is."""
    for enabled in (True, False):
        before = (await call("POST /proxies", REDIS | {"enabled": enabled}))[1]
        for method in ("POST", "PATCH"):
            status, body = await call(f"{method} /proxies/redis", {"upstream": "nowhere"})
            assert (status, body["error"].partition(":")[0]) == (500, "upstream")
        assert await call("GET /proxies/redis") == (200, before)
        await call("DELETE /proxies/redis")
    status, body = await call("POST /proxies", REDIS | {"upstream": "nowhere", "enabled": False})
    assert (status, body["error"].partition(":")[0]) == (500, "upstream")
    assert not call.proxies.by_name


@pytest.mark.parametrize("how", ["DELETE", "PATCH"])
async def test_what_toxics_hold_is_dropped(call: Calls, reactor: Any, how: str) -> None:
    """A proxy that is deleted or disabled ends its connections in order, without the held bytes."""
    upstream = Listening.tcp(reactor)
    given = REDIS | {"upstream": f"127.0.0.1:{upstream.port}"}
    port = port_in((await call("POST /proxies", given))[1])
    slow = {"type": "latency", "attributes": {"latency": 60_000}}
    await call("POST /proxies/redis/toxics", slow)
    client = connect(reactor, ("127.0.0.1", port))
    server = await upstream.accept()
    await client.send(b"question")
    assert await server.receive(8) == b"question"
    await server.send(b"answer")
    for _ in range(20):
        await turn(reactor)
    await call(f"{how} /proxies/redis", {"enabled": False})
    assert await client.rest() == (b"", END)
    assert await server.rest() == (b"", END)
    for peer in (client, server, upstream):
        peer.close()


async def test_the_most_proxies(call: Calls) -> None:
    """One more is refused."""
    for number in range(MOST_PROXIES):
        await call("POST /proxies", REDIS | {"name": str(number), "enabled": False})
    status, body = await call("POST /proxies", REDIS)
    assert (status, body["error"]) == (500, "there are already 1000 proxies")


async def test_a_proxy_is_deleted(call: Calls) -> None:
    """And is not found any more."""
    await call("POST /proxies", REDIS)
    assert await call("DELETE /proxies/redis") == (204, None)
    gone = (404, {"error": "proxy not found", "status": 404})
    for method in ("GET", "POST", "PATCH", "DELETE"):
        assert await call(f"{method} /proxies/redis", {}) == gone
    for path in ("toxics", "toxics/x"):
        assert await call(f"GET /proxies/redis/{path}") == gone


async def test_populate(call: Calls) -> None:
    """Proxies with the same addresses stay as they are; others are replaced."""
    status, body = await call("POST /populate", [REDIS, REDIS | {"name": "other"}])
    assert status == 201
    assert [proxy["name"] for proxy in body["proxies"]] == ["redis", "other"]
    first, second = body["proxies"]
    for name in ("redis", "other"):
        await call(f"POST /proxies/{name}/toxics", {"type": "latency"})
    status, body = await call("POST /populate", [first, second | {"upstream": "127.0.0.1:10"}])
    assert status == 201
    assert [len(proxy["toxics"]) for proxy in body["proxies"]] == [1, 0]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "bad request body: "),
        ([1], "bad request body: "),
        ([REDIS, {"name": "x"}], "missing required field: upstream at proxy 2"),
        ([{"upstream": "127.0.0.1:9"}], "missing required field: name at proxy 1"),
    ],
)
async def test_populate_with_wrong_bodies(call: Calls, body: Any, error: str) -> None:
    """Nothing is made if a description is incomplete."""
    status, answered = await call("POST /populate", body)
    assert (status, answered["status"]) == (400, 400)
    assert answered["error"].startswith(error)
    assert not call.proxies.by_name


async def test_populate_up_to_an_error(call: Calls) -> None:
    """The answer has the proxies before the error, and the error."""
    bad = REDIS | {"name": "bad", "listen": "nowhere"}
    status, body = await call("POST /populate", [REDIS, bad, REDIS | {"name": "third"}])
    assert (status, body["status"]) == (500, 500)
    assert body["error"].startswith("listen tcp")
    assert [proxy["name"] for proxy in body["proxies"]] == ["redis"]
    assert list(call.proxies.by_name) == ["redis"]


TYPES = {
    "latency": {"latency": 0, "jitter": 0},
    "bandwidth": {"rate": 0},
    "slow_close": {"delay": 0},
    "timeout": {"timeout": 0},
    "reset_peer": {"timeout": 0},
    "slicer": {"average_size": 0, "size_variation": 0, "delay": 0},
    "limit_data": {"bytes": 0},
}


@pytest.mark.parametrize("kind", TYPES)
async def test_the_defaults_of_toxics(call: Calls, kind: str) -> None:
    """A toxic needs a type only."""
    await call("POST /proxies", REDIS)
    expected = {
        "attributes": TYPES[kind],
        "name": f"{kind}_downstream",
        "type": kind,
        "stream": "downstream",
        "toxicity": 1.0,
    }
    assert await call("POST /proxies/redis/toxics", {"type": kind}) == (200, expected)
    assert await call(f"GET /proxies/redis/toxics/{kind}_downstream") == (200, expected)
    upstream = {"type": kind, "stream": "upstream", "name": "mine", "toxicity": 0.5}
    upstream |= {"attributes": dict.fromkeys(TYPES[kind], 7)}
    assert await call("POST /proxies/redis/toxics", upstream) == (200, upstream)
    assert await call("GET /proxies/redis/toxics") == (200, [upstream, expected])
    assert (await call("GET /proxies/redis"))[1]["toxics"] == [upstream, expected]


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"x", 400, "bad request body: "),
        ({}, 400, "invalid toxic type"),
        ({"type": "slow"}, 400, "invalid toxic type"),
        (
            {"type": "latency", "stream": "both"},
            400,
            "stream was invalid, can be either upstream or downstream",
        ),
        ({"type": "latency", "name": "there"}, 409, "toxic already exists"),
        ({"type": "latency", "attributes": {"latency": "1"}}, 400, "bad request body: "),
        ({"type": "latency", "attributes": {"latency": 1.5}}, 400, "bad request body: "),
        ({"type": "latency", "attributes": []}, 400, "bad request body: "),
        ({"type": "latency", "toxicity": "1"}, 400, "bad request body: "),
    ],
)
async def test_wrong_toxics(call: Calls, body: Any, status: int, error: str) -> None:
    """Each has its status and its error, and injects nothing."""
    await call("POST /proxies", REDIS)
    await call("POST /proxies/redis/toxics", {"type": "timeout", "name": "there"})
    found, answered = await call("POST /proxies/redis/toxics", body)
    assert found == answered["status"] == status
    assert answered["error"].startswith(error)
    assert len((await call("GET /proxies/redis/toxics"))[1]) == 1


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_toxic_is_changed(call: Calls, method: str) -> None:
    """Attributes and toxicity merge; the rest stays."""
    await call("POST /proxies", REDIS)
    given = {"type": "latency", "attributes": {"latency": 100, "jitter": 5, "unknown": 1}}
    await call("POST /proxies/redis/toxics", given)
    where = f"{method} /proxies/redis/toxics/latency_downstream"
    change = {"attributes": {"jitter": 9, "latency": None}, "name": "x", "stream": "upstream"}
    status, body = await call(where, change)
    assert status == 200
    assert body == {
        "attributes": {"latency": 100, "jitter": 9},
        "name": "latency_downstream",
        "type": "latency",
        "stream": "downstream",
        "toxicity": 1.0,
    }
    assert (await call(where, {"toxicity": 0.25}))[1] == body | {"toxicity": 0.25}
    assert (await call(where, {"attributes": {"jitter": "9"}}))[0] == 400


async def test_a_toxic_is_removed(call: Calls) -> None:
    """And is not found any more."""
    await call("POST /proxies", REDIS)
    await call("POST /proxies/redis/toxics", {"type": "latency"})
    where = "/proxies/redis/toxics/latency_downstream"
    assert await call(f"DELETE {where}") == (204, None)
    gone = (404, {"error": "toxic not found", "status": 404})
    for method in ("GET", "POST", "PATCH", "DELETE"):
        assert await call(f"{method} {where}", {}) == gone


async def test_reset(call: Calls) -> None:
    """Every proxy is enabled, and has no toxic."""
    await call("POST /proxies", REDIS | {"enabled": False})
    await call("POST /proxies/redis/toxics", {"type": "latency"})
    assert await call("POST /reset") == (204, None)
    body = (await call("GET /proxies/redis"))[1]
    assert (body["enabled"], body["toxics"]) == (True, [])


async def test_the_rest(call: Calls) -> None:
    """The version, browsers, unknown paths and methods, and names with strange letters."""
    assert await call("GET /version") == (200, {"version": VERSION})
    assert await call("GET /version", user_agent="Mozilla/5.0") == (403, "User agent not allowed\n")
    assert await call("GET /nothing") == (404, "404 page not found\n")
    assert (await call("GET /populate"))[0] == 405
    await call("POST /proxies", REDIS | {"name": "a b/ü"})
    assert (await call("GET /proxies/a%20b%2F%C3%BC"))[0] == 200


@pytest.mark.parametrize(
    ("listen", "place"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("localhost:0", ("127.0.0.1", 0)),
        (":8080", ("0.0.0.0", 8080)),
        ("", ("0.0.0.0", 0)),
        ("[::1]:80", ("::1", 80)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
    ],
)
def test_where_a_proxy_listens(listen: str, place: tuple[str, int]) -> None:
    """A host may be an address, ``localhost``, or absent."""
    assert place_of(listen) == place


@pytest.mark.parametrize("listen", ["nowhere", "127.0.0.1:http", "127.0.0.1:70000", "host:80"])
def test_where_no_proxy_listens(listen: str) -> None:
    """The error names the address."""
    with pytest.raises(ApiError, match=f"listen tcp: address {listen}"):
        place_of(listen)


@pytest.mark.parametrize("kind", sorted(ATTRIBUTES))
def test_the_largest_attributes(kind: str) -> None:
    """Any whole number of 64 bits makes a fault, and a larger one is refused, as in Go."""
    for value in (-(2**63), 2**63 - 1):
        attributes = dict.fromkeys(ATTRIBUTES[kind], value)
        assert new_toxic({"type": kind, "attributes": attributes}).fault
    with pytest.raises(ApiError):
        new_toxic({"type": kind, "attributes": dict.fromkeys(ATTRIBUTES[kind], 2**63)})


@pytest.mark.parametrize("toxicity", ["NaN", "Infinity", "1e999", "1" + "0" * 400])
async def test_toxicity_is_finite(call: Calls, toxicity: str) -> None:
    """Otherwise no answer with the toxic were JSON."""
    await call("POST /proxies", REDIS)
    body = f'{{"type": "latency", "toxicity": {toxicity}}}'.encode()
    why = "bad request body: toxicity is not a number"
    found = await call("POST /proxies/redis/toxics", body)
    assert found == (400, {"error": why, "status": 400})


async def test_too_many_toxics(call: Calls) -> None:
    """One more than a proxy can have is refused."""
    await call("POST /proxies", REDIS)
    for number in range(MOST_FAULTS):
        call.proxies.named("redis").add(new_toxic({"type": "latency", "name": str(number)}))
    found = await call("POST /proxies/redis/toxics", {"type": "latency"})
    assert found == (500, {"error": f"there are already {MOST_FAULTS} toxics", "status": 500})


async def test_a_name_in_the_log(call: Calls) -> None:
    """What a client calls its proxy writes no line of the log."""
    with logged_lines() as lines:
        await call("POST /proxies", REDIS | {"name": "one\nForged: \x1b[2J"})
    (line,) = [line for line in lines if "seed" in line]
    assert line.startswith(r"The faults of proxy one\nForged: \x1b[2J have the seed ")


async def test_calls_while_it_stops(call: Calls) -> None:
    """Whatever calls still run, no proxy is left."""
    bodies = [(await call("POST /proxies", REDIS | {"name": name}))[1] for name in "ab"]
    calls: list[Coroutine[Deferred[Any], Any, Any]] = [
        call("POST /proxies/a", {"upstream": "127.0.0.1:10"}),
        call.proxies.stop(),
        call("DELETE /proxies/b"),
        call("POST /proxies", REDIS | {"name": "c"}),
    ]
    running = [Deferred.fromCoroutine(each) for each in calls]
    moved, _, deleted, made = [await each for each in running]
    stopping = {"error": "the service is stopping", "status": 503}
    assert (moved, made) == ((503, stopping), (503, stopping))
    assert deleted[0] == 404
    for body in bodies:
        with socket.socket() as client:
            assert client.connect_ex(("127.0.0.1", port_in(body))) == errno.ECONNREFUSED


async def test_proxies_stop_together(call: Calls) -> None:
    """Clients that do not leave delay the end once, and not for each proxy."""
    for name in "abc":
        await call("POST /proxies", REDIS | {"name": name})
    proxies = list(call.proxies.by_name.values())
    stopping = Deferred.fromCoroutine(call.proxies.stop())
    assert [proxy.enabled for proxy in proxies] == [False] * 3
    await stopping
