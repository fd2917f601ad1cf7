"""How `TLSChannel` uses its socket; what it does in sessions is in `tests.session`."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from OpenSSL import SSL

from evproxy.settings import ListenerTLS
from evproxy.sockets import tls_channel
from evproxy.sockets.openssl_calls import RECORD
from evproxy.sockets.tls_channel import TLSChannel, TLSFault
from evproxy.sockets.tls_server import ServerContexts, facts_of
from tests.sockets.test_tls_server import Files, client_context
from tests.support.certificates import Authority

DATA_SEGMENTS_SENT = 156
"""Where the kernel's `tcp_info` has `tcpi_data_segs_out` (linux/tcp.h)."""

FAMILIES = [socket.AF_INET, socket.AF_UNIX]


def pair(family: socket.AddressFamily) -> tuple[socket.socket, socket.socket]:
    """Two sockets that are connected with each other."""
    if family == socket.AF_UNIX:
        return socket.socketpair(family)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        one = socket.create_connection(listening.getsockname())
        # As on every socket of evproxy.
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return one, listening.accept()[0]


def shaken(
    server: socket.socket, client: socket.socket, contexts: ServerContexts
) -> tuple[TLSChannel, TLSChannel]:
    """The two channels after a handshake."""
    server.setblocking(False)
    client.setblocking(False)
    asking = SSL.Connection(client_context(), client)
    asking.set_connect_state()
    channels = TLSChannel(server, contexts.connection(server)), TLSChannel(client, asking)
    waiting = list(reversed(channels))
    while waiting:
        channel = waiting.pop(0)
        try:
            channel.handshake()
        except BlockingIOError:
            waiting.append(channel)
    return channels


def data_segments(sock: socket.socket) -> int:
    """How many TCP segments with data `sock` has sent."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, DATA_SEGMENTS_SENT + 4)
    [count] = struct.unpack_from("I", info, DATA_SEGMENTS_SENT)
    assert isinstance(count, int)
    return count


@pytest.fixture
def contexts(tmp_path: Path) -> ServerContexts:
    files = Files(tmp_path, Authority.new())
    return ServerContexts(ListenerTLS(certificates=(files.save("a.pem", "a.example"),)))


@pytest.mark.parametrize("family", FAMILIES, ids=["TCP", "UNIX"])
def test_several_records(contexts: ServerContexts, family: socket.AddressFamily) -> None:
    """They leave at once, in fewer segments."""
    server, client = pair(family)
    with server, client:
        sender, receiver = shaken(server, client, contexts)
        before = data_segments(server) if family == socket.AF_INET else 0
        data = bytes(3 * RECORD)
        assert sender.send(data) == len(data)
        got, buffer = bytearray(), bytearray(4 * RECORD)
        while len(got) < len(data):
            got += buffer[: receiver.recv_into(buffer)]
        assert got == data
        if family == socket.AF_INET:
            assert data_segments(server) - before < 3
            assert not server.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK)


@pytest.fixture(params=[False, True], ids=["direct", "hidden"])
def hidden(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether pyOpenSSL hides its handles, so that it makes all calls."""
    if request.param:
        monkeypatch.setattr(tls_channel, "handle_of", lambda _: None)
    return bool(request.param)


def test_what_comes_behind_full_records(contexts: ServerContexts, hidden: bool) -> None:
    """Records are read together; a broken one is reported next, and only here."""
    (server, client), (other, another) = pair(socket.AF_UNIX), pair(socket.AF_UNIX)
    with server, client, other, another:
        receiver, sender = shaken(server, client, contexts)
        elsewhere, _ = shaken(other, another, contexts)
        whole = bytes(2 * RECORD)
        sent = 0
        while sent < len(whole):
            sent += sender.send(whole[sent:])
        client.send(b"no TLS at all")
        buffer = bytearray(4 * RECORD)
        count = receiver.recv_into(buffer)
        assert count == (RECORD if hidden else 2 * RECORD)
        while count < len(whole):
            assert receiver.pending()
            count += receiver.recv_into(buffer)
        assert receiver.pending()
        with pytest.raises(BlockingIOError):
            elsewhere.recv_into(buffer)
        with pytest.raises(TLSFault):
            receiver.recv_into(buffer)
        with pytest.raises(BlockingIOError):
            elsewhere.recv_into(buffer)


def test_a_handshake_that_fails(contexts: ServerContexts, hidden: bool) -> None:
    """The reason is what OpenSSL says."""
    server, client = pair(socket.AF_UNIX)
    with server, client:
        server.setblocking(False)
        channel = TLSChannel(server, contexts.connection(server))
        with pytest.raises(BlockingIOError):
            channel.handshake()
        assert not channel.waits_to_write
        # An alert (RFC 8446, 6) in place of a ClientHello.
        client.send(bytes((21, 3, 3, 0, 2, 2, 46)))
        with pytest.raises(TLSFault, match="unexpected message"):
            channel.handshake()


def test_a_full_socket(contexts: ServerContexts, hidden: bool) -> None:
    """Records that it has no room for are for later; those that it took leave at once."""
    server, client = pair(socket.AF_INET)
    with server, client:
        sender, _ = shaken(server, client, contexts)
        data = bytes(4 * RECORD)
        with suppress(BlockingIOError):
            while sender.send(data) == (RECORD if hidden else len(data)):
                """The peer reads nothing."""
        assert not server.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK)


def test_equal_facts_are_one_object(contexts: ServerContexts) -> None:
    """Thousands of sessions whose handshakes agreed on the same thing keep it once."""
    found = []
    for _ in range(2):
        server, client = pair(socket.AF_UNIX)
        with server, client:
            channel, _ = shaken(server, client, contexts)
            found.append(facts_of(channel.connection, False))
    assert found[0] is found[1]
    assert found[0].version == "TLSv1.3"
