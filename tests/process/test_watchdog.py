"""The watchdog in processes of its own: what it reports under each reactor, and of evproxy."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import pytest
from twisted.logger import LogEvent

from tests.support.blocking_clients import Upstream
from tests.support.containers import isolated
from tests.support.reactors import REACTORS
from tests.support.twistd import JSON_LOG, PATIENCE, TWISTD, Running, run, wait_until

pytestmark = pytest.mark.oldest_twisted

LISTEN = "--listen=tcp:0:interface=127.0.0.1"
HELD_PATIENCE = 120.0
"""Seconds for a program that repeats each hold until the watchdog has reported it."""

MOST_SESSIONS = 60
"""So many sessions are tried until the watchdog has seen one: a busy machine may starve it."""

HELD = "from tests.support.held_loop import held_by\napplication = held_by({})\n"


def reports(process: Running) -> list[LogEvent]:
    return [each for each in process.events if each["log_namespace"] == "evproxy.watchdog"]


def callbacks(process: Running) -> list[LogEvent]:
    """The reports of single calls: a busy machine may add others, for example of starvation."""
    return [each for each in reports(process) if each["trouble"] == "callback"]


def held(
    directory: Path, ways: str, reactor: str = "epoll", before: tuple[str, ...] = ()
) -> Running:
    """The program that holds its loop in `ways`."""
    program = directory / "held.tac"
    program.write_text(HELD.format(ways.split()))
    return Running(
        f"--python={program}",
        command=[*before, TWISTD, "-no", "--pidfile=", f"--reactor={reactor}", JSON_LOG],
        patience=HELD_PATIENCE,
    )


@pytest.mark.peers("unshare", "mount", "ip")
@pytest.mark.parametrize("name", REACTORS)
def test_each_way_to_hold_a_loop(name: str, tmp_path: Path) -> None:
    """
    Each way is reported as what it is, with the place, under each reactor.

    One way is to look up a name while the name server does not answer.
    """
    servers = tmp_path / "resolv.conf"
    servers.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    script = f'ip link set lo up && mount --bind {servers} /etc/resolv.conf && exec "$@"'
    before = tuple(isolated(["sh", "-c", script, "sh"]))
    ways = "sleep slow_pattern python look_up builtin short_calls collection"
    with held(tmp_path, ways, name, before) as process:
        assert process.ended() == 0
    found = reports(process)
    by_trouble = {
        name: [e for e in found if e["trouble"] == name] for name in ("callback", "calls")
    }
    module = re.escape("tests.support.held_loop")
    for function, doing in (
        ("sleep", "waits"),
        ("slow_pattern", "locks"),
        ("python", "runs"),
        ("look_up", "waits"),
    ):
        begun = next(
            each
            for each in by_trouble["callback"]
            if re.match(rf"{module}\.{function} \(.*held_loop\.py:\d+\)$", each["place"])
        )
        assert begun["doing"] == doing
        assert begun["called"] == f"tests.support.held_loop.{function}"
        assert begun["seconds"] >= 0.049
        # The line that holds it is in the stack.
        assert f", in {function}" in begun["stack"]
        [over] = [
            each
            for each in by_trouble["callback"]
            if each["place"] == begun["place"] and each["over"] and not begun["over"]
        ]
        assert over["seconds"] >= begun["seconds"]
        if function == "look_up":
            assert "getaddrinfo" in begun["stack"]
            assert over["seconds"] >= 0.7
    assert any(each["place"] == "time.sleep" for each in by_trouble["callback"])
    assert any("tests.support.held_loop.short" in each["detail"] for each in by_trouble["calls"])
    [collection] = [each for each in found if each["trouble"] == "collection"]
    assert "generation 2" in collection["text"]


def test_another_thread(tmp_path: Path) -> None:
    """A thread that keeps the interpreter lock is named, and no call of the loop."""
    with held(tmp_path, "own_thread") as process:
        assert process.ended() == 0
    [found] = [each for each in reports(process) if each["trouble"] == "lock"]
    assert "culprit in " in found["detail"]


ROUTE = """
import re, time

def slow(client):
    time.sleep(0.3)
    return "default"

def endless(client):
    re.match("(a+)+$", "a" * 60 + "b")
