"""HAProxy and nginx, each as it comes and as it is at its best in bulk.

HAProxy runs three times, because no one configuration is best. With ``SPLICE_AUTO`` and
its default buffers of 16 KiB it is cheapest on small requests, but on loopback it decides
to splice only now and then. ``BUFFERS_64K`` is the same with buffers of 64 KiB, which save
CPU time in bulk and cost more than that in the latency of whatever shares the process.
``SPLICE_ALWAYS`` splices from the first byte, through pipes of 1 MiB: the HAProxy to beat
in bulk, dearer on small requests.

nginx runs with its default buffers of 16 KiB, and with buffers of 64 KiB, with which it
needed about a third less CPU time in bulk.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from ..processes import Command
from .contract import Forward, Starter


@frozen
class Variant:
    """One way to run HAProxy: when it splices, and what it is tuned with."""

    options: Sequence[str]
    tuning: Sequence[str] = ()


SPLICE_AUTO = Variant(["option splice-auto"])
BUFFERS_64K = Variant(["option splice-auto"], ["tune.bufsize 65536"])
SPLICE_ALWAYS = Variant(
    ["option splice-request", "option splice-response"], ["tune.pipesize 1048576"]
)

_HAPROXY = """\
global
    nbthread 1
    maxconn 6000
    maxpipes 1000
    {tuning}
defaults
    mode tcp
    {options}
    timeout connect 5s
    timeout client 1h
    timeout server 1h
"""

_HAPROXY_LISTEN = """\
listen forward-{listen}
    bind 127.0.0.1:{listen} backlog 4096 {tls}
    server upstream 127.0.0.1:{upstream}
"""

# The module's path is Debian's; as root, nginx would otherwise give its worker to another user.
_NGINX = """\
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {directory}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 19000; multi_accept on; }}
stream {{
    access_log off;
    proxy_buffer_size {buffer};
    proxy_connect_timeout 5s;
    proxy_timeout 1h;
{servers}
}}
"""

_NGINX_SERVER = (
    "    server {{ listen 127.0.0.1:{listen} backlog=4096{ssl}; proxy_pass 127.0.0.1:{upstream};"
    " {tls} }}"
)

_NGINX_TLS = (
    "ssl_certificate {pem}; ssl_certificate_key {pem}; ssl_protocols TLSv1.2 TLSv1.3;"
    " ssl_session_cache shared:tls:20m;"
)


def nginx_user() -> str:
    """The directive that lets an nginx started as root keep one user for all it does."""
    return "user root;" if os.geteuid() == 0 else ""


def haproxy(variant: Variant) -> Starter:
    """HAProxy in TCP mode, one thread."""

    def command(forwards: Sequence[Forward], directory: Path) -> Command:
        tuning, options = "\n    ".join(variant.tuning), "\n    ".join(variant.options)
        parts = [_HAPROXY.format(tuning=tuning, options=options)]
        parts += [
            _HAPROXY_LISTEN.format(
                listen=f.listen,
                upstream=f.upstream,
                tls=f"ssl crt {f.certificate}" if f.certificate else "",
            )
            for f in forwards
        ]
        path = directory / "haproxy.cfg"
        path.write_text("".join(parts))
        return Command(["haproxy", "-db", "-f", str(path)])

    return command


def nginx_stream(buffer: str) -> Starter:
    """nginx's stream module with one worker process, which is the one that is measured."""

    def command(forwards: Sequence[Forward], directory: Path) -> Command:
        servers = [
            _NGINX_SERVER.format(
                listen=f.listen,
                upstream=f.upstream,
                ssl=" ssl" if f.certificate else "",
                tls=_NGINX_TLS.format(pem=f.certificate) if f.certificate else "",
            )
            for f in forwards
        ]
        path = directory / "nginx-stream.conf"
        path.write_text(
            _NGINX.format(
                user=nginx_user(), directory=directory, buffer=buffer, servers="\n".join(servers)
            )
        )
        return Command(["nginx", "-p", str(directory), "-c", str(path)], has_worker=True)

    return command
