"""The measures: what is done to one fresh proxy, and which numbers come of it.

The README says in words what each one is. A measure gives a value for every one of its
metrics, in the metric's unit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence

from attrs import field, frozen

from . import tls
from .bench import Bench, Proxy, per_work
from .loads import idle_sessions, iperf3, wrk
from .peers import Peer
from .picking import POLICIES, SIZES, growth, key, picking
from .probe import probe
from .results import Values
from .upstreams import HttpUpstream, bulk_upstream, http_upstream

_GIB = 1 << 30
_IDLE_CONNECTIONS = 50
_FIRST_SESSIONS = 16
_MIXED_PACE = 0.002
_LAG_PACE = 0.001
_LAG_WARM_UP = 0.1
_BULK_START = 0.3  # seconds that iperf3 outlasts the probe beside it, its own start included

BULK = {
    "bulk-1": ("one stream", ("-P", "1")),
    "bulk-4": ("four streams", ("-P", "4")),
    "bulk-both": ("one stream each way", ("--bidir",)),
}
LAG = ("bulk-1", "bulk-both", "requests-1", "requests-50", "requests-500", "connections")


@frozen
class Metric:
    """One number of a measure: a row of the tables."""

    key: str
    title: str
    unit: str
    is_lag: bool = field(default=False, kw_only=True)


@frozen
class Measure:
    """Something that is done to a proxy, and the metrics it gives; `only` to some, if set."""

    name: str
    metrics: Sequence[Metric]
    run: Callable[[Bench, Peer], Values]
    only: frozenset[str] | None = None


def _bulk(name: str) -> Measure:
    title, arguments = BULK[name]

    def run(bench: Bench, peer: Peer) -> Values:
        with (
            bulk_upstream(bench.cores.load, bench.directory) as upstream,
            bench.proxy(peer, upstream) as proxy,
        ):
            _move(bench, proxy, bench.plan.bulk_bytes // 16, arguments)
            proxy.process.wait_quiet()
            before = proxy.process.cpu_seconds()
            gib, seconds = _move(bench, proxy, bench.plan.bulk_bytes, arguments)
            cpu = proxy.process.cpu_seconds() - before
        return {"cpu": cpu / gib, "rate": gib / seconds}

    return Measure(
        name,
        (
            Metric("cpu", f"bulk, {title}: CPU per GiB", "s"),
            Metric("rate", f"bulk, {title}: throughput", "GiB/s"),
        ),
        run,
    )


def _move(bench: Bench, proxy: Proxy, size: int, arguments: Sequence[str]) -> tuple[float, float]:
    with iperf3(proxy.ports[0], ("-n", str(size), *arguments), bench.cores.load) as load:
        pass
    assert load.moved is not None
    return load.moved.bytes_moved / _GIB, load.moved.seconds


def _requests(connections: int) -> Measure:
    def run(bench: Bench, peer: Peer) -> Values:
        with (
            http_upstream(bench.cores.load, bench.directory) as upstream,
            bench.proxy(peer, upstream.port) as proxy,
        ):
            seen = bench.window(proxy, upstream, connections)
        return {
            **per_work(seen, seen.requests),
            "p50": seen.p50 * 1e3,
            "p99": seen.p99 * 1e3,
            "errors": seen.errors,
        }

    at = f"requests at {connections} connection{'s' if connections > 1 else ''}"
    return Measure(
        f"requests-{connections}",
        (
            Metric("cpu", f"{at}: CPU per request", "µs"),
            Metric("rate", f"{at}: requests", "1/s"),
            Metric("p50", f"{at}: latency p50", "ms"),
            Metric("p99", f"{at}: latency p99", "ms"),
        ),
        run,
    )


def _connections(bench: Bench, peer: Peer) -> Values:
    with (
        http_upstream(bench.cores.load, bench.directory) as upstream,
        bench.proxy(peer, upstream.port) as proxy,
    ):
        seen = bench.window(proxy, upstream, 50, new_connection_each=True)
    return {
        **per_work(seen, seen.connections),
        "errors": seen.errors,
    }


def _memory(bench: Bench, peer: Peer) -> Values:
    count = bench.plan.idle
    with (
        http_upstream(bench.cores.load, bench.directory) as upstream,
        bench.proxy(peer, upstream.port) as proxy,
    ):
        with idle_sessions(proxy.ports[0], _FIRST_SESSIONS, upstream) as sessions:
            sessions.request_on_each()
        baseline = _settled_pss(proxy)
        with idle_sessions(proxy.ports[0], count, upstream) as sessions:
            opened = _settled_pss(proxy)
            sessions.request_on_each()
            used = _settled_pss(proxy)
    return {
        "before": (opened - baseline) / count / 1024,
        "after": (used - baseline) / count / 1024,
    }


def _settled_pss(proxy: Proxy) -> int:
    proxy.process.wait_quiet()
    return proxy.process.pss_bytes()


def _idle(bench: Bench, peer: Peer) -> Values:
    def cpu_per_request(proxy: Proxy, upstream: HttpUpstream) -> float:
        seen = bench.window(proxy, upstream, _IDLE_CONNECTIONS)
        return seen.cpu / seen.requests * 1e6

    with (
        http_upstream(bench.cores.load, bench.directory) as upstream,
        bench.proxy(peer, upstream.port) as proxy,
    ):
        alone = cpu_per_request(proxy, upstream)
        with idle_sessions(proxy.ports[0], bench.plan.idle, upstream):
            proxy.process.wait_quiet()
            among = cpu_per_request(proxy, upstream)
    return {"alone": alone, "among": among, "growth": among / alone}


def _mixed(bench: Bench, peer: Peer) -> Values:
    plan = bench.plan
    seconds = math.ceil(plan.warm_up + plan.mixed + _BULK_START)
    arguments = (*BULK["bulk-4"][1], "-t", str(seconds))
    with (
        bulk_upstream(bench.cores.load, bench.directory, background=True) as upstream,
        probe() as small,
        bench.proxy(peer, upstream, small.port) as proxy,
        small.session(proxy.ports[1]) as session,
    ):
        with iperf3(proxy.ports[0], arguments, bench.cores.load, background=True) as load:
            session.round_trips(plan.warm_up, _MIXED_PACE)
            before, cpu_before = time.monotonic(), proxy.process.cpu_seconds()
            latencies = sorted(session.round_trips(plan.mixed, _MIXED_PACE))
            busy = (proxy.process.cpu_seconds() - cpu_before) / (time.monotonic() - before)
        assert load.moved is not None
    return {
        "p50": _percentile(latencies, 50) * 1e3,
        "p99": _percentile(latencies, 99) * 1e3,
        "largest": latencies[-1] * 1e3,
        "rate": load.moved.bytes_moved / _GIB / load.moved.seconds,
        "busy": busy * 100,
    }


def _percentile(ordered: Sequence[float], percent: int) -> float:
    """The nearest-rank percentile of values in ascending order."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _lag(bench: Bench, peer: Peer) -> Values:
    load_cores = bench.cores.load
    with (
        bulk_upstream(load_cores, bench.directory, background=True) as bulk,
        http_upstream(load_cores, bench.directory, background=True) as http,
        probe() as small,
        bench.proxy(peer, bulk, http.port, small.port) as proxy,
        small.session(proxy.ports[2]) as session,
    ):

        def largest() -> float:
            session.round_trips(_LAG_WARM_UP, _LAG_PACE)
            return max(session.round_trips(bench.plan.lag, _LAG_PACE)) * 1e3

        values = {}
        for name in LAG:
            kind, _, count = name.partition("-")
            if kind == "bulk":
                seconds = math.ceil(_LAG_WARM_UP + bench.plan.lag + _BULK_START)
                arguments = (*BULK[name][1], "-t", str(seconds))
                with iperf3(proxy.ports[0], arguments, load_cores, background=True):
                    values[name] = largest()
            else:
                with wrk(
                    proxy.ports[1],
                    int(count or 50),
                    load_cores,
                    new_connection_each=kind == "connections",
                    background=True,
                ):
                    values[name] = largest()
            proxy.process.wait_quiet()
    return values


