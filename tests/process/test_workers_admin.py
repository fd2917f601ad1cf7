"""The admin interface of ``twistd evproxy --workers``: it shows, and changes, all workers."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.process.test_ctl import ctl
from tests.support.admin_process import ADMIN, LISTEN, port_of
from tests.support.blocking_clients import Upstream, rest
from tests.support.peers import RESET
from tests.support.supervised import Supervised, owners
from tests.support.twistd import PATIENCE, wait_until


class Whole:
    """A proxy with two workers, and its admin interface."""

    def __init__(self, running: Supervised, upstream: Upstream) -> None:
        self.running = running
        self.upstream = upstream
        self.port = running.serves()
        self.admin = port_of(running)
        self.pids = running.workers()
        self.name = upstream.option.partition("=")[2]
        self.server = f"/pools/default/servers/{self.name}"

    def ask(self, path: str, method: str = "GET", body: Any = None) -> Any:
        """Return the code and the JSON of an answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.admin}{path}",
            data,
            {"Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as found:
                return found.status, json.load(found)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def get(self, path: str) -> Any:
        code, answer = self.ask(path)
        assert code == 200, answer
        return answer

    def post(self, path: str, body: Any = None) -> Any:
        code, answer = self.ask(path, "POST", body)
        assert code == 200, answer
        return answer

    def sessions_in_both(self) -> list[Any]:
        """Return sessions, some in each worker."""
        pairs: list[Any] = []
        while len(pairs) < 20 or len(set(owners([each for each, _ in pairs], self.pids))) < 2:
            pairs.append(self.upstream.connect(self.port))
        return pairs


@pytest.fixture
def whole(upstream: Upstream) -> Iterator[Whole]:
    """A running proxy with two workers."""
    with Supervised(LISTEN, upstream.option, ADMIN) as running:
        yield Whole(running, upstream)


def test_status(whole: Whole) -> None:
    """The status has the sums of all workers, and says which of them answered."""
    pairs = whole.sessions_in_both()
    status = whole.get("/status")
    assert (status["state"], status["sessions"]) == ("running", len(pairs))
    assert status["pid"] == whole.running.pid
    assert [each["pid"] for each in status["workers"]] == whole.pids
    assert all(each["answered"] and each["sessions"] for each in status["workers"])
    assert status["pools"][0]["sessions"] == len(pairs)
    lines = ctl("--admin", f"127.0.0.1:{whole.admin}", "status").out
    assert f"is running, with {len(pairs)} of at most" in lines


def test_sessions(whole: Whole) -> None:
    """Pages list the sessions of all workers once; each can be shown and ended."""
    pairs = whole.sessions_in_both()
    found: list[Any] = []
    after: int | None = 0
    while after is not None:
        page = whole.get(f"/sessions?limit=3&after={after}")
        assert page["total"] == len(pairs)
        found += page["sessions"]
        after = page["next"]
    clients = {f"127.0.0.1:{each.getsockname()[1]}": each for each, _ in pairs}
    assert sorted(each["peer"] for each in found) == sorted(clients)
    assert len({each["id"] for each in found}) == len(pairs)
    for session in (found[0], found[-1]):
        place = f"/sessions/{session['id']}"
        assert whole.get(place)["peer"] == session["peer"]
        assert whole.post(f"{place}/end") == {"ended": True}
        assert rest(clients[session["peer"]])[1] == RESET
        assert whole.ask(place)[0] == 404


def test_servers(whole: Whole) -> None:
    """A change of a server reaches every worker, and a worker that is replaced."""
    [server] = whole.get("/servers")["servers"]
    assert (server["name"], server["state"]) == (whole.name, "up")
    assert whole.post(f"{whole.server}/weight", {"weight": 7})["weight"] == 7
    assert whole.post(f"{whole.server}/drain")["state"] == "draining"
    os.kill(whole.pids[0], signal.SIGKILL)
    whole.running.says(r"worker 1 serves again")
    assert all(each["answered"] for each in whole.get("/status")["workers"])
    [server] = whole.get("/servers")["servers"]
    assert server["state"] == "draining"
    drained = f"/wait?until=server-drained&pool=default&server={whole.name}"
    assert whole.get(drained)["met"]
    resumed = whole.post(f"{whole.server}/resume")
    assert (resumed["state"], resumed["weight"]) == ("up", 7)
    code, answer = whole.ask("/pools/default/servers/no:1/drain", "POST")
    assert (code, answer["error"]) == (404, 'there is no server "no:1" in pool "default"')


def test_adds_and_removes(whole: Whole) -> None:
    """A server joins the pool of every worker, which share its bound, and leaves it."""
    added = whole.post("/pools/default/servers", {"endpoint": "127.0.0.1:1", "max_sessions": 5})
    assert added["max_sessions"] == 5
    assert whole.ask("/pools/default/servers", "POST", {"endpoint": "127.0.0.1:1"})[0] == 409
    code, answer = whole.ask(
        "/pools/default/servers", "POST", {"endpoint": "127.0.0.1:2", "max_sessions": 1}
    )
    assert (code, "number of workers, 2" in answer["error"]) == (400, True)
    assert whole.post("/pools/default/servers/127.0.0.1:1/remove")["removed"]
    assert [each["name"] for each in whole.get("/servers")["servers"]] == [whole.name]


def test_ends_sessions_of_a_server(whole: Whole) -> None:
    """The sessions of a server end in every worker."""
    pairs = whole.sessions_in_both()
    assert whole.post(f"{whole.server}/end")["sessions"] == len(pairs)
    assert {rest(client)[1] for client, _ in pairs} == {RESET}


def test_drains(whole: Whole) -> None:
    """A drain reaches every worker, and the interface goes on until evproxy is stopped."""
    whole.sessions_in_both()
    assert whole.post("/drain", {"deadline": 0})["state"] == "draining"
    assert whole.get("/wait?until=no-sessions&timeout=20")["met"]
    wait_until(lambda: whole.get("/status")["state"] == "drained")
    whole.running.signal(signal.SIGTERM)
    assert whole.running.ended() == 0


@pytest.mark.parametrize("path", ["/metrics", "/live"])
def test_not_there_yet(whole: Whole, path: str) -> None:
    """What works in one process only is refused with one line."""
    code, answer = whole.ask(path)
    assert (code, list(answer)) == (501, ["error"])
    assert "with more than one worker" in answer["error"]
