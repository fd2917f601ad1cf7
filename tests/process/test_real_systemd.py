"""The example unit under systemd itself."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from tests.support.blocking_clients import Upstream, rest
from tests.support.configured import ConfigFile
from tests.support.peers import END
from tests.support.real_servers import free_port
from tests.support.real_systemd import RealSystemd
from tests.support.twistd import ROOT, TWISTD, wait_until

pytestmark = [pytest.mark.peers("systemctl"), pytest.mark.deadline(120)]

NAME = "evproxy.service"

OF_THE_TEST = {
    # A test has no network to wait for.
    "After=network-online.target": "DefaultDependencies=no",
    "Wants=network-online.target": "",
    # The Python of the test may be in a home directory.
    "DynamicUser=yes": "",
    "ProtectHome=yes": "",
    # The files of the test are there.
    "PrivateTmp=yes": "",
    # Not every machine lets a namespace make devices.
    "PrivateDevices=yes": "",
    "WatchdogSec=10": "WatchdogSec=2\nRestartSec=100ms",
    "Type=notify-reload": "Type=notify\nExecReload=/bin/kill -HUP $MAINPID",
}
"""What the test changes in the unit; systemd before 253 has no notify-reload."""


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def unit(tmp_path: Path, configured: ConfigFile, port: int) -> None:
    """The example unit, with the paths of the test."""
    configured.write(listen=f"tcp:{port}:interface=127.0.0.1")
    text = (ROOT / "examples" / NAME).read_text()
    text = text.replace("\n[Install]", f"StandardOutput=file:{tmp_path}/log\n\n[Install]")
    for line, other in OF_THE_TEST.items():
        assert f"\n{line}\n" in text, line
        text = text.replace(f"\n{line}\n", f"\n{other}\n")
    text = text.replace("/opt/evproxy/bin/twistd", str(TWISTD))
    text = text.replace("/etc/evproxy/evproxy.toml", str(configured.path))
    (tmp_path / NAME).write_text(text)


def test_the_unit(
    systemd: RealSystemd, configured: ConfigFile, port: int, upstream: Upstream
) -> None:
    """It starts, reloads, crashes, hangs, restarts and stops, and no client is refused."""
    # `start` returns once evproxy has said READY.
    systemd.do("start", NAME)
    assert systemd.shows(NAME, "ActiveState") == "active"
    assert systemd.shows(NAME, "NFileDescriptorStore") == "1"
    client, server = upstream.connect(port)
    wait_until(lambda: systemd.shows(NAME, "StatusText") == "1 session")

    configured.write(pool="three")
    systemd.do("reload", NAME)
    wait_until(lambda: "not reloaded: " in systemd.shows(NAME, "StatusText"))
    configured.write(pool="two")
    systemd.do("reload", NAME)
    wait_until(lambda: systemd.shows(NAME, "StatusText") == "1 session")

    for restarts, number in enumerate((signal.SIGKILL, signal.SIGSTOP), 1):
        before = systemd.shows(NAME, "MainPID")
        systemd.do("kill", f"--signal={number.name}", NAME)
        with socket.create_connection(("127.0.0.1", port), 20) as waiting:
            waiting.sendall(b"?")
            with upstream.accept() as accepted:
                assert accepted.recv(1) == b"?"
        assert systemd.shows(NAME, "NRestarts") == str(restarts)
        assert systemd.shows(NAME, "MainPID") != before
    client.close()
    server.close()

    client, server = upstream.connect(port)
    systemd.do("--no-block", "restart", NAME)
    wait_until(lambda: systemd.shows(NAME, "StatusText") == "stopping, 1 session left")
    client.sendall(b"bye")
    client.shutdown(socket.SHUT_WR)
    assert rest(server) == (b"bye", END)
    server.close()
    assert rest(client) == (b"", END)
    assert upstream.session(port)

    systemd.do("stop", NAME)
    assert systemd.shows(NAME, "ActiveState") == "inactive"
    assert systemd.shows(NAME, "Result") == "success"
