"""The process of ``twistd evproxy``: its start, its signals, its log and its end."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import formatEvent

from evproxy.records import SessionRecord
from tests.support.blocking_clients import Upstream, page, rest
from tests.support.peers import END, RESET
from tests.support.real_servers import free_port
from tests.support.twistd import JSON_LOG, PATIENCE, TWIST, TWISTD, Outcome, Running, run

pytestmark = pytest.mark.oldest_twisted

LISTEN = "--listen=tcp:0:interface=127.0.0.1"
STOPPING = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]


def assert_listens_no_more(proxy: Running, port: int) -> None:
    """Wait until the port is closed, which happens right after the log message."""
    proxy.says(rf"Port {port} Closed")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), PATIENCE).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            """The client was in the accept queue when the port closed."""
    raise TimeoutError(f"port {port} is still listened on")


def test_the_demo_shows_a_page() -> None:
    """``--demo`` alone shows a page that came through the proxy, and says so."""
    with Running("evproxy", "--demo", LISTEN) as proxy:
        answer = page(proxy.port())
        [event] = proxy.sessions(1)
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"This page came through evproxy" in answer
    assert event["bytes_to_downstream"] == len(answer)


def test_twist_starts_it_too() -> None:
    """``twist evproxy`` works like ``twistd evproxy``, and ends with status 0 too."""
    with Running("evproxy", "--demo", LISTEN, command=[TWIST, "--log-format=json"]) as proxy:
        assert b"This page came through evproxy" in page(proxy.port())
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0


@pytest.mark.parametrize("number", STOPPING[:2])
def test_sessions_have_until_the_deadline(upstream: Upstream, number: signal.Signals) -> None:
    """When the proxy stops, the remaining session is reset at the deadline, and not before."""
    with Running("evproxy", LISTEN, upstream.option, "--drain-timeout=0.5") as proxy:
        client, server = upstream.connect(proxy.port())
        started = time.monotonic()
        proxy.signal(number)
        assert rest(client) == (b"", RESET)
        assert time.monotonic() - started >= 0.5
        assert rest(server) == (b"", RESET)
        assert proxy.ended() == 0
        [event] = proxy.sessions()
    assert (event["reason_by"], event["reason_how"]) == ("proxy", "drain")


@pytest.mark.parametrize("number", STOPPING)
def test_the_end_of_the_last_session_is_the_end(upstream: Upstream, number: signal.Signals) -> None:
    """A stopping proxy ends with its last session, long before the deadline."""
    with Running("evproxy", LISTEN, upstream.option, "--drain-timeout=3600") as proxy:
        port = proxy.port()
        client, server = upstream.connect(port)
        proxy.signal(number)
        assert_listens_no_more(proxy, port)
        client.sendall(b"bye")
        client.shutdown(socket.SHUT_WR)
        assert rest(server) == (b"bye", END)
        server.sendall(b"good bye")
        server.close()
        assert rest(client) == (b"good bye", END)
        assert proxy.ended() == 0
        assert [event["reason_how"] for event in proxy.sessions()] == ["finished"]


def test_sigquit_has_no_deadline(upstream: Upstream) -> None:
    """After SIGQUIT, a session goes on past the drain timeout."""
    with Running("evproxy", LISTEN, upstream.option, "--drain-timeout=0") as proxy:
        port = proxy.port()
        client, server = upstream.connect(port)
        proxy.signal(signal.SIGQUIT)
        assert_listens_no_more(proxy, port)
        for _ in range(3):
            client.sendall(b"?")
            assert server.recv(1) == b"?"
        client.close()
        server.close()
        assert proxy.ended() == 0


@pytest.mark.parametrize("second", STOPPING)
def test_a_second_signal_ends_at_once(upstream: Upstream, second: signal.Signals) -> None:
    """Whatever the first signal was, the second one resets every session."""
    with Running("evproxy", LISTEN, upstream.option, "--drain-timeout=3600") as proxy:
        port = proxy.port()
        sessions = [upstream.connect(port) for _ in range(2)]
        proxy.signal(signal.SIGQUIT if second is signal.SIGTERM else signal.SIGTERM)
        assert_listens_no_more(proxy, port)
        assert proxy.runs()
        proxy.signal(second)
        for peer in sum(sessions, ()):
            assert rest(peer) == (b"", RESET)
        assert proxy.ended() == 0
        assert [event["reason_how"] for event in proxy.sessions()] == ["drain", "drain"]


@pytest.mark.parametrize("relay", ["socket", "stream"])
def test_each_session_is_one_event(upstream: Upstream, relay: str) -> None:
    """The event of a session's end has every field of its record; there is no other event."""
    options = [LISTEN, upstream.option, f"--relay={relay}", "--access-log=twisted:"]
    with Running("evproxy", *options) as proxy:
        port = proxy.port()
        proxy.says(rf"^evproxy \S+ listens on 127\.0\.0\.1:{port}, for at most \d+ sessions$")
        for _ in range(3):
            client, server = upstream.connect(port)
            name = "{}:{}".format(*client.getsockname())
            before = len(proxy.events)
            client.close()
            assert rest(server) == (b"", END)
            server.close()
            event = proxy.sessions(len(proxy.sessions()) + 1)[-1]
            assert proxy.events[before:] == [event]
            assert set(SessionRecord._fields) <= set(event)
            assert 0 < event["connect_time"] < event["first_byte_time"] < event["duration"]
            assert event["duration"] < PATIENCE
            expected: dict[str, Any] = {
                "peer": name,
                "upstream": upstream.option.partition("=")[2],
                "listener": "tcp:0:interface=127.0.0.1",
                "relay": relay,
                "attempts": 1,
                "bytes_to_upstream": 1,
                "bytes_to_downstream": 1,
                "reason_by": "downstream",
                "reason_how": "finished",
                "reason_phase": "relaying",
                "error": "",
            }
            assert {key: event[key] for key in expected} == expected
            assert f", {relay} relay" in (formatEvent(event) or "")
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0
        assert len(proxy.sessions()) == 3


