"""Pools of real nginx servers under load from wrk, and what it notices when one fails."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from attrs import define
from twisted.logger import formatEvent

from evproxy.model import Ending, UpstreamServer
from evproxy.settings import HealthCheck
from tests.support.loads import Load
from tests.support.namespaces import FAR, NEAR, Cable, inside
from tests.support.pools import Pooled
from tests.support.programs import requires_program
from tests.support.real_servers import RealServer, free_port
from tests.support.server_kinds import nginx
from tests.support.twistd import JSON_LOG, TWISTD, Running

CLIENTS = 8
"""Connections that wrk keeps, each with one request at a time."""

CHECK = HealthCheck("http", path="/healthz", interval=0.2, timeout=0.5, rise=1, fall=2)
SHORT = ("-H", "Connection: close")

pytestmark = pytest.mark.peers("nginx", "wrk")


@define
class Seen:
    """What wrk saw in all: requests that were answered, and sessions that broke."""

    requests: int
    errors: int

    @classmethod
    def of(cls, output: str) -> Seen:
        """What `output` of wrk says."""
        requests = re.search(r"(\d+) requests in", output)
        assert requests is not None, output
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+)", output)
        wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
        counts = [*(errors.groups() if errors else ()), wrong[1] if wrong else 0]
        return cls(int(requests[1]), sum(map(int, counts)))


def wrk(port: int, *options: str, host: str = "127.0.0.1") -> list[str]:
    """wrk, until it is interrupted; by then it must have waited a minute to call it an error."""
    base = ["wrk", "-t1", f"-c{CLIENTS}", "-d60s", "--timeout", "60s"]
    return [*base, *options, f"http://{host}:{port}/healthz"]


async def interrupted(load: Load) -> Seen:
    """What wrk says when it is told to stop."""
    await load.stop("INT")
    return Seen.of(load.last)


async def running(reactor: Any, pooled: Pooled, count: int) -> tuple[list[RealServer], list[str]]:
    """nginx servers that take connections, and their addresses."""
    ports = [free_port() for _ in range(count)]
    servers = [nginx(pooled.servers, port) for port in ports]
    for server, port in zip(servers, ports, strict=True):
        await server.started(reactor, port)
    return servers, [f"127.0.0.1:{port}" for port in ports]


async def more(pooled: Pooled, sessions: int) -> None:
    """Wait until so many more sessions have ended."""
    await pooled.observed.ended(len(pooled.observed.records) + sessions)


CONFIGURATION = """
[[listeners]]
listen = "tcp:{port}:interface=127.0.0.1"
pool = "web"

[[listeners]]
name = "beside"
listen = "tcp:{beside}:interface=127.0.0.1"
pool = "third"

[pools.third]
upstreams = ["{third}"]

