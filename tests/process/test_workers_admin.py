"""The admin interface of ``twistd evproxy --workers``: it shows, and changes, all workers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from evproxy.admin.page.files import TYPES
from evproxy.observe.metrics.declared import DECLARED, OF_WORKERS
from evproxy.workers.admin.crew import ANSWER_TIMEOUT
from tests.process.test_ctl import ctl
from tests.process.test_top import top
from tests.support.admin_process import ADMIN, LISTEN, port_of
from tests.support.blocking_clients import Upstream, rest, works
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
        self.pairs: list[Any] = []
        self.name = upstream.option.partition("=")[2]
        self.server = f"/pools/default/servers/{self.name}"

    def ask(self, path: str, method: str = "GET", body: Any = None) -> Any:
        """Return the code and the JSON of an answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url(path), data, headers, method=method)
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

    def looks(self, query: str) -> list[Any]:
        """Return the looks of `/live`, which the `query` bounds."""
        with urllib.request.urlopen(self.url(f"/live?{query}"), timeout=PATIENCE) as found:
            blocks = found.read().decode().split("\n\n")
        start = "event: look\ndata: "
        return [json.loads(each.removeprefix(start)) for each in blocks if each.startswith(start)]

    def post(self, path: str, body: Any = None) -> Any:
        code, answer = self.ask(path, "POST", body)
        assert code == 200, answer
        return answer

    def metrics(self, query: str = "") -> Samples:
        """Return the metrics."""
        with urllib.request.urlopen(self.url(f"/metrics{query}"), timeout=PATIENCE) as found:
            return Samples(found.read().decode())

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.admin}{path}"

    def sessions_in_both(self) -> list[Any]:
        """Return sessions, some in each worker."""
        pairs = self.pairs
        pids = self.running.workers()
        while len(pairs) < 20 or len(set(owners([each for each, _ in pairs], pids))) < 2:
            pairs.append(self.upstream.connect(self.port))
        return pairs

    def numbers_of(self, worker: int) -> list[int]:
        """Return the numbers of the sessions of a worker, from 1 on."""
        numbers = [each["id"] for each in self.get("/sessions?limit=500")["sessions"]]
        return [each for each in numbers if each % 2 == worker % 2]

    def end_all(self) -> None:
        """End the sessions of `sessions_in_both`."""
        pairs, self.pairs = self.pairs, []
        for pair in pairs:
            for each in pair:
                each.close()


