"""What the proxies connect to: nginx answering HTTP at once, and iperf3's server.

nginx counts what reaches it (stub_status, asked directly and not through the proxy),
so work done is known at any instant and not only when the load tool ends.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from attrs import field, frozen

from .network import LOOPBACK, free_port, wait_until
from .parsers import Counters, stub_status
from .peers.native import nginx_user
from .processes import Command, server

BULK_PATH = "bulk"
"""The path of a file with `BULK_SIZE` zeros."""

BULK_SIZE = 1 << 30

_HTTP = """\
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {directory}/upstream.pid;
error_log stderr crit;
events {{ worker_connections 19000; multi_accept on; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    client_header_timeout 1h;
    server {{
        listen {host}:{port} backlog=4096;
        location = /{bulk} {{ root {directory}; sendfile on; }}
        location / {{ default_type text/plain; return 200 "ok\\n"; }}
    }}
    server {{
        listen 127.0.0.1:{status};
        location / {{ stub_status; }}
    }}
}}
"""


@frozen
class HttpUpstream:
    """A server that answers every request with three bytes, and counts."""

    port: int
    _status: http.client.HTTPConnection = field(repr=False)

    def counters(self) -> Counters:
        """What reached it so far. Asking is itself one request."""
        self._status.request("GET", "/")
        return stub_status(self._status.getresponse().read().decode())

    def wait_active(self, connections: int) -> None:
        """Wait until exactly so many connections are open, not counting our own."""
        wait_until(
            lambda: self.counters().active - 1 == connections,
            f"{connections} connections at the upstream",
            timeout=30.0,
        )


@contextmanager
def http_upstream(
    cores: frozenset[int], directory: Path, *, background: bool = False, host: str = LOOPBACK
) -> Iterator[HttpUpstream]:
    """nginx as a web server on a port of `host`, one worker, connections open for an hour."""
    port, status = free_port(), free_port()
    path = directory / "upstream.conf"
    with (directory / BULK_PATH).open("wb") as file:
        file.truncate(BULK_SIZE)
    path.write_text(
        _HTTP.format(
            user=nginx_user(),
            directory=directory,
            host=host,
            port=port,
            status=status,
            bulk=BULK_PATH,
        )
    )
    command = Command(["nginx", "-p", str(directory), "-c", str(path)], has_worker=True)
    log = directory / "upstream.log"
    with (
        server(command, cores, [port, status], log, background=background),
        closing(http.client.HTTPConnection(LOOPBACK, status, timeout=10)) as connection,
    ):
        yield HttpUpstream(port, connection)


@contextmanager
def bulk_upstream(
    cores: frozenset[int], directory: Path, *, background: bool = False
) -> Iterator[int]:
    """iperf3's server; gives its port."""
    port = free_port()
    command = Command(["iperf3", "-s", "-B", LOOPBACK, "-p", str(port)])
    with server(command, cores, [port], directory / "iperf3.log", background=background):
        yield port
