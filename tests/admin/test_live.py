"""The stream of looks at a proxy: what it shows, and its bounds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from evproxy import Pool
from evproxy.admin.live.feed import MOST_VIEWERS
from evproxy.admin.live.history import SAMPLES, History, Sample
from tests.support.admin import ANY_PORT, Admin
from tests.support.peers import END, Peer
from tests.support.services import Ground, until

LOOK = 0.05


@pytest.fixture
def admin(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> Admin:
    """The admin interface of a running service that is looked at often."""
    monkeypatch.setattr("evproxy.admin.live.feed.INTERVAL", LOOK)
    service = ground.service(admin=ANY_PORT)
    service.startService()
    return Admin(ground.reactor, service)


def events_in(body: bytes) -> list[tuple[str, Any]]:
    """The events of a stream: their names, and the JSON in them."""
    found = []
    for block in body.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        if "event" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


async def looks(admin: Admin, query: str = "", events: int = 1) -> list[Any]:
    """The next looks at the proxy."""
    answer = await admin.get(f"/live?events={events}&{query}", Connection="close")
    assert answer.code == 200
    assert answer.headers["content-type"] == "text/event-stream"
    body = b"".join(dechunked(answer.body))
    (first, history), *found = events_in(body)
    assert first == "history"
    assert list(history) == ["now", "interval", "samples"]
    assert [name for name, _ in found] == ["look"] * events
    return [look for _, look in found]


def dechunked(body: bytes) -> list[bytes]:
    """The chunks of a body with Transfer-Encoding: chunked."""
    chunks = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        chunks.append(rest[:length])
        body = rest[length + 2 :]
    return chunks


async def test_what_a_look_shows(ground: Ground, admin: Admin) -> None:
    """The state, listeners, pools, servers and sessions, with rates."""
    client, server = await ground.session(ground.services[0])
    await looks(admin)
    await server.send(b"x" * 5000)
    await client.receive(5000)
    found = await looks(admin, events=8)
    [listener] = found[0]["listeners"]
    assert (listener["name"], listener["sessions"]) == (ANY_PORT, 1)
    [pool] = found[0]["pools"]
    assert pool["servers"] == {"up": 1, "down": 0, "ejected": 0, "draining": 0}
    assert (pool["name"], pool["balance"], pool["checks"]) == ("default", "round-robin", "")
    for look in found:
        [shown] = look["servers"]
        [session] = look["sessions"]
        assert session["server"] == shown["name"]
        assert session["rate_to_downstream"] == shown["rate_to_downstream"]
        assert look["sample"][4] == pytest.approx(session["rate_to_downstream"], abs=0.1)
        assert (session["bytes_to_upstream"], session["bytes_to_downstream"]) == (1, 5001)
        assert (look["matching"], look["sessions_total"]) == (1, 1)
    assert found[-1]["sessions"][0]["rate_to_downstream"] == 0


async def test_each_byte_counts_once(ground: Ground, admin: Admin) -> None:
    """The rates of all samples add up to the bytes that moved, also of sessions that ended."""
    service = ground.services[0]
    await looks(admin)
    started = ground.reactor.seconds()
    ended = []
    for number in range(6):
        client, server = await ground.session(service)
        await server.send(b"x" * 1000)
        await client.receive(1000)
        if number % 2:
            # Some of them have been looked at before they end.
            if number > 1:
                await looks(admin)
            client.end()
            assert await server.rest() == (b"", END)
            server.close()
            ended.append(client)
        await deferLater(ground.reactor, LOOK / 2)
    await until(ground.reactor, lambda: len(service.admission.sessions) == 3)
    await looks(admin, events=2)
    answer = await admin.get("/live?events=1", Connection="close")
    (_, history), _ = events_in(b"".join(dechunked(answer.body)))
    samples = history["samples"]
    times = [samples[0][0] - LOOK, *(each[0] for each in samples)]
    moved = sum(
        (each[3] + each[4]) * (at - before)
        for before, at, each in zip(times, times[1:], samples, strict=False)
    )
    assert moved == pytest.approx(6 * 1002, rel=0.1)
    begun = sum(
        each[2] * (at - before) for before, at, each in zip(times, times[1:], samples, strict=False)
    )
    assert begun == pytest.approx(6, rel=0.1)
    connected = [each for each in samples if each[5] is not None]
    assert connected
    assert all(0 < each[5] <= each[6] < ground.reactor.seconds() - started for each in connected)


async def test_sessions_are_chosen_by_the_server(ground: Ground, admin: Admin) -> None:
    """Filter, order and limit hold for all sessions, not for those that happen to be shown."""
    clients = [(await ground.session(ground.services[0]))[0] for _ in range(5)]

    async def ids(query: str) -> list[int]:
        [look] = await looks(admin, query)
        return [each["id"] for each in look["sessions"]]

    assert await ids("sort=id") == [5, 4, 3, 2, 1]
    assert await ids("sort=id&order=reversed") == [1, 2, 3, 4, 5]
    assert await ids("sort=age&limit=2") == [1, 2]
    assert await ids("sort=rate&limit=1") == [5]
    port = clients[2].socket.getsockname()[1]
    assert await ids(f"filter=:{port}+RELAYING") == [3]
    assert await ids("filter=nowhere") == []
    [look] = await looks(admin, "filter=nowhere&limit=1")
    assert (look["servers"], look["servers_matching"], look["sessions_total"]) == ([], 0, 5)


async def test_servers_that_are_not_up_come_first(ground: Ground, admin: Admin) -> None:
    """Beyond the limit, the servers that need somebody are shown."""
    pool = ground.services[0].pools["default"]
    assert isinstance(pool, Pool)
    for number in range(1, 6):
        pool.add(f"127.0.0.1:{number}")
    pool.drain("127.0.0.1:5")
    [look] = await looks(admin, "limit=2")
    assert [each["state"] for each in look["servers"]] == ["draining", "up"]
    assert look["servers_matching"] == 6
    assert look["pools"][0]["servers"] == {"up": 5, "down": 0, "ejected": 0, "draining": 1}


async def test_looks_of_any_length_count(ground: Ground, admin: Admin) -> None:
    """The answer ends after its events, also if one of them fills the buffer of the connection."""
    pool = ground.services[0].pools["default"]
    assert isinstance(pool, Pool)
    for number in range(1, 500):
        pool.add(f"127.0.0.1:{number}")
    asking = Deferred.fromCoroutine(looks(admin, "limit=500"))
    [look] = await asking.addTimeout(20, ground.reactor)
    assert len(look["servers"]) == 500


async def watching(admin: Admin) -> Peer:
    """A viewer that has the history."""
    viewer = admin.connect()
    await viewer.send(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert await viewer.receive(12) == b"HTTP/1.1 200"
    return viewer


async def test_too_many_viewers(admin: Admin) -> None:
    """Viewers beyond the bound are told; when one leaves, another one can watch."""
    viewers = [await watching(admin) for _ in range(MOST_VIEWERS)]
    refused = await admin.get("/live")
    assert refused.code == 503
    assert refused.error == "16 viewers watch already, which is the most"
    viewers.pop().close()
    while (await admin.get("/live?events=1")).code != 200:
        pass
    for viewer in viewers:
        viewer.close()


async def test_a_slow_viewer(ground: Ground, admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    """A viewer that reads nothing gets no more events, and is reset after a time."""
    monkeypatch.setattr("evproxy.admin.live.stream.PATIENCE", 0.2)
    # Many servers make long events.
    pool = ground.services[0].pools["default"]
    assert isinstance(pool, Pool)
    for number in range(1, 500):
        pool.add(f"127.0.0.1:{number}")
    monkeypatch.setattr("evproxy.admin.live.feed.INTERVAL", 0.001)
    viewer = admin.connect()
    await viewer.send(b"GET /live?limit=500 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    while (await looks(admin))[0]["sessions_total"] != 0:
        pass
    # The bound of the interface on viewers is free again once it is gone.
    others = [await watching(admin) for _ in range(MOST_VIEWERS - 1)]
    gone = Deferred.fromCoroutine(_free(admin))
    await gone
    for each in (viewer, *others):
        each.close()


async def _free(admin: Admin) -> None:
    while (await admin.get("/live?events=1")).code != 200:
        pass


async def test_a_stop_ends_the_streams(ground: Ground, admin: Admin) -> None:
    """Viewers are no reason to wait."""
    viewer = await watching(admin)
    started = ground.reactor.seconds()
    await ground.services[0].stopService()
    assert ground.reactor.seconds() - started < 0.9
    received, how = await viewer.rest()
    assert received.endswith(b"0\r\n\r\n")
    assert how == END
    viewer.close()


async def test_head_has_no_stream(admin: Admin) -> None:
    """HEAD is answered at once, without a body."""
    answer = await admin.ask("HEAD", "/live", None, {})
    assert (answer.code, answer.body) == (200, b"")


async def test_a_filter_of_too_many_words(admin: Admin) -> None:
    """What a viewer may cost is bounded."""
    assert (await admin.get("/live?events=1&filter=a+b+c+d+e+f+g+h")).code == 200
    answer = await admin.get("/live?filter=a+b+c+d+e+f+g+h+i")
    assert (answer.code, answer.error) == (400, "filter: expected at most 8 words, got 9")


def test_the_history_is_bounded() -> None:
    """The oldest sample goes once there are 15 minutes of them."""
    history = History()
    for number in range(SAMPLES + 5):
        history.add(Sample(number, 1, 0.5, 0.0, 1e9 / 3, None, 0.0012345678, None))
    samples = json.loads(history.text)
    assert len(samples) == SAMPLES
    assert samples[0] == [5, 1, 0.5, 0, 333333333.333333, None, 0.001235, None]
