"""The access log of ``twistd evproxy`` and of a service: its destinations and its completeness."""

from __future__ import annotations

import json
import os
import pwd
import resource
import signal
import socket
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from evproxy import AccessLogSettings
from evproxy.errors import CannotOpenLog
from tests.support.blocking_clients import Upstream
from tests.support.peers import turn
from tests.support.services import Ground
from tests.support.twistd import (
    PATIENCE,
    ROOT,
    TWISTD,
    Running,
    environment,
    session_event,
    wait_until,
)

pytestmark = [pytest.mark.oldest_twisted, pytest.mark.deadline(60)]

LISTEN = "--listen=tcp:0:interface=127.0.0.1"


def peers_in(*logs: Path) -> list[str]:
    """Return the peers in the lines of log files, in order."""
    return [
        session_event(line)["peer"] for log in logs for line in log.read_text().split("\n")[:-1]
    ]


def test_a_file_has_a_line_for_each_session(upstream: Upstream, tmp_path: Path) -> None:
    """evproxy appends a line with all fields for each session."""
    log = tmp_path / "access.log"
    log.write_text("before\n")
    with Running("evproxy", LISTEN, upstream.option, f"--access-log={log}") as proxy:
        peers = [upstream.session(proxy.port()) for _ in range(3)]
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0
        assert proxy.sessions() == []
    first, *lines = log.read_text().split("\n")[:-1]
    assert first == "before"
    events = list(map(session_event, lines))
    assert [each["peer"] for each in events] == peers
    for event in events:
        assert 0 < event["connect_time"] < event["first_byte_time"] < event["duration"] < PATIENCE
        assert event["bytes_to_downstream"] == 1


def test_the_file_of_a_configuration_is_beside_it(upstream: Upstream, tmp_path: Path) -> None:
    """A relative path is relative to the configuration file, which also sets the format."""
    path = tmp_path / "evproxy.toml"
    path.write_text(
        '[[listeners]]\nname = "web"\nlisten = "tcp:0:interface=127.0.0.1"\n'
        f'[pools.web]\nupstreams = ["{upstream.option.partition("=")[2]}"]\n'
        '[access_log]\npath = "access.log"\nformat = "json"\n'
    )
    with Running("evproxy", f"--config={path}") as proxy:
        peer = upstream.session(proxy.port())
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0
    [line] = (tmp_path / "access.log").read_text().splitlines()
    found = json.loads(line)
    assert (found["listener"], found["peer"], found["reason_how"]) == ("web", peer, "finished")


