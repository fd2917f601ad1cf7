"""Which settings of the admin interface are refused, and with which line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import CannotListenError

from evproxy import AdminSettings, ProxyService, SettingsError
from evproxy.admin.access import token_of
from evproxy.config.addresses import is_remote_listener
from tests.support.services import ANY_PORT, Ground, listens


@pytest.mark.parametrize(
    ("description", "remote"),
    [
        ("tcp:8081:interface=127.0.0.1", False),
        ("tcp:port=8081:interface=127.9.9.9", False),
        (r"tcp:8081:interface=\:\:1", False),
        ("tcp:8081:127.0.0.1", False),
        ("unix:/run/admin.sock", False),
        ("unix:address=/run/admin.sock:mode=660", False),
        ("ssl:8081:interface=127.0.0.1:privateKey=a.pem", False),
        ("tcp:8081", True),
        ("tcp6:8081", True),
        ("tcp:8081:interface=0.0.0.0", True),
        (r"tcp:8081:interface=\:\:", True),
        ("tcp:8081:interface=10.0.0.1", True),
        ("ssl:8081:privateKey=a.pem", True),
        ("systemd:domain=INET:name=admin.socket", True),
        ("haproxy:tcp:8081:interface=127.0.0.1", True),
    ],
)
def test_who_can_connect(description: str, remote: bool) -> None:
    """Where only this machine can connect, no token is required; in doubt, one is."""
    assert is_remote_listener(description) is remote
    if remote:
        with pytest.raises(SettingsError, match=r"^admin\.token_file: required, because"):
            token_of(AdminSettings(description))
    else:
        assert token_of(AdminSettings(description)) == b""


@pytest.mark.parametrize("text", ["0123456789abcdef", "  0123456789abcdef\n", "x" * 1024])
def test_a_token(tmp_path: Path, text: str) -> None:
    """White space around the token does not count."""
    path = tmp_path / "token"
    path.write_text(text)
    settings = AdminSettings("tcp:8081", token_file=str(path))
    assert token_of(settings) == text.strip().encode()


@pytest.mark.parametrize("text", ["", "0123456789abcde", "0123456789 abcdef", "ü" * 16, "x" * 1025])
def test_no_token(tmp_path: Path, text: str) -> None:
    """A token that is short, or that a header cannot carry, is refused."""
    path = tmp_path / "token"
    path.write_text(text)
    with pytest.raises(SettingsError, match="has no token: expected 16 to 1024 printable"):
        token_of(AdminSettings("tcp:8081", token_file=str(path)))


def test_a_token_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a FIFO and an endless file are refused, none of them waited for."""
    os.mkfifo(tmp_path / "fifo")
    for path, why in (
        (str(tmp_path / "nosuch"), "No such file or directory"),
        (str(tmp_path / "fifo"), "it is not a regular file"),
        ("/dev/zero", "it is not a regular file"),
    ):
        with pytest.raises(SettingsError) as raised:
            token_of(AdminSettings("tcp:8081", token_file=path))
        assert str(raised.value) == f"admin.token_file: {path!r} cannot be read: {why}"


@pytest.mark.parametrize(
    ("admin", "line"),
    [
        (
            "tcp:8081",
            "admin.token_file: required, because not only this machine may be able to connect to "
            "'tcp:8081'",
        ),
        (
            AdminSettings("", token_file="x"),
            "admin.token_file: has no effect without admin.listen",
        ),
        (
            AdminSettings(ANY_PORT, unix_mode="600"),
            "unix_mode: it is for UNIX listeners only, and this is not one",
        ),
    ],
)
def test_a_service_refuses_it(reactor: Any, admin: AdminSettings | str, line: str) -> None:
    """The service says what is wrong when it is made."""
    with pytest.raises(SettingsError) as raised:
        ProxyService(reactor, [ANY_PORT], ["127.0.0.1:1"], admin=admin)
    assert str(raised.value) == line


async def test_a_port_in_use(ground: Ground) -> None:
    """If the admin interface cannot listen, no listener of the service does."""
    first = ground.service(admin=ANY_PORT)
    first.startService()
    assert first.admin is not None
    address: Any = first.admin.address
    second = ground.service(admin=f"tcp:{address.port}:interface=127.0.0.1")
    with pytest.raises(CannotListenError):
        second.startService()
    assert second.addresses == []
    assert listens(address)


def test_no_http_server_without_it() -> None:
    """A proxy without an admin interface loads no HTTP server."""
    program = (
        "import sys, evproxy\n"
        "from twisted.internet import reactor\n"
        "evproxy.ProxyService(reactor, ['tcp:0'], ['127.0.0.1:1'])\n"
        "sys.exit('twisted.web.server' in sys.modules or 'evproxy.admin.api' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
