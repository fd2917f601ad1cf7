"""The measures in which the proxy ends TLS.

Only evproxy, HAProxy and nginx take part: Twisted's and asyncio's TLS ends whole, which is
another thing. Clients verify nothing, so that the load costs less.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .bench import Bench, Proxy, per_work
from .loads import idle_sessions
from .network import LOOPBACK, wait_until
from .parsers import LoadError
from .peers import Peer
from .processes import Command, spawned
from .results import Values
from .upstreams import BULK_PATH, HttpUpstream, http_upstream

PEERS = frozenset({"evproxy", "haproxy", "nginx"})
"""Who takes part."""

CURVE = "prime256v1"
"""The key of the certificate: ECDSA with P-256."""

_LONGEST = 120
_CLIENTS = 8
_FIRST_SESSIONS = 16


def certificate(directory: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one PEM file; made once."""
    path = directory / "certificate.pem"
    if not path.exists():
        made = directory / "certificate.new"
        options = ("-x509", "-nodes", "-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{CURVE}")
        subject = ("-subj", f"/CN={LOOPBACK}", "-days", "2")
        command = ["openssl", "req", *options, *subject, "-keyout", str(made), "-out", str(path)]
        subprocess.run(command, check=True, capture_output=True)
        path.write_text(path.read_text() + made.read_text())
    return path


@contextmanager
def _running(bench: Bench, peer: Peer) -> Iterator[tuple[HttpUpstream, Proxy]]:
    pem = certificate(bench.directory)
    with (
        http_upstream(bench.cores.load, bench.directory) as upstream,
        bench.proxy(peer, upstream.port, certificate=pem) as proxy,
    ):
        yield upstream, proxy


def bulk(bench: Bench, peer: Peer) -> Values:
    """One download by curl."""
    with _running(bench, peer) as (_, proxy):
        _download(bench, proxy, bench.plan.bulk_bytes // 16)
        proxy.process.wait_quiet()
        before = proxy.process.cpu_seconds()
        _download(bench, proxy, bench.plan.bulk_bytes)
        cpu = proxy.process.cpu_seconds() - before
    return {"cpu": cpu / (bench.plan.bulk_bytes / (1 << 30))}


def _download(bench: Bench, proxy: Proxy, size: int) -> None:
    url = f"https://{LOOPBACK}:{proxy.ports[0]}/{BULK_PATH}"
    shown = ("-o", "/dev/null", "-w", "%{size_download}")
    command = Command(["curl", "-sSk", "-r", f"0-{size - 1}", *shown, url])
    path = bench.directory / "curl.out"
    with path.open("wb") as output, spawned(command, bench.cores.load, output) as process:
        process.wait(timeout=_LONGEST)
    if path.read_text() != str(size):
        raise LoadError(f"curl got {path.read_text()!r} bytes of {size}")


def requests(bench: Bench, peer: Peer) -> Values:
    """wrk on 50 connections."""
    with _running(bench, peer) as (upstream, proxy):
        seen = bench.window(proxy, upstream, 50, tls=True)
    return {**per_work(seen, seen.requests), "errors": seen.errors}


def resumed(bench: Bench, peer: Peer) -> Values:
    """wrk, 50 at a time: it resumes its sessions."""
    with _running(bench, peer) as (upstream, proxy):
        seen = bench.window(proxy, upstream, 50, new_connection_each=True, tls=True)
    return {**per_work(seen, seen.connections), "errors": seen.errors}


def full(bench: Bench, peer: Peer) -> Values:
    """`openssl s_time -new`, eight at a time: each connection makes a full handshake."""
    with _running(bench, peer) as (upstream, proxy), ExitStack() as stack:
        output = stack.enter_context((bench.directory / "s_time.out").open("wb"))
        place = f"{LOOPBACK}:{proxy.ports[0]}"
        # Without a request, HAProxy would often give up its connect: the client has left.
        options = ("-new", "-www", "/", "-time", str(_LONGEST))
        command = Command(["openssl", "s_time", "-connect", place, *options])
        for _ in range(_CLIENTS):
            stack.enter_context(spawned(command, bench.cores.load, output))
        before = upstream.counters().accepted
        wait_until(
            lambda: upstream.counters().accepted > before + 10 * _CLIENTS,
            "connections through the proxy",
        )
        first, last = bench.samples(proxy, upstream)
    connections = last.counters.accepted - first.counters.accepted
    return {
        "cpu": (last.cpu - first.cpu) / connections * 1e6,
        "rate": connections / (last.at - first.at),
    }


def memory(bench: Bench, peer: Peer) -> Values:
    """Idle sessions, after one request on each."""
    count = bench.plan.idle_tls
    with _running(bench, peer) as (upstream, proxy):
        with idle_sessions(proxy.ports[0], _FIRST_SESSIONS, upstream, tls=True) as sessions:
            sessions.request_on_each()
        proxy.process.wait_quiet()
        baseline = proxy.process.pss_bytes()
        with idle_sessions(proxy.ports[0], count, upstream, tls=True) as sessions:
            sessions.request_on_each()
            proxy.process.wait_quiet()
            used = proxy.process.pss_bytes()
    return {"after": (used - baseline) / count / 1024}
