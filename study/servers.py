"""
Real servers for ``--servers``: Apache with each MPM, nginx, gunicorn with its kinds of workers.

Apache and nginx forward to the upstream server as HTTP proxies.  gunicorn runs `study.wsgi`, a
small program that asks the upstream server, as a web application asks its database.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .catalogue import Model
from .worker import LOOPBACK

WORKERS = 64
"""Requests at a time of Apache with each MPM: 64 processes, or 4 processes with 16 threads."""

GUNICORN_WORKERS = 2
GUNICORN_THREADS = 16

_MODULES = Path("/usr/lib/apache2/modules")

_APACHE = """
ServerRoot "{directory}"
ServerName localhost
Listen {host}:{port}
ListenBacklog 4096
PidFile {directory}/pid
ErrorLog {directory}/error.log
{user}
LoadModule mpm_{mpm}_module {modules}/mod_mpm_{mpm}.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
Mutex posixsem
KeepAliveTimeout 60
MaxKeepAliveRequests 0
{size}
ProxyPass "/" "http://{host}:{upstream}/" connectiontimeout=5
"""
_PREFORK = (
    f"StartServers {WORKERS}\nMinSpareServers {WORKERS}\nMaxSpareServers {WORKERS}\n"
    f"ServerLimit {WORKERS}\nMaxRequestWorkers {WORKERS}"
)
_THREADED = f"StartServers 4\nServerLimit 4\nThreadsPerChild 16\nMaxRequestWorkers {WORKERS}"

_NGINX = """
daemon off;
{user}
worker_processes 1;
worker_rlimit_nofile 20000;
pid {directory}/pid;
error_log {directory}/error.log;
events {{ worker_connections 15000; }}
http {{
    access_log off;
    client_body_temp_path {directory}; proxy_temp_path {directory};
    fastcgi_temp_path {directory}; uwsgi_temp_path {directory}; scgi_temp_path {directory};
    keepalive_timeout 60; keepalive_requests 1000000;
    upstream study {{ server {host}:{upstream}; keepalive 64; }}
    server {{
        listen {host}:{port} backlog=4096;
        location / {{
            proxy_pass http://study;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


def _apache(mpm: str) -> Callable[[int, int, Path], Sequence[str]]:
    def command(port: int, upstream: int, directory: Path) -> Sequence[str]:
        path = directory / "apache.conf"
        text = _APACHE.format(
            directory=directory,
            host=LOOPBACK,
            port=port,
            upstream=upstream,
            mpm=mpm,
            modules=_MODULES,
            size=_PREFORK if mpm == "prefork" else _THREADED,
            user="User www-data\nGroup www-data" if os.geteuid() == 0 else "",
        )
        path.write_text(text)
        return [_program("apache2"), "-DFOREGROUND", "-f", str(path)]

    return command


def _nginx(port: int, upstream: int, directory: Path) -> Sequence[str]:
    path = directory / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    path.write_text(
        _NGINX.format(directory=directory, host=LOOPBACK, port=port, upstream=upstream, user=user)
    )
    log = str(directory / "error.log")
    return [_program("nginx"), "-p", str(directory), "-e", log, "-c", str(path)]


def _gunicorn(kind: str) -> Callable[[int, int, Path], Sequence[str]]:
    def command(port: int, upstream: int, directory: Path) -> Sequence[str]:
        return [
            *(sys.executable, "-m", "gunicorn", "--bind", f"{LOOPBACK}:{port}"),
            *("--workers", str(GUNICORN_WORKERS), "--worker-class", kind),
            *("--threads", str(GUNICORN_THREADS if kind == "gthread" else 1)),
            *("--worker-connections", "5000", "--backlog", "4096", "--keep-alive", "60"),
            *("--worker-tmp-dir", str(directory), "--env", f"STUDY_UPSTREAM={upstream}"),
            "study.wsgi:application",
        ]

    return command


ALL = (
    Model(
        name="apache-prefork",
        title="Apache, prefork",
        waits_in="process",
        at_once=WORKERS,
        drains=False,
        hooked=False,
        command=_apache("prefork"),
    ),
    Model(
        name="apache-worker",
        title="Apache, worker",
        waits_in="thread",
        at_once=WORKERS,
        drains=False,
        hooked=False,
        command=_apache("worker"),
    ),
    Model(
        name="apache-event",
        title="Apache, event",
        waits_in="loop",
        drains=False,
        hooked=False,
        command=_apache("event"),
    ),
    Model(
        name="nginx",
        title="nginx",
        waits_in="loop",
        loops=True,
        hooked=False,
        command=_nginx,
    ),
    Model(
        name="gunicorn-sync",
        title="gunicorn, sync",
        waits_in="queue",
        at_once=GUNICORN_WORKERS,
        drains=False,
        command=_gunicorn("sync"),
    ),
    Model(
        name="gunicorn-gthread",
        title="gunicorn, gthread",
        waits_in="loop",
        at_once=GUNICORN_WORKERS * GUNICORN_THREADS,
        drains=False,
        command=_gunicorn("gthread"),
    ),
    Model(
        name="gunicorn-gevent",
        title="gunicorn, gevent",
        waits_in="loop",
        loops=True,
        drains=False,
        command=_gunicorn("gevent"),
    ),
)


def missing() -> list[str]:
    """What is not installed, and how to install it: a line for each."""
    lines = []
    for program, package in (("apache2", "apache2-bin"), ("nginx", "nginx")):
        if not shutil.which(program, path=PATH):
            lines.append(f"{program} is not installed: apt-get install {package}")
    for module in ("gunicorn", "gevent"):
        if importlib.util.find_spec(module) is None:
            lines.append(f"{module} is not installed: pip install {module}")
    return lines


PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])


def _program(name: str) -> str:
    return shutil.which(name, path=PATH) or name
