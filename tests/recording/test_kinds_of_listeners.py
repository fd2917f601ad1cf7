"""What a recording has, for each kind of listener and of client."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, frozen

from evproxy import ProxyService, Settings
from evproxy.settings import ListenerTLS
from evproxy.wire.postgres import SSL_REQUEST
from tests.recording.test_listeners import settings_with
from tests.recording.test_recordings import read, shown
from tests.recording.test_tshark import WARNING, fields, tshark
from tests.session.test_postgres import GSS_REQUEST, start_up
from tests.support.certificates import Certificates
from tests.support.logged import logged_lines
from tests.support.peers import END
from tests.support.secured import SecuredPeer
from tests.support.services import Ground, until
from tests.wire.test_recording_pcapng import blocks

pytestmark = pytest.mark.deadline(20)

PROXY = b"PROXY TCP4 10.1.2.3 10.3.2.1 5555 443\r\n"
UNIX = bytes([192, 0, 2, 1])
"""The address in packets of a client that has none."""


@frozen
class Kind:
    """
    A kind of listener.

    `listen` and `settings`: of the listener; ``DIR`` and ``PEM`` are replaced.  `declined`: a
    request that the client sends first, and that evproxy declines.  `before`: what the client sends
    then, and `answered` what evproxy answers.  `kept` is in the recording: what was sent before, or
    inside of TLS.  `secured`: whether the client speaks TLS.  `wire`: whether a recording as pcapng
    has TLS itself.
    """

    listen: str = "tcp:0:interface=127.0.0.1"
    settings: Mapping[str, Any] = {}
    declined: bytes = b""
    before: bytes = b""
    answered: bytes = b""
    kept: bytes = b""
    secured: bool = False
    wire: bool = False


KINDS = {
    "tcp": Kind(),
    "unix": Kind("unix:DIR/socket"),
    "proxy": Kind(settings={"accept_proxy_protocol_from": ("127.0.0.0/8",)}, before=PROXY),
    "preread": Kind(
        settings={"preread": "postgres"}, before=start_up("alice"), kept=start_up("alice")
    ),
    "tls": Kind(settings={"tls": "PEM"}, secured=True, wire=True),
    "tls-unix": Kind("unix:DIR/socket", {"tls": "PEM"}, secured=True, wire=True),
    "tls-proxy": Kind(
        settings={"tls": "PEM", "accept_proxy_protocol_from": ("127.0.0.0/8",)},
        before=PROXY,
        secured=True,
        wire=True,
    ),
    "tls-preread": Kind(
        settings={"tls": "PEM", "preread": "postgres"},
        before=SSL_REQUEST,
        answered=b"S",
        kept=start_up("alice"),
        secured=True,
        wire=True,
    ),
    "ssl": Kind("ssl:0:interface=127.0.0.1:privateKey=PEM:certKey=PEM", secured=True),
}

KINDS["tls-preread-gss"] = evolve(KINDS["tls-preread"], declined=GSS_REQUEST)

every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


async def recorded(
    ground: Ground, kind: Kind, directory: Path, pem: Certificates, format: str
) -> Path:
    """The recording of one session: the client asks ``question`` and gets ``answer``."""
    found = directory / "recordings"
    found.mkdir()
    listen = kind.listen.replace("DIR", str(directory)).replace("PEM", pem.pem)
    settings = dict(kind.settings)
    if "tls" in settings:
        settings["tls"] = ListenerTLS(certificates=(pem.pem,))
    made = settings_with(ground, record=str(found), record_format=format, **settings)
    listeners = (evolve(made.listeners[0], listen=listen),)
    service = ProxyService.from_settings(ground.reactor, evolve(made, listeners=listeners))
    ground.services.append(service)
    service.startService()
    plain = ground.client(service)
    if kind.declined:
        await plain.send(kind.declined)
        assert await plain.receive(1) == b"N"
    await plain.send(kind.before)
    assert await plain.receive(len(kind.answered)) == kind.answered
    client: Any = plain
    if kind.secured:
        client = SecuredPeer(plain, pem.client)
        await client.handshake()
    inside = kind.kept if kind.secured else b""
    await client.send(inside + b"question")
    server = await ground.upstream.accept()
    expected = kind.kept + b"question"
    assert await server.receive(len(expected)) == expected
    await server.send(b"answer")
    assert await client.receive(6) == b"answer"
    server.end()
    await client.rest()
    if kind.secured:
        await client.close()
    else:
        client.end()
    assert (await server.rest())[1] == END
    await until(ground.reactor, lambda: service.session_count == 0)
    await service.drain(0)
    (file,) = found.iterdir()
    return file


@every_kind
async def test_json(ground: Ground, certificates: Certificates, tmp_path: Path, kind: Kind) -> None:
    """It has the bytes inside of TLS, in their order, and the client behind a proxy."""
    session, events = read(await recorded(ground, kind, tmp_path, certificates, "json"))
    expected = kind.kept + b"question"
    assert shown(events)[:3] == [
        ("data", "downstream", expected.decode("latin-1")),
        ("data", "upstream", "answer"),
        ("end", "upstream", ""),
    ]
    assert session.peer.startswith("10.1.2.3:") == bool(kind.before == PROXY)


@every_kind
async def test_pcapng(
    ground: Ground, certificates: Certificates, tmp_path: Path, kind: Kind
) -> None:
    """It has TLS and its keys where evproxy ends TLS, and otherwise the bytes themselves."""
    file = await recorded(ground, kind, tmp_path, certificates, "pcapng")
    content = file.read_bytes()
    assert (b"question" in content) != kind.wire
    assert (0x0A in [each for each, _ in blocks(content)]) == kind.wire
    assert PROXY not in content
    assert (UNIX in content) == kind.listen.startswith("unix:")
    assert (bytes([10, 1, 2, 3, 127, 0, 0, 1]) in content) == (kind.before == PROXY)


@pytest.mark.peers("tshark")
@pytest.mark.parametrize("name", ["preread", "tls-preread", "tls-preread-gss"])
async def test_tshark_on_the_port_of_postgresql(
    ground: Ground, certificates: Certificates, tmp_path: Path, name: str
) -> None:
    """It shows who logs in, also inside of TLS, which it expects only behind an SSLRequest."""
    file = await recorded(ground, KINDS[name], tmp_path, certificates, "pcapng")
    port = fields(file, "tcp.dstport")[0][0]
    as_postgresql = ("-d", f"tcp.port=={port},pgsql")
    shows = ("-T", "fields", "-e", "pgsql.parameter_name", "-e", "pgsql.parameter_value")
    (line,) = tshark(file, *as_postgresql, "-Y", "pgsql.parameter_name", *shows)
    assert line == "user\talice"
    wrong = f"_ws.expert.severity >= {WARNING} || tcp.analysis.flags"
    assert tshark(file, *as_postgresql, "-Y", wrong) == []


@pytest.mark.parametrize("format", ["json", "pcapng"])
async def test_a_full_disk(ground: Ground, full_disk: Path, format: str) -> None:
    """The recording stops at a whole event, the log says why, and the session goes on."""
    settings = settings_with(ground, record=str(full_disk), record_format=format)
    service = ProxyService.from_settings(ground.reactor, settings)
    ground.services.append(service)
    service.startService()
    with logged_lines() as lines:
        client, server = await ground.session(service)
        piece = bytes(range(256)) * 256
        for _ in range(6):
            await client.send(piece)
            assert await server.receive(len(piece)) == piece
        await until(ground.reactor, lambda: any("has stopped" in line for line in lines))
        await client.send(b"more")
        assert await server.receive(4) == b"more"
    (line,) = [line for line in lines if "has stopped" in line]
    assert line.endswith("No space left on device")
    (file,) = full_disk.iterdir()
    if format == "json":
        assert read(file)[1]
    else:
        *_, before, (_, last) = list(blocks(file.read_bytes()))
        assert b"the recording stops" in last
        # It has the numbers of the server's acknowledgement before it (behind an IP header of 20
        # bytes): nothing that is not in the file counts.
        assert last[44:52] == before[1][44:52]


async def test_a_directory_that_goes(ground: Ground, tmp_path: Path) -> None:
    """Sessions go on without a recording, and the log says why."""
    found = tmp_path / "recordings"
    found.mkdir()
    settings = settings_with(ground, record=str(found))
    service = ProxyService.from_settings(ground.reactor, settings)
    ground.services.append(service)
    service.startService()
    found.rmdir()
    with logged_lines() as lines:
        await ground.session(service)
        await until(ground.reactor, lambda: any("has stopped" in line for line in lines))
    assert lines[-1].endswith("has stopped: No such file or directory")


async def test_two_services_share_a_directory(ground: Ground, tmp_path: Path) -> None:
    """The files have different names, and all of them count for the bound."""
    settings = settings_with(ground, record=str(tmp_path), record_max_files=3)
    services = [ProxyService.from_settings(ground.reactor, settings) for _ in range(2)]
    ground.services += services
    for service in services:
        service.startService()
        await ground.session(service)
        await service.drain(0)
    assert len({file.name.partition("-")[0] for file in tmp_path.iterdir()}) == 2


async def test_a_reload_changes_what_new_sessions_record(
    ground: Ground, certificates: Certificates, tmp_path: Path
) -> None:
    """From clear bytes to TLS and its keys and back; a session keeps what it began with."""
    tls = ListenerTLS(certificates=(certificates.pem,))
    off = settings_with(ground, tls=tls)

    def recording(format: str) -> Settings:
        (listener,) = off.listeners
        on = evolve(listener, record=str(tmp_path), record_format=format)
        return evolve(off, listeners=(on,))

    service = ProxyService.from_settings(ground.reactor, off)
    ground.services.append(service)
    service.startService()
    clients = []
    for number, settings in enumerate((off, recording("pcapng"), recording("json"), off)):
        await service.reload(settings)
        client = SecuredPeer(ground.client(service), certificates.client)
        await client.handshake()
        server = await ground.upstream.accept()
        clients.append((number, client, server))
    for number, client, server in clients:
        await client.send(b"secret%d" % number)
        assert await server.receive(7) == b"secret%d" % number
    await service.drain(0)
    first, second = sorted(tmp_path.iterdir(), key=lambda file: file.suffix)
    assert (first.suffix, second.suffix) == (".jsonl", ".pcapng")
    assert shown(read(first)[1])[0] == ("data", "downstream", "secret2")
    assert b"CLIENT_TRAFFIC_SECRET_0" in second.read_bytes()