class Samples:
    """The samples of metrics, by their name and labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {each.name: each for each in text_string_to_metric_families(text)}

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples with these labels, and any others; there is at least one."""
        found = [
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert found, name
        return sum(found)

    def of_each(self, name: str) -> set[str]:
        """The workers that have a sample of the family `name`."""
        return {each.labels["worker"] for each in self.families[name].samples}


@pytest.fixture(scope="module")
def one() -> Iterator[Whole]:
    """A running proxy with two workers, for all tests."""
    upstream = Upstream()
    with (
        contextlib.closing(upstream),
        Supervised(LISTEN, upstream.option, ADMIN, "--watchdog-threshold=5") as running,
    ):
        yield Whole(running, upstream)


@pytest.fixture
def whole(one: Whole) -> Iterator[Whole]:
    """The proxy, without a session."""
    one.end_all()
    wait_until(lambda: one.get("/status")["sessions"] == 0)
    yield one
    one.end_all()


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


@pytest.mark.peers("promtool")
def test_metrics(whole: Whole) -> None:
    """The metrics are sums of all workers; what belongs to a process has its label."""
    before = whole.metrics()
    pairs = whole.sessions_in_both()
    count = len(pairs)
    found = whole.metrics()
    assert found("evproxy_sessions", phase="relaying") == count
    for name in ("evproxy_sessions_started_total", "evproxy_server_connects_total"):
        assert found(name) - before(name) == count
    for end in ("upstream", "downstream"):
        for name in (f"evproxy_bytes_to_{end}_total", f"evproxy_server_bytes_to_{end}_total"):
            assert found(name) - before(name) == count
    assert found("evproxy_server_sessions") == count
    assert found("evproxy_pool_servers", state="up") == 1
    everyone = {"supervisor", "1", "2"}
    for name in ("process_open_fds", "python_gc_collections", "python_twisted_reactor_tick_time"):
        assert found.of_each(name) == everyone
    for worker in "12":
        assert found("evproxy_worker_up", worker=worker) == 1
    names = {each.name.removesuffix("_total") for each in (*DECLARED, *OF_WORKERS)}
    assert names <= set(found.families)
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=found.text.encode(), capture_output=True
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    only = whole.metrics("?scope=proxy&scope=loop")
    assert "evproxy_worker_up" in only.families
    assert not any(each.startswith(("evproxy_session", "process_")) for each in only.families)
    request = urllib.request.Request(
        whole.url("/metrics"), headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        assert list(openmetrics_families(answer.read().decode()))


def test_metrics_of_a_dead_worker(whole: Whole) -> None:
    """What a dead worker had counted stays; its sessions are gone."""
    pairs = whole.sessions_in_both()
    numbers = whole.numbers_of(1)
    before = whole.metrics()
    [dead, *_] = pids = whole.running.workers()
    mine = owners([each for each, _ in pairs], pids)
    os.kill(dead, signal.SIGKILL)
    whole.running.says(r"worker 1 serves again")
    after = whole.metrics()
    assert after("evproxy_sessions", phase="relaying") == sum(each != dead for each in mine)
    assert after("evproxy_worker_restarts_total", worker="1") == 1
    for name in (
        "evproxy_sessions_started_total",
        "evproxy_server_connects_total",
        "evproxy_bytes_to_upstream_total",
        "evproxy_server_bytes_to_upstream_total",
        "evproxy_session_duration_seconds_count",
    ):
        assert after(name) == before(name), name
    whole.pids = whole.running.workers()
    whole.end_all()
    whole.sessions_in_both()
    assert min(whole.numbers_of(1)) > max(numbers)


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
    changes = "evproxy_pool_server_changes_total"
    before = whole.metrics()(changes, state="draining")
    assert whole.post(f"{whole.server}/drain")["state"] == "draining"
    os.kill(whole.get("/status")["workers"][1]["pid"], signal.SIGKILL)
    whole.running.says(r"worker 2 serves again")
    assert all(each["answered"] for each in whole.get("/status")["workers"])
    [server] = whole.get("/servers")["servers"]
    assert server["state"] == "draining"
    assert whole.metrics()(changes, state="draining") - before == 1
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


def test_hung_worker(whole: Whole) -> None:
    """An answer does not wait for a worker that hangs for long, and says which one does."""
    other, hung = pids = whole.running.workers()
    mine = owners([each for each, _ in whole.sessions_in_both()], pids)
    os.kill(hung, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor() as threads:
            status = threads.submit(whole.get, "/status")
            metrics = threads.submit(whole.metrics)
            drain = threads.submit(whole.ask, f"{whole.server}/drain", "POST")
            answered = {each["pid"]: each["answered"] for each in status.result()["workers"]}
            assert [answered.pop(hung), *answered.values()] == [False, True]
            assert metrics.result()("evproxy_worker_up", worker="2") == 0
            assert metrics.result()("evproxy_worker_up", worker="1") == 1
            code, answer = drain.result()
            assert code == 504
            assert answer["error"] == "no answer within 5 s from worker 2: nothing has changed"
            # By now, the live view does not wait for it.
            started = time.monotonic()
            shown = threads.submit(top, "--once", f"--admin=127.0.0.1:{whole.admin}")
            last = whole.looks("events=2")[-1]
            assert time.monotonic() - started < ANSWER_TIMEOUT
            assert [each["answered"] for each in last["workers"]] == [True, False]
            assert last["sessions_total"] == mine.count(other)
            assert "2 workers, no answer from worker 2" in shown.result().out
    finally:
        os.kill(hung, signal.SIGCONT)
    # No worker has made the change.
    assert whole.get(whole.server)["state"] == "up"


def test_live(whole: Whole) -> None:
    """A look has the sums of all workers; filter, order and limit hold for all of them."""
    client, _ = whole.sessions_in_both()[0]
    count = len(whole.pairs)
    numbers = sorted(each["id"] for each in whole.get("/sessions?limit=500")["sessions"])
    port = client.getsockname()[1]
    with ThreadPoolExecutor() as threads:
        last, first, filtered = threads.map(
            lambda query: whole.looks(query)[-1],
            (
                "events=2&sort=id",
                "events=1&sort=id&order=reversed&limit=3",
                f"events=1&filter=:{port}",
            ),
        )
    assert [each["id"] for each in last["sessions"]] == numbers[::-1]
    assert [each["id"] for each in first["sessions"]] == numbers[:3]
    assert [each["peer"] for each in filtered["sessions"]] == [f"127.0.0.1:{port}"]
    assert (last["matching"], first["matching"], filtered["matching"]) == (count, count, 1)
    assert (last["state"], last["sessions_total"], last["pid"]) == (
        "running",
        count,
        whole.running.pid,
    )
    assert [each["sessions"] for each in last["listeners"]] == [count]
    [pool] = last["pools"]
    assert (pool["balance"], pool["servers"]["up"], pool["sessions"]) == ("round-robin", 1, count)
    assert [(each["name"], each["sessions"]) for each in last["servers"]] == [(whole.name, count)]
    assert [(each["pid"], each["answered"]) for each in last["workers"]] == [
        (pid, True) for pid in whole.running.workers()
    ]
    _, sessions, *_, lag = last["sample"]
    assert (sessions, lag is not None) == (count, True)


def test_rates(whole: Whole) -> None:
    """The rates of sessions are those of their server, and nearly those of the sample."""
    pairs = whole.sessions_in_both()
    size = 1000
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(whole.looks, "events=2")
        while not asked.done():
            for client, server in pairs:
                server.sendall(b"x" * size)
                assert len(client.recv(size, socket.MSG_WAITALL)) == size
        found = asked.result()[-1]
    [server] = found["servers"]
    rates = [each["rate_to_downstream"] for each in found["sessions"]]
    assert min(rates) > 0
    assert sum(rates) == pytest.approx(server["rate_to_downstream"], rel=0.01)
    assert sum(rates) == pytest.approx(found["sample"][4], rel=0.3)


def test_top(whole: Whole) -> None:
    """``evproxy top`` shows the sessions of all workers."""
    pairs = whole.sessions_in_both()
    shown = top("--once", f"--admin=127.0.0.1:{whole.admin}", "--limit=100")
    assert (shown.status, shown.err) == (0, "")
    assert f"running, {len(pairs)} of" in shown.out
    assert ", 2 workers\n" in shown.out
    assert all(f" 127.0.0.1:{each.getsockname()[1]} " in shown.out for each, _ in pairs)


def test_the_page(whole: Whole) -> None:
    """The status page and its files are those of one process."""
    for name in TYPES:
        place = "/" if name == "page.html" else f"/{name}"
        with urllib.request.urlopen(whole.url(place), timeout=PATIENCE) as found:
            assert found.read() == files("evproxy.admin.page").joinpath(name).read_bytes()


def test_drains(whole: Whole) -> None:
    """
    A drain reaches every worker, and the interface goes on until evproxy is stopped.

    A second one brings its deadline forward, in every worker.
    """
    pairs = whole.sessions_in_both()
    # These count at once, not only when the supervisor has looked again.
    pairs += [whole.upstream.connect(whole.port) for _ in range(3)]
    before = whole.metrics()
    assert whole.post("/drain", {"deadline": None})["sessions"] == len(pairs)
    assert all(works(pair) for pair in pairs)
    assert whole.post("/drain", {"deadline": 0})["state"] == "draining"
    assert whole.get("/wait?until=no-sessions&timeout=20")["met"]
    wait_until(lambda: whole.get("/status")["state"] == "drained")
    status = whole.get("/status")
    assert [each["name"] for each in status["pools"]] == ["default"]
    assert (status["sessions"], status["pools"][0]["servers"]["draining"]) == (0, 0)
    assert [each["name"] for each in whole.get("/servers")["servers"]] == [whole.name]
    after = whole.metrics()
    assert after("evproxy_sessions_started_total") == before("evproxy_sessions_started_total")
    assert after("evproxy_server_connects_total") == before("evproxy_server_connects_total")
    whole.running.signal(signal.SIGTERM)
    assert whole.running.ended() == 0