[pools.web]
upstreams = ["{first}", "{second}", "{third}"]
connect_timeout = 1.0
on_down = "reset"
[pools.web.health_check]
kind = "http"
path = "/healthz"
interval = 0.2
timeout = 0.5
rise = 1
fall = 2
"""


def visit(url: str) -> None:
    """Have one session; blocks."""
    urlopen(url, timeout=30).close()


def checked(proxy: Running) -> None:
    """Wait until every server was checked: the first check decides alone, and later ones do not."""
    proxy.says("ProxyFactory starting on")
    starting = next(each for each in proxy.events if "starting" in formatEvent(each))
    end = starting["log_time"] + 2 * CHECK.interval
    proxy.event(lambda event: event["log_time"] > end)


async def test_killed_and_stopped_with_a_file(reactor: Any, pooled: Pooled, tmp_path: Path) -> None:
    """A process of its own, with a configuration file, tells in its log what fails and when."""
    servers, addresses = await running(reactor, pooled, 3)
    first, second, third = addresses
    path = tmp_path / "evproxy.toml"
    port, beside = free_port(), free_port()
    path.write_text(
        CONFIGURATION.format(port=port, beside=beside, first=first, second=second, third=third)
    )
    with Running("evproxy", f"--config={path}") as proxy:
        proxy.says(rf"ProxyFactory starting on {beside}")
        arguments = [requires_program("wrk"), *wrk(port, *SHORT)[1:]]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as load:
            proxy.sessions(500)
            checked(proxy)
            servers[0].stop()
            proxy.says(rf"^web/{first} down: connection refused \(2 of 2\)$")
            proxy.sessions(len(proxy.sessions()) + 500)
            # In a thread: the proxy waits where nobody reads what it logs.
            with ThreadPoolExecutor(1) as threads:
                asked = threads.submit(visit, f"http://127.0.0.1:{beside}/who")
                found = proxy.event(lambda event: event.get("listener") == "beside")
                asked.result()
            assert found["upstream"] == third
            servers[1].signal(signal.SIGSTOP)
            proxy.says(rf"^web/{second} down: timed out after 0\.5 s.* \(2 of 2\)$")
            proxy.sessions(len(proxy.sessions()) + 500)
            servers[0].start()
            servers[1].signal(signal.SIGCONT)
            proxy.says(rf"^web/{first} up: check passed \(1 of 1\)$")
            proxy.says(rf"^web/{second} up: check passed \(1 of 1\)$")
            proxy.sessions(len(proxy.sessions()) + 500)
            seen = told_to_stop(load)
    # Each of the two failures costs a client at most the one session that it was on; while the
    # stopped one was not found yet, every client came upon it.
    assert seen.errors >= 1
    assert seen.requests > 2000
    pooled.errors(seen.errors, allowed=2 * CLIENTS)


async def test_restarted_one_after_the_other(reactor: Any, pooled: Pooled) -> None:
    """A rolling restart, drained before, is not noticed at all."""
    servers, addresses = await running(reactor, pooled, 3)
    pooled.start(*addresses, health_check=CHECK)
    load = pooled.load(*wrk(pooled.port, *SHORT))
    await more(pooled, 300)
    for server, address in zip(servers, addresses, strict=True):
        pooled.pool.drain(address)
        drained = reactor.seconds()
        await until_idle(pooled, address)
        server.stop(signal.SIGTERM)
        await more(pooled, 200)
        await server.started(reactor, int(address.rpartition(":")[2]))
        came = [each for each in pooled.since(0) if each.started > drained]
        assert address not in {each.upstream for each in came}
        pooled.pool.resume(address)
        await more(pooled, 200)
    seen = await interrupted(load)
    pooled.errors(seen.errors, allowed=0, wrote=[load.last])
    assert seen.requests > 1000
    assert {each.upstream for each in pooled.since(0)} == set(addresses)


async def until_idle(pooled: Pooled, address: str) -> None:
    """Wait until the server at `address` has no session."""

    def idle() -> bool:
        return not any(each.sessions for each in pooled.pool.servers if each.name == address)

    await pooled.observed.until(idle)


SLOW_START = 2.0


async def test_slow_start(reactor: Any, pooled: Pooled) -> None:
    """A server that is back grows into its share: a little at first, all of it at the end."""
    servers, (back, other) = await running(reactor, pooled, 2)
    pooled.start(back, other, health_check=CHECK, slow_start=SLOW_START)
    load = pooled.load(*wrk(pooled.port, *SHORT))
    await more(pooled, 200)
    servers[0].stop()
    await pooled.heard.line(f"{back} down")
    await more(pooled, 200)
    await servers[0].started(reactor, int(back.rpartition(":")[2]))
    await pooled.heard.line(f"{back} up")
    began = reactor.seconds()
    while reactor.seconds() < began + 1.5 * SLOW_START:
        await more(pooled, 50)
    await load.stop("INT")

    def share(begin: float, end: float) -> float:
        """The part of all sessions that it got between two parts of the slow start."""
        times = began + begin * SLOW_START, began + end * SLOW_START
        among = [each for each in pooled.since(0) if times[0] <= each.started < times[1]]
        assert len(among) > 50
        return sum(each.upstream == back for each in among) / len(among)

    # Weights of 0.1 to 0.2, and of 0.4 to 0.5, against 1; with a step of it to spare.
    assert 0.05 < share(0.0, 0.2) < 0.24
    assert 0.25 < share(0.4, 0.5) < 0.38
    assert 0.48 < share(1.1, 1.5) < 0.52


async def test_too_many_for_the_queue(reactor: Any, pooled: Pooled) -> None:
    """Whom the queue has no room for is turned away at once; the others are served."""
    _, addresses = await running(reactor, pooled, 2)
    pooled.start(*(UpstreamServer(address, max_sessions=1) for address in addresses), queue_size=2)
    load = pooled.load(*wrk(pooled.port, *SHORT))
    line = "exhausted: every server is full, and so is the queue (2 waiting)"
    assert await pooled.heard.line("exhausted") == line
    await more(pooled, 2000)
    seen = await interrupted(load)
    served = [each for each in pooled.since(0) if each.upstream]
    refused = [each for each in pooled.since(0) if each.reason.how is Ending.UNREACHABLE]
    assert len(served) >= seen.requests > 100
    assert {each.error for each in refused} == {line.removeprefix("exhausted: ")}
    assert pooled.heard.lines.count(line) == 1


@pytest.fixture
def cable() -> Iterator[Cable]:
    """A cable to a network namespace, of which nothing is left."""
    made = Cable.laid()
    yield made
    made.remove()


FAR_CONFIGURATION = """
[[listeners]]
listen = "tcp:8080:interface={near}"

