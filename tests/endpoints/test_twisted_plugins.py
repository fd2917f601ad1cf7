"""Twisted's own programs, with ``evproxy:`` in their options and without a line of code."""

from __future__ import annotations

import ftplib
import http.client
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.conch.ssh.transport import SSHClientTransport
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from tests.support.twistd import Running

LISTEN = r"evproxy:tcp\:0\:interface=127.0.0.1"


@pytest.mark.parametrize("faults", ["", ":faults=slicer,average_size=500"])
def test_web(faults: str, tmp_path: Path) -> None:
    """``twistd web`` serves files, logs the client of a proxy, and refuses others."""
    data = bytes(range(256)) * 4000
    (tmp_path / "file.bin").write_bytes(data)
    log = tmp_path / "access.log"
    listen = f"{LISTEN}:accept_proxy_protocol_from=127.0.0.1:deny=192.0.2.66{faults}"
    options = ("web", f"--listen={listen}", f"--path={tmp_path}", f"--logfile={log}")
    with Running(*options) as program:
        port = program.port()
        for client in ("192.0.2.7", "192.0.2.66"):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.connect()
            header = f"PROXY TCP4 {client} 192.0.2.1 5555 80\r\n"
            connection.sock.sendall(header.encode())
            if client == "192.0.2.66":
                with pytest.raises((ConnectionError, http.client.BadStatusLine)):
                    _get(connection)
            else:
                assert _get(connection) == data
                assert _get(connection) == data
            connection.close()
        lines = log.read_text().splitlines()
        assert [line.split()[0] for line in lines] == ['"192.0.2.7"'] * 2


def _get(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/file.bin")
    return connection.getresponse().read()


FTP = """
from twisted.application.service import Application
from twisted.application.strports import service
from twisted.cred.checkers import AllowAnonymousAccess
from twisted.cred.portal import Portal
from twisted.protocols.ftp import FTPFactory, FTPRealm

application = Application("ftp")
factory = FTPFactory(Portal(FTPRealm({root!r}), [AllowAnonymousAccess()]))
service({listen!r}, factory).setServiceParent(application)
"""


def test_ftp(tmp_path: Path) -> None:
    """
    Twisted's FTP server has its control connections behind ``evproxy:``.

    ``twistd ftp`` itself takes only the number of a port, so the server is in a file.
    """
    (tmp_path / "file.bin").write_bytes(b"content")
    program_file = tmp_path / "ftp.tac"
    listen = f"{LISTEN}:max_sessions=1"
    program_file.write_text(FTP.format(root=str(tmp_path), listen=listen))
    options = ("-y", str(program_file))
    with Running(*options) as program:
        port = program.port()
        client = ftplib.FTP(timeout=20)
        client.connect("127.0.0.1", port)
        client.login()
        received = io.BytesIO()
        client.retrbinary("RETR file.bin", received.write)
        assert received.getvalue() == b"content"
        second = ftplib.FTP(timeout=20)
        with pytest.raises((ConnectionError, EOFError)):
            second.connect("127.0.0.1", port)
        second.close()
        client.quit()


class KeyExchange(SSHClientTransport):
    """An SSH client that is done once the connection is encrypted."""

    def __init__(self) -> None:
        self.done: Deferred[bytes] = Deferred()

    def verifyHostKey(self, hostKey: bytes, fingerprint: bytes) -> Deferred[int]:
        return succeed(1)

    def connectionSecure(self) -> None:
        self.done.callback(self.otherVersionString)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        super().connectionLost(reason)
        if not self.done.called:
            self.done.errback(reason)


@pytest.mark.parametrize("faults", ["", ":faults=slicer,average_size=100"])
async def test_conch(faults: str, tmp_path: Path) -> None:
    """``twistd conch`` and an SSH client shake hands, both with ``evproxy:`` in between."""
    ckeygen = Path(sys.executable).with_name("ckeygen")
    key = tmp_path / "ssh_host_ed25519_key"
    keygen: list[Any] = [ckeygen, "-t", "ed25519", "-f", key, "--no-passphrase", "-q"]
    subprocess.run(keygen, check=True, capture_output=True, timeout=30)
    with Running("conch", f"--port={LISTEN}{faults}", f"--data={tmp_path}") as program:
        port = program.port()
        endpoint = clientFromString(reactor, rf"evproxy:pool=127.0.0.1\:{port}{faults}")
        protocol = await endpoint.connect(ClientFactory.forProtocol(KeyExchange))
        assert b"Twisted" in await protocol.done
        protocol.loseConnection()
