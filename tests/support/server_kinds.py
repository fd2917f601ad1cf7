"""Redis, nginx and PostgreSQL as peers, each set up on a loopback port."""

from __future__ import annotations

from collections.abc import Sequence
from os import chown, geteuid
from pathlib import Path
from subprocess import DEVNULL, run
from typing import Any

from twisted.internet.utils import getProcessValue

from tests.support.programs import requires_program
from tests.support.real_servers import RealServer, RealServers, until

LOOPBACK = "127.0.0.1"


def redis(servers: RealServers, port: int, *options: str, hosts: str = LOOPBACK) -> RealServer:
    """Return a redis server on `port` that stores nothing on disk."""
    base = ["redis-server", "--port", str(port), "--bind", *hosts.split(), "--save", ""]
    return servers.add([*base, *options], servers.directory())


NGINX = """
daemon off;
worker_processes 1;
master_process off;
pid {directory}/pid;
error_log {directory}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {directory}; proxy_temp_path {directory};
    fastcgi_temp_path {directory}; uwsgi_temp_path {directory}; scgi_temp_path {directory};
    keepalive_requests 1000000;
    server {{
        {listen}
        location = /healthz {{ return 200 "all is well"; }}
        location = /bad {{ return 503; }}
        location = /who {{ return 200 "$server_addr"; }}
    }}
}}
"""


def nginx(servers: RealServers, port: int, hosts: Sequence[str] = (LOOPBACK,)) -> RealServer:
    """Return an nginx with one process, on `port` of each host; its errors are in ``error.log``."""
    directory = servers.directory()
    configuration = directory / "nginx.conf"
    listen = " ".join(f"listen {host}:{port} backlog=1024;" for host in hosts)
    configuration.write_text(NGINX.format(directory=directory, listen=listen))
    error_log = directory / "error.log"
    arguments = ["nginx", "-p", str(directory), "-e", str(error_log), "-c", str(configuration)]
    return servers.add(arguments, directory)


def with_tls(server: RealServer, pem: Path) -> None:
    """Let the PostgreSQL `server`, which is not started yet, have TLS with certificate `pem`."""
    data = server.directory / "data"
    for name in ("server.crt", "server.key"):
        (data / name).write_text(pem.read_text())
        (data / name).chmod(0o600)
        chown(data / name, data.stat().st_uid, data.stat().st_gid)
    with (data / "postgresql.conf").open("a") as file:
        file.write("ssl = on\n")


async def postgresql_started(reactor: Any, server: RealServer, port: int) -> None:
    """Start the PostgreSQL `server`, and wait until it accepts sessions, not only connections."""
    await server.started(reactor, port)
    program = requires_program("pg_isready")

    async def ready() -> bool:
        status: int = await getProcessValue(program, ["-q", "-h", LOOPBACK, "-p", str(port)])
        return status == 0

    await until(reactor, ready, "PostgreSQL's start")


def postgresql(
    servers: RealServers, port: int, authentication: str = "trust", like: Path | None = None
) -> RealServer:
    """
    Return a new PostgreSQL cluster on `port`, run by its own user, because it refuses root.

    `like`: the directory of a cluster that has not run yet; a copy of it is faster.
    """
    user = "postgres" if geteuid() == 0 else None
    directory = servers.directory(user)
    data = directory / "data"
    if like is not None:
        run(["cp", "-a", str(like / "data"), str(data)], check=True)
    else:
        run(
            [
                requires_program("initdb"),
                *("-D", str(data), "-U", "postgres", "-A", authentication, "--no-sync"),
                *("--pwfile", str(password_file(directory))),
            ],
            check=True,
            cwd=directory,
            stdout=DEVNULL,
            user=user,
        )
    options = ["-p", str(port), "-h", LOOPBACK, "-k", str(directory), "-F"]
    return servers.add(["postgres", "-D", str(data), *options], directory, user)


def password_file(directory: Path) -> Path:
    """Write a file with the password of the first user of a cluster."""
    path = directory / "password"
    path.write_text("secret\n")
    return path
