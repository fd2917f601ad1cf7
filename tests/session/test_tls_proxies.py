"""TLS and PROXY headers between evproxy and other proxies: HAProxy, nginx, stunnel and hitch."""

from __future__ import annotations

from contextlib import suppress
from os import geteuid
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from evproxy.model import Ending
from evproxy.records import SessionRecord
from evproxy.settings import PoolTLS
from tests.session.test_proxy_header_peers import haproxy
from tests.support.peers import END, Peer, connect
from tests.support.programs import said
from tests.support.proxies import Proxied
from tests.support.real_servers import RealServers, free_port
from tests.support.tls import TLSPeer, context_of

pytestmark = pytest.mark.deadline(60)

plain = pytest.mark.parametrize("proxied", ["socket"], indirect=True)
from_clients = pytest.mark.parametrize("proxied", ["tls-client-1.3"], indirect=True)

NGINX = """
daemon off;
master_process off;
pid nginx.pid;
events {{ }}
http {{
    access_log off;
    server {{
        listen 127.0.0.1:{port} ssl proxy_protocol;
        ssl_certificate {pem};
        ssl_certificate_key {pem};
        location / {{ return 200 "$proxy_protocol_addr:$proxy_protocol_port\\n"; }}
    }}
}}
"""

STUNNEL = """
foreground = yes
pid =
syslog = no
[tested]
accept = 127.0.0.1:{port}
connect = 127.0.0.1:{to}
{more}
"""

HITCH = """
frontend = "[127.0.0.1]:{port}"
backend = "[127.0.0.1]:{to}"
pem-file = "{pem}"
workers = 1
daemon = off
{more}
"""
# hitch refuses to work as root.
if geteuid() == 0:
    HITCH += 'user = "nobody"\n'


@pytest.fixture
def pem(certificates: Any) -> str:
    """The certificate for 127.0.0.1, with its key."""
    return str(certificates.pem)


@pytest.fixture
def authority(certificates: Any) -> str:
    """The authority that has issued it."""
    return f"{certificates.authorities}/ca.pem"


async def started(
    proxied: Proxied, real_servers: RealServers, text: str, *command: str, **more: Any
) -> int:
    """Start a proxy with `text` as its configuration, whose path ends `command`; its port."""
    port, directory = free_port(), real_servers.directory()
    file: Path = directory / "conf"
    file.write_text(text.format(port=port, **more))
    server = real_servers.add([*command, str(file)], directory)
    await server.started(proxied.reactor, port)
    return port


async def named(proxied: Proxied) -> tuple[str, str]:
    """What an HTTP server behind evproxy calls its client, and the client itself."""
    host, port = proxied.address
    command = ("curl", "-sS", "-w", "\n%{local_port}", f"http://{host}:{port}/")
    answer = await said(proxied.reactor, *command)
    name, _, local = answer.rpartition("\n")
    return name.strip(), f"127.0.0.1:{local}"


async def relayed(proxied: Proxied) -> SessionRecord:
    """The record of the session that moved bytes; the other is that of the visit at the start."""
    await proxied.observed.until(
        lambda: any(each.bytes_to_upstream for each in proxied.observed.records)
    )
    [record] = [each for each in proxied.observed.records if each.bytes_to_upstream]
    return record


@plain
@pytest.mark.peers("haproxy", "curl")
@pytest.mark.parametrize("version", [1, 2])
async def test_haproxy_receives_before_tls(
    proxied: Proxied, real_servers: RealServers, pem: str, authority: str, version: int
) -> None:
    """HAProxy expects the header before TLS."""
    echo = (
        "http-request return status 200 content-type text/plain "
        'lf-string "%[src]:%[src_port] %[ssl_fc]"'
    )
    bind = f"accept-proxy ssl crt {pem}"
    to = await haproxy(proxied, real_servers, mode="http", bind=bind, body=echo)
    tls = PoolTLS(ca=authority)
    await proxied.start(upstreams=[f"127.0.0.1:{to}"], send_proxy_protocol=version, tls=tls)
    name, client = await named(proxied)
    assert name == f"{client} 1"


@plain
@pytest.mark.peers("nginx", "curl")
@pytest.mark.parametrize("version", [1, 2])
async def test_nginx_receives_before_tls(
    proxied: Proxied, real_servers: RealServers, pem: str, authority: str, version: int
) -> None:
    """So does nginx."""
    to = await started(
        proxied, real_servers, NGINX, "nginx", "-p", ".", "-e", "stderr", "-c", pem=pem
    )
    tls = PoolTLS(ca=authority)
    await proxied.start(upstreams=[f"127.0.0.1:{to}"], send_proxy_protocol=version, tls=tls)
    name, client = await named(proxied)
    assert name == client


