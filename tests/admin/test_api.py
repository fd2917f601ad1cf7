"""The operations of the admin interface, on a proxy with real sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from evproxy import AdminSettings, HealthCheck, Pool, UpstreamServer
from evproxy.model import Ending
from tests.support.admin import ANY_PORT, Admin
from tests.support.peers import RESET, Listening
from tests.support.proxies import Observed
from tests.support.services import Ground, listens, until

pytestmark = pytest.mark.oldest_twisted


async def test_the_status(ground: Ground) -> None:
    """The status counts sessions, and servers by state."""
    service = ground.service(admin=ANY_PORT, max_sessions=7)
    service.startService()
    admin = Admin(ground.reactor, service)
    await ground.session(service)
    found = (await admin.get("/status")).json
    assert found["state"] == "running"
    assert (found["sessions"], found["max_sessions"]) == (1, 7)
    assert found["listeners"][0]["address"] == f"127.0.0.1:{service.addresses[0].port}"  # type: ignore[union-attr]
    [pool] = found["pools"]
    assert pool == {
        "name": "default",
        "servers": {"up": 1, "down": 0, "ejected": 0, "draining": 0},
        "sessions": 1,
        "waiting": 0,
    }


async def test_head(ground: Ground) -> None:
    """HEAD gets the headers of GET, and no body."""
    service = ground.service(admin=ANY_PORT)
    service.startService()
    admin = Admin(ground.reactor, service)
    got, head = await admin.get("/status"), await admin.ask("HEAD", "/status", None, {})
    assert (head.code, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(got.body))


async def test_sessions_in_pages(ground: Ground) -> None:
    """Sessions come in pages, the oldest first; `next` leads to the next page."""
    service = ground.service(admin=ANY_PORT)
    service.startService()
    admin = Admin(ground.reactor, service)
    for _ in range(5):
        await ground.session(service)
    first = (await admin.get("/sessions?limit=3")).json
    assert [each["id"] for each in first["sessions"]] == [1, 2, 3]
    assert (first["next"], first["total"]) == (3, 5)
    second = (await admin.get(f"/sessions?limit=3&after={first['next']}")).json
    assert [each["id"] for each in second["sessions"]] == [4, 5]
    assert second["next"] is None
    assert (await admin.get("/sessions?after=5")).json["sessions"] == []


async def test_one_session(ground: Ground) -> None:
    """A session has its addresses, its phase, and what it has moved; another one is missing."""
    service = ground.service(admin=ANY_PORT)
    service.startService()
    admin = Admin(ground.reactor, service)
    client, _ = await ground.session(service)
    found = (await admin.get("/sessions/1")).json
    host, port = client.socket.getsockname()
    assert found["peer"] == f"{host}:{port}"
    assert found["server"] == f"127.0.0.1:{ground.upstream.port}"
    assert (found["phase"], found["relay"], found["pool"]) == ("relaying", "socket", "default")
    assert (found["bytes_to_upstream"], found["bytes_to_downstream"]) == (1, 1)
    assert (await admin.get("/sessions/2")).error == "there is no session 2, or no longer"


async def test_filters(ground: Ground) -> None:
    """Each filter keeps the sessions that fit."""
    service = ground.service(ANY_PORT, ANY_PORT, admin=ANY_PORT)
    service.startService()
    admin = Admin(ground.reactor, service)
    client, _ = await ground.session(service, 0)
    await ground.session(service, 1)
    host, port = client.socket.getsockname()

    async def ids(query: str) -> list[int]:
        return [each["id"] for each in (await admin.get(f"/sessions?{query}")).json["sessions"]]

    assert await ids(f"peer={host}:{port}") == [1]
    assert await ids(f"peer={host}") == [1, 2]
    assert await ids("peer=127.0.0.2") == []
    assert await ids("pool=default&phase=relaying") == [1, 2]
    assert await ids("pool=other") == []
    assert await ids("phase=closing") == []
    assert await ids(f"server=127.0.0.1:{ground.upstream.port}") == [1, 2]
    assert await ids("server=127.0.0.1:1") == []
    assert await ids("longer_than=3600") == []
    assert await ids("listener=nowhere") == []


async def test_a_session_is_ended(ground: Ground) -> None:
    """Both sides are reset, and the record says that somebody asked for it."""
    observed = Observed()
    service = ground.service(admin=ANY_PORT, observers=[observed])
    service.startService()
    admin = Admin(ground.reactor, service)
    client, server = await ground.session(service)
    assert (await admin.post("/sessions/1/end")).json == {"ended": True}
    assert await client.rest() == (b"", RESET)
    assert await server.rest() == (b"", RESET)
    await observed.ended()
    assert observed.records[0].reason.how is Ending.REQUESTED
    assert (await admin.post("/sessions/1/end")).code == 404
    assert (await admin.get("/sessions/1/end")).code == 405


async def test_servers(ground: Ground) -> None:
    """Servers come pool by pool, with their state; a page ends where it is told to."""
    service = ground.service(admin=ANY_PORT)
    service.startService()
    admin = Admin(ground.reactor, service)
    for port in range(1, 6):
        service.pools["default"].add(f"127.0.0.1:{port}")
    service.pools["default"].drain("127.0.0.1:3")
    first = (await admin.get("/servers?limit=4")).json
    second = (await admin.get(f"/servers?limit=4&offset={first['next']}")).json
    names = [each["name"] for each in first["servers"] + second["servers"]]
    assert names == [each.name for each in service.pools["default"].servers]
    assert second["next"] is None
    [drained] = (await admin.get("/servers?pool=default&state=draining")).json["servers"]
    assert (drained["name"], drained["why"]) == ("127.0.0.1:3", "by request")
    assert (await admin.get("/servers?pool=nosuch")).error == 'there is no pool "nosuch"'


async def test_a_pool_is_changed(ground: Ground) -> None:
    """A server is added, weighed, drained, resumed and removed; each answer shows it."""
    service = ground.service(admin=ANY_PORT)
    service.startService()
    admin = Admin(ground.reactor, service)
    pool = service.pools["default"]
    added = await admin.post(
        "/pools/default/servers", {"endpoint": "unix:/run/app.sock", "weight": 2, "tags": ["a"]}
    )
    assert added.json["name"] == "unix:/run/app.sock"
    assert pool.server_named("unix:/run/app.sock").spec == UpstreamServer(
        "unix:/run/app.sock", weight=2, tags=("a",)
    )
    one = "/pools/default/servers/unix:%2Frun%2Fapp.sock"
    assert {**(await admin.get(one)).json, "for": 0} == {**added.json, "for": 0}
    assert (await admin.post(f"{one}/weight", {"weight": 9})).json["weight"] == 9
    assert (await admin.post(f"{one}/drain")).json["state"] == "draining"
    assert (await admin.post(f"{one}/resume")).json["state"] == "up"
    assert (await admin.post(f"{one}/remove")).json == {"removed": True, "sessions": 0}
    assert len(pool.servers) == 1


@pytest.mark.parametrize(
    ("path", "body", "code", "line"),
    [
        (
            "/pools/web/servers",
            {"endpoint": "127.0.0.1:1"},
            404,
            'there is no pool "web"',
        ),
        (
            "/pools/default/servers",
            {"endpoint": "a..b:80"},
            400,
            "endpoint: 'a..b:80': 'a..b' is not a host",
        ),
        (
            "/pools/default/servers",
            {"endpoint": "unix:run/web.sock:timeout=3"},
            400,
            'endpoint: "unix:run/web.sock:timeout=3": a UNIX socket needs an absolute path',
        ),
        (
            "/pools/default/servers",
            {"endpoint": "SERVER"},
            409,
            'endpoint: "SERVER" is already in the pool',
        ),
        (
            "/pools/default/servers/SERVER/weight",
            {"weight": 257},
            400,
            "weight: expected a whole number from 0 to 256, got 257",
        ),
        (
            "/pools/default/servers/127.0.0.1:1/drain",
            None,
            404,
            'there is no server "127.0.0.1:1" in pool "default"',
        ),
        (
            "/pools/default/servers/127.0.0.1:1/remove",
            None,
            404,
            'there is no server "127.0.0.1:1" in pool "default"',
        ),
        (
            "/pools/default/servers/127.0.0.1:1/end",
            None,
            404,
            'there is no server "127.0.0.1:1" in pool "default"',
        ),
        (
            "/pools/default/servers/SERVER/drain",
            {"x": 1},
            400,
            '"x": nothing is expected in the body',
        ),
        (
            "/drain",
            {"deadline": -2},
            400,
            "deadline: expected a number of seconds from 0 to 31536000, or null, got -2",
        ),
    ],
)
async def test_a_change_is_refused(
    ground: Ground, path: str, body: Any, code: int, line: str
) -> None:
    """The line names what is wrong, and nothing changes."""
    service = ground.service(admin=ANY_PORT)
    service.startService()
    admin = Admin(ground.reactor, service)
    name = f"127.0.0.1:{ground.upstream.port}"
    if body is not None and body.get("endpoint") == "SERVER":
        body = {"endpoint": name}
    found = await admin.post(path.replace("SERVER", name), body)
    assert (found.code, found.error) == (code, line.replace("SERVER", name))
    assert [each.name for each in service.pools["default"].servers] == [name]


async def test_a_loop_is_refused(reactor: Any, ground: Ground) -> None:
    """A server that leads back to a listener of its own sessions would take every session."""
    listener = Listening.tcp(reactor)
    port = listener.port
    listener.close()
    service = ground.service(f"tcp:{port}:interface=127.0.0.1", admin=ANY_PORT)
    service.startService()
    admin = Admin(reactor, service)
    found = await admin.post("/pools/default/servers", {"endpoint": f"127.0.0.1:{port}"})
    assert found.code == 409
    assert "leads back to the listener" in found.error


async def test_a_pool_of_the_program(ground: Ground) -> None:
    """A pool that is no `evproxy.Pool` has no servers to show or to change."""

    class Own:
        name = "own"
        connect_timeout, connect_attempts = 1.0, 1

        def start(self) -> None:
            pass

        # No session comes here.
        stop = candidates = claim = start

    pool: Any = Own()
    service = ground.service(pool=pool, admin=ANY_PORT)
    service.startService()
    admin = Admin(ground.reactor, service)
    assert (await admin.get("/servers")).json["servers"] == []
    assert (await admin.get("/status")).json["pools"][0]["name"] == "own"
    found = await admin.get("/pools/default/servers/x")
    assert found.code == 409
    assert found.error == 'pool "default" is an object of the program, not an evproxy.Pool'


async def test_the_sessions_of_a_server_end(ground: Ground) -> None:
    """All sessions of one server are reset, none of another one, and a wait hears of it."""
    other = Listening.tcp(ground.reactor)
    service = ground.service(admin=ANY_PORT)
    pool = service.pools["default"]
    service.startService()
    admin = Admin(ground.reactor, service)
    name = f"127.0.0.1:{ground.upstream.port}"
    mine = [await ground.session(service) for _ in range(3)]
    pool.add(f"127.0.0.1:{other.port}")
    pool.drain(name)
    client = ground.client(service)
    server = await other.accept()
    await client.send(b"?")
    await server.receive(1)
    path = f"/pools/default/servers/{name}"
    assert (await admin.post(f"{path}/end", {"over": 0.1})).json == {"sessions": 3, "over": 0.1}
    wait = f"/wait?until=server-drained&pool=default&server={name}"
    assert (await admin.get(wait)).json["met"] is True
    for peers in mine:
        for peer in peers:
            assert await peer.rest() == (b"", RESET)
    await client.send(b"still here")
    assert await server.receive(10) == b"still here"
    other.close()


async def test_waits(ground: Ground) -> None:
    """A wait ends once its condition holds, or with its timeout."""
    service = ground.service(admin=ANY_PORT)
    service.startService()
    admin = Admin(ground.reactor, service)
    name = f"127.0.0.1:{ground.upstream.port}"
    where = f"pool=default&server={name}"
    client, server = await ground.session(service)
    assert (await admin.get(f"/wait?until=server-up&{where}")).json["met"] is True
    for condition in ("server-down", "server-idle", "server-drained", "server-gone"):
        found = (await admin.get(f"/wait?until={condition}&{where}&timeout=0.01")).json
        assert (found["until"], found["met"]) == (condition, False)
        assert 0.01 <= found["waited"] < 20
    waiting = Deferred.fromCoroutine(admin.get("/wait?until=no-sessions&timeout=20"))
    gone = Deferred.fromCoroutine(admin.get(f"/wait?until=server-gone&{where}&timeout=20"))
    service.pools["default"].remove(name)
    assert (await admin.get("/wait?until=no-sessions&timeout=0")).json["met"] is False
    other = where.replace(name, f"tcp:{name}")
    for spelling in (where, other):
        found = await admin.get(f"/wait?until=server-gone&{spelling}&timeout=0")
        assert found.json["met"] is False
    assert not waiting.called
    assert not gone.called
    client.reset()
    await server.rest()
    assert (await waiting).json["met"] is True
    assert (await gone).json["met"] is True


@pytest.mark.parametrize(
    ("query", "code", "line"),
    [
        ("until=server-up", 400, "pool: required for server-up"),
        ("until=server-up&pool=default", 400, "server: required for server-up"),
        ("until=no-sessions&pool=default", 400, "pool: has no effect on no-sessions"),
        ("until=server-up&pool=x&server=y", 404, 'there is no pool "x"'),
        (
            "until=server-up&pool=default&server=y",
            404,
            'there is no server "y" in pool "default"',
        ),
        (
            "until=no-sessions&timeout=601",
            400,
            'timeout: expected a number of seconds from 0 to 600.0, got "601"',
        ),
    ],
)
async def test_a_wrong_wait(ground: Ground, query: str, code: int, line: str) -> None:
    """The line names the parameter."""
    service = ground.service(admin=ANY_PORT)
    service.startService()
    found = await Admin(ground.reactor, service).get(f"/wait?{query}")
    assert (found.code, found.error) == (code, line)


async def test_a_wait_for_a_check(ground: Ground) -> None:
    """A wait hears of the server that a health check finds down."""
    gone = Listening.tcp(ground.reactor)
    port = gone.port
    gone.close()
    check = HealthCheck("tcp", interval=0.05, fall=1)
    pool = Pool(ground.reactor, [f"127.0.0.1:{port}"], health_check=check)
    service = ground.service(pool=pool, admin=ANY_PORT)
    service.startService()
    admin = Admin(ground.reactor, service)
    wait = f"/wait?until=server-down&pool=default&server=127.0.0.1:{port}"
    assert (await admin.get(wait)).json["met"] is True


async def test_settings_in_force(ground: Ground) -> None:
    """The settings come in the form of a file, with their defaults."""
    service = ground.service(admin=ANY_PORT, idle_timeout=7, balance="least-sessions")
    service.startService()
    found = (await Admin(ground.reactor, service).get("/settings")).json
    assert found["timeouts"]["idle"] == 7.0
    assert found["pools"]["default"]["balance"] == "least-sessions"
    assert found["pools"]["default"]["upstreams"][0]["weight"] == 1
    assert found["admin"]["listen"] == ANY_PORT


async def test_a_drain(ground: Ground) -> None:
    """The proxy accepts nothing new, and the interface goes on, also once all sessions are gone."""
    service = ground.service(admin=ANY_PORT)
    service.startService()
    admin = Admin(ground.reactor, service)
    assert service.admin is not None
    address = service.admin.address
    client, server = await ground.session(service)
    assert (await admin.post("/drain", {"deadline": None})).json == {
        "state": "draining",
        "sessions": 1,
    }
    assert service.addresses == []
    assert (await admin.get("/status")).json["state"] == "draining"
    client.reset()
    await server.rest()
    assert (await admin.get("/wait?until=no-sessions")).json["met"] is True
    await until(ground.reactor, lambda: service.status().drained)
    assert (await admin.get("/status")).json["state"] == "drained"
    await service.stopService()
    assert service.admin is not None
    assert service.admin.address is None
    assert not listens(address)


async def test_a_drain_with_its_deadline(ground: Ground) -> None:
    """Without a deadline in the request, the drain timeout of the settings holds."""
    service = ground.service(admin=ANY_PORT, drain_timeout=0.0)
    service.startService()
    admin = Admin(ground.reactor, service)
    client, _ = await ground.session(service)
    await admin.post("/drain")
    assert await client.rest() == (b"", RESET)


async def test_it_serves_while_the_service_stops(ground: Ground) -> None:
    """While `stopService` waits for sessions, the interface shows and ends them."""
    service = ground.service(admin=ANY_PORT, drain_timeout=3600)
    service.startService()
    admin = Admin(ground.reactor, service)
    client, _ = await ground.session(service)
    stopped = service.stopService()
    assert (await admin.get("/status")).json["state"] == "draining"
    assert (await admin.post("/sessions/1/end")).code == 200
    await stopped
    assert await client.rest() == (b"", RESET)


async def test_a_service_starts_again(ground: Ground) -> None:
    """After a stop, the interface listens again with the service."""
    service = ground.service(admin=ANY_PORT)
    service.startService()
    await service.stopService()
    service.startService()
    assert (await Admin(ground.reactor, service).get("/status")).json["state"] == "running"


async def test_it_serves_at_the_bound_on_sessions(ground: Ground) -> None:
    """Clients of the interface are no sessions."""
    service = ground.service(admin=ANY_PORT, max_sessions=1)
    service.startService()
    admin = Admin(ground.reactor, service)
    await ground.session(service)
    found = (await admin.get("/status")).json
    assert (found["sessions"], found["max_sessions"]) == (1, 1)


async def test_a_unix_socket(ground: Ground, tmp_path: Path) -> None:
    """Only the user of the process may connect, unless the settings say otherwise."""
    for given, mode in (
        (AdminSettings(f"unix:{tmp_path}/a"), 0o600),
        (AdminSettings(f"unix:{tmp_path}/b", unix_mode="660"), 0o660),
        (AdminSettings(f"unix:{tmp_path}/c:mode=666"), 0o666),
    ):
        service = ground.service(admin=given)
        service.startService()
        admin = Admin(ground.reactor, service)
        assert Path(str(admin.where)).stat().st_mode & 0o777 == mode
        assert (await admin.get("/status")).json["state"] == "running"
        assert (await admin.get("/status", Host="anything")).code == 200
        assert (await admin.post("/drain", {"deadline": 0})).code == 200
        await service.stopService()
        assert not Path(str(admin.where)).exists()


async def test_a_token(ground: Ground, tmp_path: Path) -> None:
    """With a token file, only requests with the token change the proxy."""
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    service = ground.service(admin=AdminSettings(ANY_PORT, token_file=str(token)))
    service.startService()
    admin = Admin(ground.reactor, service)
    assert (await admin.get("/status")).code == 200
    refused = await admin.post("/drain")
    assert refused.code == 401
    assert refused.headers["www-authenticate"] == 'Bearer realm="evproxy"'
    assert "no token" in refused.error
    assert (await admin.post("/drain", Authorization="Bearer wrong")).code == 401
    assert service.status().state == "running"
    assert (await admin.post("/drain", Authorization="Bearer 0123456789abcdef")).code == 200


async def test_a_browser_is_no_tool_of_others(ground: Ground) -> None:
    """A page of another site can neither read, through a name of its own, nor change anything."""
    service = ground.service(admin=AdminSettings(ANY_PORT, hosts=("proxy.internal",)))
    service.startService()
    admin = Admin(ground.reactor, service)
    assert (await admin.get("/status", Host="proxy.internal:8081")).code == 200
    assert (await admin.get("/status", Host="evil.example")).code == 403
    assert (await admin.post("/drain", Origin="http://evil.example")).code == 403
    assert (await admin.post("/drain", Sec_Fetch_Site="cross-site")).code == 403
    form = {"Content-Type": "text/plain", "Content-Length": "2"}
    assert (await admin.ask("POST", "/drain", b"{}", form)).code == 415
    assert service.status().state == "running"
    assert (await admin.post("/drain", Origin=f"http://{admin.host}")).code == 200