def _picking_metrics() -> Iterator[Metric]:
    for policy in POLICIES:
        for size in SIZES:
            title = f"new connections: CPU, {policy} among {size:,}"
            yield Metric(key(policy, size), title, "µs")
        yield Metric(growth(policy), f"new connections: CPU, {policy} among 1,000, to 1", "")


ALL: tuple[Measure, ...] = (
    *map(_bulk, BULK),
    *map(_requests, (1, 50, 500)),
    Measure(
        "connections",
        (
            Metric("cpu", "new connections: CPU per connection", "µs"),
            Metric("rate", "new connections: connections", "1/s"),
        ),
        _connections,
    ),
    Measure(
        "memory",
        (
            Metric("before", "memory per idle session, before a request", "KiB"),
            Metric("after", "memory per idle session, after one request", "KiB"),
        ),
        _memory,
    ),
    Measure(
        "idle",
        (
            Metric("alone", "CPU per request with no idle session", "µs"),
            Metric("among", "CPU per request with 4,500 idle sessions", "µs"),
            Metric("growth", "CPU per request with 4,500 idle sessions, to none", ""),
        ),
        _idle,
    ),
    Measure(
        "mixed",
        (
            Metric("p50", "small requests under four bulk streams: p50", "ms"),
            Metric("p99", "small requests under four bulk streams: p99", "ms"),
            Metric("largest", "largest loop lag, bulk-4", "ms", is_lag=True),
            Metric("rate", "bulk beside small requests: throughput", "GiB/s"),
            Metric("busy", "bulk beside small requests: use of the proxy's core", "%"),
        ),
        _mixed,
    ),
    Measure(
        "picking",
        tuple(_picking_metrics()),
        lambda bench, _: picking(bench),
        only=frozenset({"evproxy"}),
    ),
    Measure(
        "lag",
        tuple(Metric(name, f"largest loop lag, {name}", "ms", is_lag=True) for name in LAG),
        _lag,
    ),
    Measure(
        "tls-bulk", (Metric("cpu", "TLS, one download: CPU per GiB", "s"),), tls.bulk, tls.PEERS
    ),
    Measure(
        "tls-requests-50",
        (
            Metric("cpu", "TLS, requests at 50 connections: CPU per request", "µs"),
            Metric("rate", "TLS, requests at 50 connections: requests", "1/s"),
        ),
        tls.requests,
        tls.PEERS,
    ),
    Measure(
        "tls-full",
        (
            Metric("cpu", "TLS, new connections, full handshakes: CPU per connection", "µs"),
            Metric("rate", "TLS, new connections, full handshakes: connections", "1/s"),
        ),
        tls.full,
        tls.PEERS,
    ),
    Measure(
        "tls-resumed",
        (
            Metric("cpu", "TLS, new connections, resumed: CPU per connection", "µs"),
            Metric("rate", "TLS, new connections, resumed: connections", "1/s"),
        ),
        tls.resumed,
        tls.PEERS,
    ),
    Measure(
        "tls-memory",
        (Metric("after", "TLS, memory per idle session, after one request", "KiB"),),
        tls.memory,
        tls.PEERS,
    ),
)
