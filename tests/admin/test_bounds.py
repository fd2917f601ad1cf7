"""Whatever clients of the admin interface do, what they can take is bounded."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater

from evproxy import AdminSettings
from evproxy.admin.answers import Answer
from evproxy.admin.interface import AdminInterface
from evproxy.admin.operations import Operation
from evproxy.admin.site import MOST_BODY, MOST_CONNECTIONS, MOST_DISCARDED
from evproxy.engine.slices import SLICE, in_slices, slices
from tests.support.admin import ANY_PORT, Admin, answer
from tests.support.peers import END, RESET, Peer, connect
from tests.support.services import Ground


@pytest.fixture
def admin(ground: Ground) -> Admin:
    """The admin interface of a running service."""
    service = ground.service(admin=ANY_PORT)
    service.startService()
    return Admin(ground.reactor, service)


async def test_too_many_clients(admin: Admin) -> None:
    """Clients beyond the bound are reset; when one leaves, another one is served."""
    clients = [admin.connect() for _ in range(MOST_CONNECTIONS)]
    for client in clients:
        await client.send(b"GET /sessions HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await client.receive(12) == b"HTTP/1.1 200"
    refused = admin.connect()
    assert await refused.rest() == (b"", RESET)
    refused.close()
    # It closes its connection after the answer, so the interface has seen it leave.
    last = clients.pop()
    await last.send(b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert (await last.rest())[1] == END
    last.end()
    assert (await admin.get("/status")).code == 200
    for client in [*clients, last]:
        client.close()


async def test_a_body_that_is_too_long(admin: Admin) -> None:
    """A body beyond the bound is not kept, and the client is told."""
    for length in (MOST_BODY + 1, MOST_DISCARDED):
        found = await admin.ask("POST", "/drain", b" " * length, {})
        assert (found.code, found.error) == (413, "the body is too long")
    assert (await admin.ask("POST", "/drain", b" " * MOST_BODY, {})).code == 200


async def broken_off(client: Peer, pieces: Iterable[bytes]) -> bool:
    """Whether the connection breaks while `client` sends `pieces`."""
    try:
        for piece in pieces:
            await client.send(piece)
    except (ConnectionResetError, BrokenPipeError):
        return True
    finally:
        client.close()
    return False


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_without_end(admin: Admin, chunked: bool) -> None:
    """A body that is far beyond the bound ends the connection, whatever length it says."""
    client = admin.connect()
    how = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 999999999999"
    await client.send(b"POST /drain HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n" % how)
    piece = b"10000\r\n" + b" " * 65536 + b"\r\n" if chunked else b" " * 65536
    assert await broken_off(client, [piece] * 1000)


async def test_headers_without_end(admin: Admin) -> None:
    """Headers beyond the bound of twisted.web are refused."""
    client = admin.connect()
    await client.send(b"GET /status HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 4000)
    received, _ = await client.rest()
    assert received.startswith(b"HTTP/1.1 400 ")
    client.close()


async def test_a_slow_request(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request must come within a time, however often a byte of it comes."""
    monkeypatch.setattr("evproxy.admin.site.REQUEST_TIME", 0.3)
    service = ground.service(admin=ANY_PORT)
    service.startService()
    client = Admin(ground.reactor, service).connect()
    started = ground.reactor.seconds()
    ended = Deferred.fromCoroutine(client.rest())
    for _ in range(2000):
        if ended.called:
            break
        client.send_now(b"G")
        await deferLater(ground.reactor, 0.01)
    await ended
    assert 0.25 < ground.reactor.seconds() - started < 10
    client.close()