@plain
@pytest.mark.peers("hitch")
async def test_hitch_passes_the_header_on(
    proxied: Proxied, real_servers: RealServers, pem: str, authority: str
) -> None:
    """hitch reads the header before TLS, and sends it to its own server."""
    more = "proxy-proxy = on"
    to = await started(
        proxied,
        real_servers,
        HITCH,
        "hitch",
        "--config",
        pem=pem,
        to=proxied.upstream.port,
        more=more,
    )
    tls = PoolTLS(ca=authority)
    await proxied.start(upstreams=[f"127.0.0.1:{to}"], send_proxy_protocol=1, tls=tls)
    client = proxied.client()
    await client.send(b"question")
    server = await proxied.upstream.accept()
    port = client.socket.getsockname()[1]
    head = f"PROXY TCP4 127.0.0.1 127.0.0.1 {port} {proxied.address[1]}\r\n".encode()
    assert await server.receive(len(head) + 8) == head + b"question"


async def question_through(proxied: Proxied, certificates: Any, port: int) -> Peer:
    """A TLS client of another proxy at `port`, which evproxy is the server of."""
    peer = connect(proxied.reactor, ("127.0.0.1", port))
    context = context_of(certificates, "1.3", serves=False)
    client = TLSPeer(proxied.reactor, peer.socket, context, serves=False)
    proxied.closes(client)
    await client.send(b"question")
    server = await proxied.upstream.accept()
    assert await server.receive(8) == b"question"
    await server.send(b"answer")
    assert await client.receive(6) == b"answer"
    client.end()
    server.end()
    return client


@plain
@pytest.mark.peers("hitch")
@pytest.mark.parametrize("key", ["write-proxy-v1", "write-proxy-v2"])
async def test_hitch_sends(
    proxied: Proxied, real_servers: RealServers, certificates: Any, pem: str, key: str
) -> None:
    """The record has the address of hitch's client."""
    await proxied.start(accept_proxy_protocol_from=["127.0.0.1"])
    port = await started(
        proxied,
        real_servers,
        HITCH,
        "hitch",
        "--config",
        pem=pem,
        to=proxied.address[1],
        more=f"{key} = on",
    )
    client = await question_through(proxied, certificates, port)
    record = await relayed(proxied)
    assert record.peer == f"127.0.0.1:{client.socket.getsockname()[1]}"


@plain
@pytest.mark.peers("stunnel")
async def test_stunnel_sends(
    proxied: Proxied, real_servers: RealServers, certificates: Any, pem: str
) -> None:
    """stunnel ends TLS, and its ``protocol = proxy`` names its client."""
    await proxied.start(accept_proxy_protocol_from=["127.0.0.1"])
    more = f"cert = {pem}\nprotocol = proxy"
    port = await started(
        proxied, real_servers, STUNNEL, "stunnel", to=proxied.address[1], more=more
    )
    client = await question_through(proxied, certificates, port)
    record = await relayed(proxied)
    assert record.peer == f"127.0.0.1:{client.socket.getsockname()[1]}"


@from_clients
@pytest.mark.peers("stunnel")
async def test_stunnel_as_a_client(
    proxied: Proxied, real_servers: RealServers, authority: str
) -> None:
    """stunnel verifies evproxy, and its plain client is served; both ends pass."""
    await proxied.start()
    more = f"client = yes\nCAfile = {authority}\nverifyChain = yes\ncheckIP = 127.0.0.1"
    port = await started(
        proxied, real_servers, STUNNEL, "stunnel", to=proxied.address[1], more=more
    )
    client = proxied.closes(connect(proxied.reactor, ("127.0.0.1", port)))
    await client.send(b"question")
    received = b""
    while not received:
        # A server that gets nothing is that of the visit that found stunnel listening.
        server = await proxied.upstream.accept()
        with suppress(ConnectionResetError):
            received = await server.some()
    assert received == b"question"
    server.close()
    assert await client.rest() == (b"", END)
    client.close()
    record = await relayed(proxied)
    assert record.reason.how in (Ending.FINISHED, Ending.RESET)


@plain
@pytest.mark.peers("stunnel")
async def test_stunnel_as_a_server(
    proxied: Proxied, real_servers: RealServers, pem: str, authority: str
) -> None:
    """evproxy verifies stunnel, whose own server gets what is inside."""
    more = f"cert = {pem}"
    to = await started(
        proxied, real_servers, STUNNEL, "stunnel", to=proxied.upstream.port, more=more
    )
    await proxied.start(upstreams=[f"127.0.0.1:{to}"], tls=PoolTLS(ca=authority))
    client = proxied.client()
    asking: Deferred[Any] = Deferred.fromCoroutine(client.send(b"question"))
    server = await proxied.upstream.accept()
    await asking
    assert await server.receive(8) == b"question"
    await server.send(b"answer")
    server.close()
    assert await client.receive(6) == b"answer"