def test_a_server_that_cannot_be_connected_is_told(upstream: Upstream) -> None:
    """The event of a failed connect names the server and the error."""
    dead = f"127.0.0.1:{free_port()}"
    with Running("evproxy", LISTEN, f"--upstream={dead}", "--access-log=off") as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port()), PATIENCE) as client:
            assert rest(client) == (b"", RESET)
        event = proxy.event(lambda event: event.get("upstream") == dead)
    assert "refused" in event["error"]
    assert event["log_namespace"] == "evproxy"


def test_no_event_for_sessions_where_none_is_wanted(upstream: Upstream) -> None:
    """With ``--access-log=off`` a session's end is not logged."""
    with Running("evproxy", LISTEN, upstream.option, "--access-log=off") as proxy:
        client, server = upstream.connect(proxy.port())
        client.close()
        assert rest(server) == (b"", END)
        server.close()
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0
        assert proxy.sessions() == []


STARTED = """
import gc, sys
at_first = gc.get_freeze_count()
from evproxy.cli.tap import Options, makeService

options = Options()
options.parseOptions(sys.argv[1:])
service = makeService(options)
assert gc.get_freeze_count() == at_first
service.startService()
print(gc.isenabled(), gc.get_threshold() == (50_000, 20, 100), gc.get_freeze_count() > 10_000)
"""


def test_it_looks_for_garbage_rarely() -> None:
    """The process freezes its objects at the start, and sets its own thresholds."""
    outcome = run("-c", STARTED, "--demo", LISTEN, program=sys.executable)
    assert outcome == Outcome(0, "True True True\n", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its user")
def test_it_binds_before_it_gives_up_its_privileges(upstream: Upstream, tmp_path: Path) -> None:
    """With ``--uid``, evproxy binds a privileged port as root, and serves as another user."""
    nobody = pwd.getpwnam("nobody")
    port = next(number for number in range(1023, 600, -1) if is_free(number))
    privileges = [f"--uid={nobody.pw_uid}", f"--gid={nobody.pw_gid}", f"--rundir={tmp_path}"]
    command = [TWISTD, "-n", "--pidfile=", JSON_LOG, *privileges]
    listen = f"--listen=tcp:{port}:interface=127.0.0.1"
    with Running("evproxy", listen, upstream.option, command=command) as proxy:
        assert proxy.port() == port
        upstream.connect(port)
        status = Path(f"/proc/{proxy.pid}/status").read_text()
        for name, number in ("Uid", nobody.pw_uid), ("Gid", nobody.pw_gid):
            assert "\t".join([f"\n{name}:", *[str(number)] * 4]) in status


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its root directory")
def test_it_reads_no_files_once_it_starts(upstream: Upstream, tmp_path: Path) -> None:
    """With ``--chroot``, evproxy serves in a directory without Python and evproxy."""
    # Twisted keeps a descriptor of /dev/null in reserve.
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "null").touch()
    command = [
        TWISTD,
        "-n",
        "--pidfile=",
        JSON_LOG,
        f"--chroot={tmp_path}",
    ]
    with Running("evproxy", LISTEN, upstream.option, command=command) as proxy:
        client, server = upstream.connect(proxy.port())
        client.close()
        assert rest(server) == (b"", END)
        server.close()
        proxy.sessions(1)
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0


def is_free(port: int) -> bool:
    """Whether nobody listens at `port` of 127.0.0.1."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