"""


def processor_time(pid: int) -> float:
    """The seconds for which the main thread of a process has run."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def configuration(directory: Path, upstream: Upstream, route: str, more: str = "") -> Path:
    """A configuration whose router is a function of `ROUTE`."""
    (directory / "slow_route.py").write_text(ROUTE)
    path = directory / "evproxy.toml"
    path.write_text(
        f"""{more}
[[listeners]]
listen = "tcp:0:interface=127.0.0.1"
route = "slow_route:{route}"
pool = "default"

[pools.default]
upstreams = ["{upstream.option.partition("=")[2]}"]
"""
    )
    return path


def test_a_slow_route(upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of the user's that holds evproxy's loop is reported once, with its place."""
    path = configuration(tmp_path, upstream, "slow")
    monkeypatch.chdir(tmp_path)
    with Running("evproxy", f"--config={path}", cwd=tmp_path) as proxy:
        port = proxy.port()
        for number in range(1, MOST_SESSIONS):
            upstream.session(port)
            proxy.sessions(number)
            if callbacks(proxy):
                break
        upstream.session(port)
        proxy.sessions(number + 1)
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0
    [begun, over] = callbacks(proxy)
    assert begun["place"].startswith("slow_route.slow (")
    assert begun["called"].startswith("evproxy.")
    assert "time.sleep(0.3)" in begun["stack"]
    assert over["over"]
    # What the machine has taken away meanwhile is subtracted.
    assert over["seconds"] >= begun["seconds"] >= 0.09


@pytest.mark.parametrize("off", ["file", "option"])
def test_no_watchdog(upstream: Upstream, tmp_path: Path, off: str) -> None:
    """A threshold of 0 turns the watchdog off: there is no thread but that of the access log."""
    path = configuration(tmp_path, upstream, "slow", "watchdog.threshold = 0")
    given = [f"--config={path}"] if off == "file" else [LISTEN, upstream.option]
    if off == "option":
        given.append("--watchdog-threshold=0")
    with Running("evproxy", *given, cwd=tmp_path) as proxy:
        upstream.session(proxy.port())
        proxy.sessions(1)
        assert len(os.listdir(f"/proc/{proxy.pid}/task")) == 2
    assert reports(proxy) == []


def test_a_threshold_that_makes_no_sense() -> None:
    """A threshold below a hundredth of a second is refused in one line."""
    refused = run("evproxy", "--demo", "--watchdog-threshold=0.001")
    assert refused.status == 1
    assert refused.err == (
        "evproxy: --watchdog-threshold: expected 0, or a number of seconds from 0.01 to 60, "
        'got "0.001"\n'
    )


@pytest.mark.parametrize("name", ["epoll", "poll"])
def test_the_waits_of_the_engine(name: str, upstream: Upstream) -> None:
    """An engine that waits itself, here for longer than the threshold, does not hold the loop."""
    arguments = ["evproxy", LISTEN, upstream.option, "--watchdog-threshold=0.04"]
    with Running(f"--reactor={name}", *arguments) as proxy:
        client, server = upstream.connect(proxy.port())
        client.settimeout(0.06)
        for _ in range(25):
            client.sendall(b"?")
            assert server.recv(1) == b"?"
            with pytest.raises(TimeoutError):
                client.recv(1)
        proxy.signal(signal.SIGTERM)
        client.close()
        server.close()
        assert proxy.ended() == 0
    assert [each for each in reports(proxy) if each["trouble"] == "callback"] == []


def test_an_abort_shows_what_holds_the_loop(upstream: Upstream, tmp_path: Path) -> None:
    """If C code never gives up the interpreter lock, SIGABRT prints the stack of the loop."""
    path = configuration(tmp_path, upstream, "endless")
    with Running("evproxy", f"--config={path}", cwd=tmp_path) as proxy:
        port = proxy.port()
        before = processor_time(proxy.pid)
        with socket.create_connection(("127.0.0.1", port), PATIENCE):
            # Once it runs for as long as this, it runs the pattern.
            wait_until(lambda: processor_time(proxy.pid) > before + 0.3)
            proxy.signal(signal.SIGABRT)
            assert proxy.ended() == -signal.SIGABRT
        err = proxy.errors()
    assert re.search(r'File ".*slow_route\.py", line 9 in endless', err)