@pytest.mark.parametrize("seconds", ["0", "3600"])
def test_it_is_complete_when_everything_is_reset(
    upstream: Upstream, tmp_path: Path, seconds: str
) -> None:
    """The log has a line for each of thousands of sessions that are reset at once at the end."""
    count = 1500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 4 * count + 200
    if hard < needed:
        pytest.skip("too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    log = tmp_path / "access.log"
    options = [LISTEN, upstream.option, f"--access-log={log}", f"--drain-timeout={seconds}"]
    with Running("evproxy", *options) as proxy:
        port = proxy.port()
        clients = [upstream.connect(port)[0] for _ in range(count)]
        peers = ["{}:{}".format(*client.getsockname()) for client in clients]
        proxy.signal(signal.SIGTERM)
        if seconds != "0":
            proxy.says("Closed")
            proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0
    assert sorted(peers_in(log)) == sorted(peers)
    hows = Counter(session_event(line)["reason_how"] for line in log.read_text().splitlines())
    assert hows == {"drain": count}


def test_a_renamed_file_is_left_on_sigusr1(upstream: Upstream, tmp_path: Path) -> None:
    """After a rename and SIGUSR1, no line is lost, and no line is in both files."""
    log = tmp_path / "access.log"
    peers, old = [], []
    with Running("evproxy", LISTEN, upstream.option, f"--access-log={log}") as proxy:
        port = proxy.port()
        for turn in range(4):
            peers += [upstream.session(port) for _ in range(20)]
            old.append(tmp_path / f"access.log.{turn}")
            log.rename(old[-1])
            peers.append(upstream.session(port))
            proxy.signal(signal.SIGUSR1)
            peers.append(upstream.session(port))
            wait_until(log.exists)
        peers.append(upstream.session(port))
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0
    assert peers_in(*old, log) == peers
    assert len(peers_in(log)) >= 1


def test_sigusr1_is_ignored_where_it_was(upstream: Upstream, tmp_path: Path) -> None:
    """If SIGUSR1 was ignored when the process started, it stays ignored."""
    log = tmp_path / "access.log"
    command = ["sh", "-c", 'trap "" USR1; exec "$0" "$@"']
    command += [TWISTD, "-n", "--pidfile=", "--logger=tests.support.twistd.json_log"]
    options = [LISTEN, upstream.option, f"--access-log={log}"]
    with Running("evproxy", *options, command=command) as proxy:
        port = proxy.port()
        proxy.says("listens on")
        log.rename(tmp_path / "old")
        proxy.signal(signal.SIGUSR1)
        upstream.session(port)
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0
    assert not log.exists()


def test_sigusr1_without_a_file_is_of_no_concern(upstream: Upstream) -> None:
    """Without a log file, SIGUSR1 changes nothing."""
    for where in ("auto", "off"):
        with Running("evproxy", LISTEN, upstream.option, f"--access-log={where}") as proxy:
            port = proxy.port()
            upstream.session(port)
            proxy.says("listens on")
            proxy.signal(signal.SIGUSR1)
            upstream.session(port)
            proxy.signal(signal.SIGTERM)
            assert proxy.ended() == 0
            assert len(proxy.sessions()) == (2 if where == "auto" else 0)


def test_a_reader_of_standard_output_that_is_stuck_stops_nothing(upstream: Upstream) -> None:
    """If nobody reads standard output, sessions still go on, and the process still ends."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writing, True)
    command = [TWISTD, "-n", "--pidfile=", "--logfile=/dev/null", "evproxy"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [*command, f"--listen=tcp:{port}:interface=127.0.0.1", upstream.option],
        stdout=writing,
        env=environment(),
        cwd=ROOT,
    )
    try:
        os.close(writing)

        def listens() -> bool:
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", port)) == 0

        wait_until(listens)
        upstream.accept().close()
        for _ in range(200):
            upstream.session(port)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reading)


class Daemon:
    """A ``twistd`` in the background, with its log in a directory."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.log = directory / "twistd.log"
        self._pid = directory / "twistd.pid"
        command = [TWISTD, f"--pidfile={self._pid}", f"--logfile={self.log}", "evproxy"]
        self.started = subprocess.run(
            [*command, *options],
            cwd=directory,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def port(self) -> int:
        """The port that the proxy listens on."""
        wait_until(lambda: self.log.exists() and "listens on" in self.log.read_text())
        return int(self.log.read_text().partition("ProxyFactory starting on ")[2].split("\n")[0])

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        os.kill(int(self._pid.read_text()), number)

    def stop(self) -> None:
        """End the process, if it runs."""
        if self._pid.exists():
            self.signal(signal.SIGTERM)
            wait_until(lambda: not self._pid.exists())


def test_in_the_background_twistd_has_the_log(upstream: Upstream, tmp_path: Path) -> None:
    """In the background there is no standard output, so the default is ``twisted:``."""
    daemon = Daemon(tmp_path, LISTEN, upstream.option, "--drain-timeout=0")
    try:
        peer = upstream.session(daemon.port())
        wait_until(lambda: f" {peer} -> " in daemon.log.read_text())
        # twistd rotates its own log, as it does without evproxy.
        daemon.signal(signal.SIGUSR1)
        wait_until((tmp_path / "twistd.log.1").exists)
    finally:
        daemon.stop()


def test_in_the_background_there_is_no_standard_output(upstream: Upstream, tmp_path: Path) -> None:
    """In the background, ``--access-log=-`` is an error at the start."""
    daemon = Daemon(tmp_path, LISTEN, upstream.option, "--access-log=-")
    daemon.stop()
    assert (daemon.started.returncode, daemon.started.stderr) == (
        1,
        "evproxy: --access-log: without -n, twistd has no standard output; "
        'expected a path, "syslog:", "twisted:" or "off"\n',
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its user")
def test_the_file_is_opened_before_privileges_are_given_up(
    upstream: Upstream, tmp_path: Path
) -> None:
    """A file that only root may create is opened at the start, and kept if a reopen fails."""
    nobody = pwd.getpwnam("nobody")
    logs = tmp_path / "logs"
    logs.mkdir(mode=0o700)
    log = logs / "access.log"
    privileges = [f"--uid={nobody.pw_uid}", f"--gid={nobody.pw_gid}", f"--rundir={tmp_path}"]
    command = [TWISTD, "-n", "--pidfile=", "--logger=tests.support.twistd.json_log", *privileges]
    options = [LISTEN, upstream.option, f"--access-log={log}"]
    with Running("evproxy", *options, command=command) as proxy:
        port = proxy.port()
        proxy.says("listens on")
        peers = [upstream.session(port)]
        log.rename(logs / "old")
        proxy.signal(signal.SIGUSR1)
        proxy.says("cannot open the access log .* again: Permission denied")
        peers.append(upstream.session(port))
        proxy.signal(signal.SIGTERM)
        assert proxy.ended() == 0
    assert peers_in(logs / "old") == peers


# As a service.


async def test_a_service_logs_events_by_default(ground: Ground) -> None:
    """By default, a service logs events of ``twisted.logger``; it can log to a file as well."""
    events: list[LogEvent] = []
    hears: Any = events.append
    service = ground.service()
    service.startService()
    globalLogPublisher.addObserver(hears)
    try:
        client, server = await ground.session(service)
        client.close()
        server.close()
        await service.stopService()
    finally:
        globalLogPublisher.removeObserver(hears)
    [event] = [each for each in events if each["log_namespace"] == "evproxy.session"]
    assert 0 < event["connect_time"] < event["first_byte_time"] <= event["duration"]
    assert ", first byte in 0." in (formatEvent(event) or "")


async def test_a_service_writes_its_file_when_it_has_stopped(
    ground: Ground, tmp_path: Path
) -> None:
    """The Deferred of `stopService` fires when every line is written; then a restart works."""
    log = tmp_path / "access.log"
    service = ground.service(access_log=AccessLogSettings(path=str(log)), drain_timeout=0)
    for count in (1, 2):
        service.startService()
        _, server = await ground.session(service)
        await service.stopService()
        server.close()
        assert len(log.read_text().splitlines()) == count


async def test_a_service_that_cannot_open_its_file_binds_nothing(
    ground: Ground, tmp_path: Path, reactor: Any
) -> None:
    """The error names the file; the service can start once the cause is fixed."""
    directory = tmp_path / "missing"
    path = directory / "access.log"
    service = ground.service(access_log=AccessLogSettings(path=str(path)))
    with pytest.raises(CannotOpenLog, match=f"{path}: No such file"):
        service.startService()
    await turn(reactor)
    assert service.addresses == []
    directory.mkdir()
    service.startService()
    await service.stopService()
    assert path.read_text() == ""
