"""PROXY headers between evproxy and real programs: HAProxy, nginx and curl."""

from __future__ import annotations

from pathlib import Path

import pytest

from evproxy.model import Ending
from tests.support.peers import connect
from tests.support.programs import said
from tests.support.proxies import Proxied
from tests.support.real_servers import RealServers, free_port

pytestmark = pytest.mark.parametrize("proxied", ["socket", "stream"], indirect=True)

HAPROXY = """
defaults
    mode {mode}
    timeout connect 10s
    timeout client 60s
    timeout server 60s
listen tested
    bind 127.0.0.1:{port} {bind}
    {body}
"""

NGINX = """
daemon off;
master_process off;
pid nginx.pid;
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
events {{ }}
http {{
    access_log off;
    server {{
        listen 127.0.0.1:{http} proxy_protocol;
        location / {{ return 200 "$proxy_protocol_addr:$proxy_protocol_port\\n"; }}
    }}
}}
stream {{
    server {{
        listen 127.0.0.1:{stream};
        proxy_pass 127.0.0.1:{to};
        proxy_protocol on;
    }}
}}
"""


async def haproxy(
    proxied: Proxied, real_servers: RealServers, *, mode: str, bind: str, body: str
) -> int:
    """Start a HAProxy; the port that it listens on."""
    port, directory = free_port(), real_servers.directory()
    file = directory / "haproxy.cfg"
    file.write_text(HAPROXY.format(mode=mode, port=port, bind=bind, body=body))
    server = real_servers.add(["haproxy", "-db", "-f", str(file)], directory)
    await server.started(proxied.reactor, port)
    return port


async def nginx(proxied: Proxied, real_servers: RealServers, to: int) -> tuple[int, int]:
    """Start an nginx; its port that takes headers, and the one that sends them to `to`."""
    http, stream, directory = free_port(), free_port(), real_servers.directory()
    file: Path = directory / "nginx.conf"
    file.write_text(NGINX.format(http=http, stream=stream, to=to))
    server = real_servers.add(
        ["nginx", "-p", str(directory), "-c", str(file), "-e", "stderr"], directory
    )
    await server.started(proxied.reactor, stream)
    return http, stream


async def visitor(proxied: Proxied) -> tuple[str, int]:
    """The address that the record of the only session that moved bytes has for its client."""
    await proxied.observed.until(
        lambda: any(each.bytes_to_downstream for each in proxied.observed.records)
    )
    [record] = [each for each in proxied.observed.records if each.bytes_to_downstream]
    assert record.reason.how is Ending.FINISHED
    host, _, port = record.peer.rpartition(":")
    return host, int(port)


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl"])
async def test_haproxy_sends(proxied: Proxied, real_servers: RealServers, version: str) -> None:
    """The record has the address of HAProxy's client."""
    await proxied.start(accept_proxy_protocol_from=["127.0.0.1"])
    host, evproxy = proxied.address
    port = await haproxy(
        proxied, real_servers, mode="tcp", bind="", body=f"server one {host}:{evproxy} {version}"
    )
    await visited(proxied, port)


async def test_nginx_sends(proxied: Proxied, real_servers: RealServers) -> None:
    """The record has the address of nginx's client."""
    await proxied.start(accept_proxy_protocol_from=["127.0.0.1"])
    _, stream = await nginx(proxied, real_servers, proxied.address[1])
    await visited(proxied, stream)


async def visited(proxied: Proxied, port: int) -> None:
    """A client of the program at `port` gets an answer, and evproxy knows its address."""
    client = proxied.closes(connect(proxied.reactor, ("127.0.0.1", port)))
    await client.send(b"question")
    # The first connection only saw that the program listens.
    while not (question := await (server := await proxied.upstream.accept()).some()):
        server.close()
    assert question == b"question"
    await server.send(b"answer")
    assert await client.receive(6) == b"answer"
    client.end()
    await server.rest()
    server.end()
    await client.rest()
    assert await visitor(proxied) == client.socket.getsockname()


async def test_curl_sends(proxied: Proxied, real_servers: RealServers) -> None:
    """curl's header in, evproxy's header out, and nginx names the client."""
    http, _ = await nginx(proxied, real_servers, 1)
    await proxied.start(
        upstreams=[f"127.0.0.1:{http}"],
        accept_proxy_protocol_from=["127.0.0.0/8"],
        send_proxy_protocol=2,
    )
    host, port = proxied.address
    answer = await said(
        proxied.reactor, "curl", "-sS", "--haproxy-protocol", f"http://{host}:{port}/"
    )
    assert answer.strip().startswith("127.0.0.1:")
    named = answer.strip().rpartition(":")[2]
    assert (await visitor(proxied))[1] == int(named)


@pytest.mark.parametrize("version", [1, 2])
async def test_nginx_receives(proxied: Proxied, real_servers: RealServers, version: int) -> None:
    """nginx names the client of evproxy."""
    http, _ = await nginx(proxied, real_servers, 1)
    await proxied.start(upstreams=[f"127.0.0.1:{http}"], send_proxy_protocol=version)
    host, port = proxied.address
    answer = await said(
        proxied.reactor, "curl", "-sS", "-w", "%{local_port}", f"http://{host}:{port}/"
    )
    named, local = answer.split("\n")
    assert named == f"127.0.0.1:{local}"


@pytest.mark.parametrize("version", [1, 2])
async def test_haproxy_receives(proxied: Proxied, real_servers: RealServers, version: int) -> None:
    """HAProxy names the client of evproxy, and its unique id with version 2."""
    echo = (
        "http-request return status 200 content-type text/plain "
        'lf-string "%[src]:%[src_port] %[fc_pp_unique_id]"'
    )
    to = await haproxy(proxied, real_servers, mode="http", bind="accept-proxy", body=echo)
    await proxied.start(upstreams=[f"127.0.0.1:{to}"], send_proxy_protocol=version)
    host, port = proxied.address
    answer = await said(
        proxied.reactor, "curl", "-sS", "-w", "\n%{local_port}", f"http://{host}:{port}/"
    )
    named, local = answer.split("\n")
    client, unique_id = named.split(" ")
    assert client == f"127.0.0.1:{local}"
    assert bool(unique_id) == (version == 2)