async def test_a_client_that_does_not_read(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long answer must be read within a time; what is not sent yet is not copied."""
    monkeypatch.setattr("evproxy.admin.site.REQUEST_TIME", 0.3)
    long = Operation(
        "GET", "/long", "long", "Long.", lambda context, asked: Answer(b"x" * 50_000_000)
    )
    service = ground.service()
    interface = AdminInterface(ground.reactor, service, AdminSettings(ANY_PORT), [long])
    interface.bind()
    address: Any = interface.address
    client = connect(ground.reactor, (address.host, address.port))
    await client.send(b"GET /long HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await client.receive(100)
    await deferLater(ground.reactor, 0.5)
    received, how = await client.rest()
    assert how == RESET
    assert len(received) < 50_000_000
    client.close()
    monkeypatch.undo()
    reads = connect(ground.reactor, (address.host, address.port))
    await reads.send(b"GET /long HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert len((await answer(reads)).body) == 50_000_000
    await interface.close()


async def test_pipelined_requests(admin: Admin) -> None:
    """Requests that come together are answered in order."""
    client = admin.connect()
    ask = b"GET /sessions/%d HTTP/1.1\r\nHost: localhost\r\n%b\r\n"
    await client.send(ask % (1, b"") + ask % (2, b"") + ask % (3, b"Connection: close\r\n"))
    received, how = await client.rest()
    assert [received.index(b"session %d," % number) for number in (1, 2, 3)] == sorted(
        received.index(b"session %d," % number) for number in (1, 2, 3)
    )
    assert how == END
    client.close()


async def test_a_client_that_leaves(admin: Admin, ground: Ground) -> None:
    """A wait ends with its client: no timer is left behind."""
    await ground.session(ground.services[0])
    client = admin.connect()
    await client.send(b"GET /wait?until=no-sessions&timeout=600 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await admin.get("/status")).code == 200
    client.reset()


async def test_the_last_answer(ground: Ground) -> None:
    """A wait that the end of the service fulfils still gets its answer; nobody waits for idlers."""
    service = ground.service(admin=ANY_PORT)
    service.startService()
    admin = Admin(ground.reactor, service)
    client, _ = await ground.session(service)
    idle = admin.connect()
    waiting = Deferred.fromCoroutine(admin.get("/wait?until=no-sessions"))
    assert (await admin.get("/status")).code == 200
    stopped = service.drain(0)
    assert await client.rest() == (b"", RESET)
    await DeferredList([stopped, service.stopService()])
    assert (await waiting).json["met"] is True
    assert (await idle.rest())[0] == b""
    idle.close()


async def test_a_second_stop(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two stops is over once the clients have left."""
    monkeypatch.setattr("evproxy.admin.site.GRACE", 0.1)
    service = ground.service(admin=ANY_PORT)
    service.startService()
    admin = Admin(ground.reactor, service)
    waits = admin.connect()
    where = f"pool=default&server=127.0.0.1:{ground.upstream.port}"
    request = f"GET /wait?until=server-down&{where} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    await waits.send(request.encode())
    assert (await admin.get("/status")).code == 200
    stops = DeferredList([service.stopService(), service.stopService()])
    await stops.addTimeout(10, ground.reactor)
    assert await waits.rest() == (b"", RESET)
    waits.close()


async def test_work_in_slices(reactor: Any) -> None:
    """Work on many items lets the reactor run in between, and stops at enough results."""
    turns: list[int] = []
    seen: list[int] = []

    def count() -> None:
        turns.append(len(seen))
        if len(seen) < 10 * SLICE:
            reactor.callLater(0, count)

    reactor.callLater(0, count)

    def odd(item: int) -> int | None:
        seen.append(item)
        return item if item % 2 else None

    found = await in_slices(reactor, iter(range(10 * SLICE)), odd)
    assert found == list(range(1, 10 * SLICE, 2))
    assert max(b - a for a, b in pairwise(turns)) <= 2 * SLICE
    assert await in_slices(reactor, iter(range(10**9)), odd, 3) == [1, 3, 5]


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, []), (1, [1]), (SLICE, [SLICE]), (2 * SLICE + 1, [SLICE, SLICE, 1])]
)
def test_slices(count: int, sizes: list[int]) -> None:
    """All items in their order, none of the slices empty."""
    found = list(slices(range(count)))
    assert [len(each) for each in found] == sizes
    assert [item for each in found for item in each] == list(range(count))


async def test_an_operation_that_breaks(
    ground: Ground, admin: Admin, logged_errors: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception is logged, and the client gets one line instead of a traceback."""

    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ground.services[0], "overview", broken)
    found = await admin.get("/status")
    assert found.code == 500
    assert found.error == "this request broke evproxy's admin interface: see the log"
    logged_errors.flush(ZeroDivisionError)


async def test_nonsense(admin: Admin) -> None:
    """Bytes that are no HTTP are refused, and a path that is no UTF-8 is."""
    client = admin.connect()
    await client.send(b"\x16\x03\x01\x00\xa5 nonsense\r\n\r\n")
    assert (await client.rest())[0].startswith(b"HTTP/1.1 400 ")
    client.close()
    client = admin.connect()
    await client.send(b"GET /%ff HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert (await answer(client)).error == "the path is not UTF-8"


@pytest.mark.parametrize(
    ("header", "error"),
    [
        (b"Host: \xff", 'Host: "ÿ" is no name of this admin interface: see admin.hosts'),
        (b"Sec-Fetch-Site: \xff", "Sec-Fetch-Site: pages of other sites may not change the proxy"),
        (b"Origin: \xff", 'Origin: pages of "ÿ" may not change the proxy'),
        (
            b"Authorization: \xff\r\nContent-Type: \xff",
            "Content-Type: expected application/json for the body",
        ),
    ],
)
async def test_headers_that_are_not_utf_8(admin: Admin, header: bytes, error: str) -> None:
    """A header may have any byte; each is a character."""
    client = admin.connect()
    host = b"" if header.startswith(b"Host") else b"Host: localhost\r\n"
    await client.send(
        b"POST /drain HTTP/1.1\r\n%bConnection: close\r\nContent-Length: 2\r\n%b\r\n\r\n{}"
        % (host, header)
    )
    assert (await answer(client)).error == error


@pytest.mark.parametrize(
    ("target", "hosts", "code"),
    [
        ("http://localhost/status", ["localhost"], 200),
        ("HTTP://LOCALHOST:8081/servers?limit=1", ["another.example"], 200),
        ("http://127.0.0.1", [], 200),
        ("http://another.example/status", ["localhost"], 403),
        ("http://localhost/status", ["localhost", "localhost"], 400),
        ("http:///status", ["localhost"], 404),
    ],
)
async def test_a_target_with_a_host(admin: Admin, target: str, hosts: list[str], code: int) -> None:
    """A request as to a proxy is served, and the host of its target counts (RFC 9112, 3.2.2)."""
    client = admin.connect()
    lines = [f"GET {target} HTTP/1.1", *(f"Host: {host}" for host in hosts), "Connection: close"]
    await client.send("\r\n".join([*lines, "", ""]).encode())
    assert (await answer(client)).code == code
