"""Real programs talk to each other through the proxy, and work as without it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from random import Random

import pytest

from evproxy.model import Ending
from tests.support.programs import said
from tests.support.proxies import Proxied
from tests.support.real_servers import RealServer, RealServers, free_port
from tests.support.server_kinds import postgresql, redis

pytestmark = pytest.mark.parametrize("proxied", ["socket", "stream"], indirect=True)

SIZE = 200 * 1024 * 1024


async def proxied_to(proxied: Proxied, server: RealServer, port: int) -> tuple[str, str]:
    """Start `server` and a proxy to it; return the host and the port of the proxy."""
    await server.started(proxied.reactor, port)
    await proxied.start(upstreams=[f"127.0.0.1:{port}"])
    host, number = proxied.address
    return host, str(number)


async def all_finished(proxied: Proxied, sessions: int) -> None:
    """Wait for the end of so many sessions, and check that each ended in order."""
    await proxied.observed.ended(sessions)
    assert {each.reason.how for each in proxied.observed.records} == {Ending.FINISHED}
    assert {each.relay for each in proxied.observed.records} == {proxied.relay}


def big_file(path: Path) -> Path:
    """A file of `SIZE` bytes."""
    path.write_bytes(Random(1).randbytes(1024 * 1024 - 1) * (SIZE // (1024 * 1024)))
    with path.open("ab") as file:
        file.truncate(SIZE)
    return path


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


NGINX = """
daemon off;
master_process off;
pid nginx.pid;
events {{ }}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path body;
    server {{
        listen 127.0.0.1:{port};
        root files;
        location / {{ dav_methods PUT; }}
    }}
}}
"""


async def web(proxied: Proxied, real_servers: RealServers) -> tuple[Path, str]:
    """Start a web server behind the proxy; return the directory of its files, and their URL."""
    port, directory = free_port(), real_servers.directory()
    files = directory / "files"
    files.mkdir()
    (directory / "nginx.conf").write_text(NGINX.format(port=port))
    command = ["nginx", "-e", "stderr", "-p", str(directory), "-c", "nginx.conf"]
    host, number = await proxied_to(proxied, real_servers.add(command, directory), port)
    return files, f"http://{host}:{number}/"


@pytest.mark.peers("curl", "nginx")
async def test_curl_keeps_its_connection(proxied: Proxied, real_servers: RealServers) -> None:
    """Two requests on one connection are one session."""
    files, url = await web(proxied, real_servers)
    (files / "one").write_text("first")
    (files / "two").write_text("second")
    connects = await said(
        proxied.reactor, "curl", "-sS", "-w", " %{num_connects} ", url + "one", url + "two"
    )
    assert connects == "first 1 second 0 "
    await all_finished(proxied, 1)


@pytest.mark.peers("curl", "nginx")
async def test_curl_downloads(proxied: Proxied, real_servers: RealServers) -> None:
    """A big download arrives whole."""
    files, url = await web(proxied, real_servers)
    source, copy = big_file(files / "big"), files.parent / "copy"
    await said(proxied.reactor, "curl", "-sS", "--fail", "-o", copy, url + "big")
    assert checksum(copy) == checksum(source)
    await all_finished(proxied, 1)
    assert proxied.observed.records[0].bytes_to_downstream > SIZE


@pytest.mark.peers("curl", "nginx")
async def test_curl_uploads(proxied: Proxied, real_servers: RealServers) -> None:
    """A big upload arrives whole."""
    files, url = await web(proxied, real_servers)
    source = big_file(files.parent / "source")
    await said(proxied.reactor, "curl", "-sS", "--fail", "-T", source, url + "big")
    assert checksum(files / "big") == checksum(source)
    await all_finished(proxied, 1)
    assert proxied.observed.records[0].bytes_to_upstream > SIZE


@pytest.mark.peers("openssl")
async def test_openssl_passes_through(proxied: Proxied, real_servers: RealServers) -> None:
    """TLS between client and server passes through the proxy, and both verify each other."""
    port, directory = free_port(), real_servers.directory()
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    await said(
        proxied.reactor,
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-nodes", "-subj", "/CN=passed.example", "-keyout", key, "-out", certificate),
    )
    page, request = directory / "page", directory / "request"
    page.write_text(Random(2).randbytes(3_000_000).hex())
    request.write_text("GET /page HTTP/1.0\r\n\r\n")
    server = real_servers.add(
        [
            *("openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-WWW", "-quiet"),
            *("-key", str(key), "-cert", str(certificate)),
        ],
        directory,
    )
    host, number = await proxied_to(proxied, server, port)
    answer = await said(
        proxied.reactor,
        *("openssl", "s_client", "-connect", f"{host}:{number}", "-servername", "passed.example"),
        *("-CAfile", certificate, "-verify_return_error", "-quiet"),
        stdin=request,
    )
    assert answer.startswith("HTTP/1.0 200 ok")
    assert answer.endswith(page.read_text())
    await proxied.observed.ended()


@pytest.mark.peers("redis-server", "redis-benchmark")
async def test_redis_in_pipelines(proxied: Proxied, real_servers: RealServers) -> None:
    """Fifty clients with sixteen pipelined requests each get all their answers."""
    port = free_port()
    host, number = await proxied_to(proxied, redis(real_servers, port), port)
    report = await said(
        proxied.reactor,
        *("redis-benchmark", "-h", host, "-p", number, "-t", "set,get,lpush,lrange_100"),
        *("-n", "20000", "-c", "50", "-P", "16", "-q"),
    )
    assert report.count("requests per second") >= 4
    assert "rror" not in report


@pytest.mark.peers("redis-server", "redis-cli")
async def test_redis_mass_insertion(proxied: Proxied, real_servers: RealServers) -> None:
    """redis executes every one of many commands that a client sends without waiting."""
    port = free_port()
    server = redis(real_servers, port)
    commands = server.directory / "commands"
    commands.write_text("".join(f"SET key:{each} value:{each}\r\n" for each in range(200_000)))
    host, number = await proxied_to(proxied, server, port)
    client = ["redis-cli", "-h", host, "-p", number]
    report = await said(proxied.reactor, *client, "--pipe", stdin=commands)
    assert "errors: 0, replies: 200000" in report
    assert await said(proxied.reactor, *client, "dbsize") == "200000\n"
    assert await said(proxied.reactor, *client, "get", "key:199999") == "value:199999\n"
    await all_finished(proxied, 3)


FILL = """
create table original as
select number, md5(number::text) as hash, repeat('x', number % 300) as padding
from generate_series(1, 200000) as number;
create table copy (like original);
"""

DIFFERENCES = """
select (select count(*) from copy),
(select count(*) from ((table original except all table copy)
union all (table copy except all table original)) as difference)
"""


@pytest.mark.peers("initdb", "postgres", "psql")
async def test_postgresql_copies(proxied: Proxied, real_servers: RealServers) -> None:
    """A table is the same after a client has copied it out and in again."""
    port = free_port()
    server = postgresql(real_servers, port)
    rows = server.directory / "rows"
    host, number = await proxied_to(proxied, server, port)
    client = ["psql", "-X", "-h", host, "-p", number, "-U", "postgres", "-v", "ON_ERROR_STOP=1"]
    report = await said(
        proxied.reactor,
        *(*client, "-q", "-A", "-t", "-c", FILL, "-c", f"\\copy original to '{rows}'"),
        *("-c", f"\\copy copy from '{rows}'", "-c", DIFFERENCES),
    )
    assert report == "200000|0\n"
    await all_finished(proxied, 1)
    assert proxied.observed.records[0].bytes_to_downstream > 30_000_000
    assert proxied.observed.records[0].bytes_to_upstream > 30_000_000