[pools.web]
upstreams = ["{far}:{port}", "{near}:{port}"]
connect_timeout = 0.5
on_down = "reset"
[pools.web.health_check]
kind = "http"
path = "/healthz"
interval = 0.2
timeout = 0.5
rise = 1
fall = 2
"""


@contextmanager
def wrk_inside(namespace: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """wrk in a network namespace; gone at the end."""
    arguments = inside(namespace, wrk(8080, *options, host=NEAR))
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def told_to_stop(process: subprocess.Popen[str]) -> Seen:
    """What wrk says when it is told to stop."""
    process.send_signal(signal.SIGINT)
    return Seen.of(process.communicate(timeout=10)[0])


@pytest.mark.peers("ip")
def test_blackholed_network(pooled: Pooled, cable: Cable, tmp_path: Path) -> None:
    """A server whose network swallows everything: its sessions are reset, others unharmed."""
    servers = pooled.servers
    port = 8000
    path = tmp_path / "evproxy.toml"
    path.write_text(FAR_CONFIGURATION.format(near=NEAR, far=FAR, port=port))
    twistd = [TWISTD, "-n", "--pidfile=", JSON_LOG]
    for namespace, host in ((cable.near, NEAR), (cable.far, FAR)):
        server = nginx(servers, port, [host])
        server.arguments = inside(namespace, server.arguments)
        server.start()
    command = inside(cable.near, twistd)
    with Running("evproxy", f"--config={path}", command=command) as proxy:
        proxy.port()
        with wrk_inside(cable.near) as keeping, wrk_inside(cable.near, *SHORT) as coming:
            proxy.sessions(500)
            checked(proxy)
            cable.cut()
            proxy.says(rf"^web/{FAR}:{port} down: timed out after 0\.5 s.* \(2 of 2\)$")
            proxy.sessions(len(proxy.sessions()) + 500)
            cable.mend()
            proxy.says(rf"^web/{FAR}:{port} up: check passed \(1 of 1\)$")
            proxy.sessions(len(proxy.sessions()) + 500)
            kept, fresh = told_to_stop(keeping), told_to_stop(coming)
    # Half of the sessions that were kept open were on it; of those that came, one a client.
    pooled.errors(kept.errors, allowed=CLIENTS)
    assert kept.errors >= 1
    pooled.errors(fresh.errors, allowed=CLIENTS)
    assert fresh.requests > 1000
