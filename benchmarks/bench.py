"""What every measure has in hand: the cores, a directory, how long to run, and a fresh proxy."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import Factory, frozen

from .loads import wrk
from .network import free_port, wait_until
from .parsers import Counters
from .peers import Forward, Peer
from .processes import Command, Cores, Running, server
from .upstreams import HttpUpstream


@frozen
class Plan:
    """How much is done. Times are seconds, sizes bytes.

    Attributes:
        rounds: how often everything is measured.
        warm_up: load before a window is measured.
        window: how long a window of requests or connections is.
        bulk_bytes: what is moved in one bulk measure.
        idle: how many sessions stay idle.
        idle_tls: the same of sessions with TLS.
        mixed: how long small requests run beside bulk streams.
        lag: how long the loop lag is probed under each load.
    """

    rounds: int = 5
    warm_up: float = 0.3
    window: float = 1.2
    bulk_bytes: int = 1 << 30
    idle: int = 4500
    idle_tls: int = 2000
    mixed: float = 2.2
    lag: float = 0.6


QUICK = Plan(rounds=1, window=0.6, bulk_bytes=1 << 29, mixed=1.2, lag=0.4)


@frozen
class Proxy:
    """A proxy that runs, and the ports it listens on in the order of its upstreams."""

    process: Running
    ports: Sequence[int]


@frozen
class Sample:
    """The proxy's CPU time and what had reached the upstream, at one instant."""

    at: float
    cpu: float
    counters: Counters


@frozen
class Window:
    """What happened between two samples while wrk ran, and what wrk saw in all."""

    seconds: float
    cpu: float
    requests: int
    connections: int
    p50: float
    p99: float
    errors: int


def per_work(seen: Window, count: int) -> dict[str, float]:
    """CPU time in microseconds for each of `count` requests or connections, and their rate."""
    return {"cpu": seen.cpu / count * 1e6, "rate": count / seen.seconds}


@frozen
class Bench:
    """The place one run has: nothing of it outlives the run.

    Attributes:
        cores: who runs where.
        directory: for configuration files and logs.
        plan: how much is done.
        disturbances: for each proxy that ran, the share of its core that went to others.
    """

    cores: Cores
    directory: Path
    plan: Plan
    disturbances: list[float] = Factory(list)

    @contextmanager
    def proxy(
        self, peer: Peer, *upstreams: int, certificate: Path | None = None
    ) -> Iterator[Proxy]:
        """
        A fresh process of this peer, at rest, with one listener for each upstream port.

        With a `certificate`, it ends TLS.
        """
        forwards = [Forward(free_port(), upstream, certificate) for upstream in upstreams]
        ports = [forward.listen for forward in forwards]
        command = peer.command(forwards, self.directory)
        with self.running(peer.name, command, ports) as proxy:
            yield proxy

    @contextmanager
    def running(self, name: str, command: Command, ports: Sequence[int]) -> Iterator[Proxy]:
        """A fresh process of a proxy that listens on `ports`, at rest."""
        log = self.directory / f"{name}.log"
        with server(command, self.cores.proxy, ports, log) as process:
            process.wait_quiet()
            since, busy, own = time.monotonic(), self.cores.busy_seconds(), process.cpu_seconds()
            yield Proxy(process, ports)
            own = process.cpu_seconds() - own
            busy = self.cores.busy_seconds() - busy
            self.disturbances.append(max(0.0, busy - own) / (time.monotonic() - since))

    def window(
        self,
        proxy: Proxy,
        upstream: HttpUpstream,
        connections: int,
        *,
        new_connection_each: bool = False,
        tls: bool = False,
    ) -> Window:
        """Run wrk through the proxy and measure a window in which all its connections are up."""
        before = upstream.counters().requests
        with wrk(
            proxy.ports[0],
            connections,
            self.cores.load,
            new_connection_each=new_connection_each,
            tls=tls,
        ) as load:
            wait_until(
                lambda: upstream.counters().requests > before + 2 * connections,
                "requests through the proxy",
            )
            first, last = self.samples(proxy, upstream)
        assert load.seen is not None
        return Window(
            seconds=last.at - first.at,
            cpu=last.cpu - first.cpu,
            requests=last.counters.requests - first.counters.requests - 1,
            connections=last.counters.accepted - first.counters.accepted,
            p50=load.seen.latency[50],
            p99=load.seen.latency[99],
            errors=load.seen.errors,
        )

    def samples(self, proxy: Proxy, upstream: HttpUpstream) -> tuple[Sample, Sample]:
        """The samples at the begin and at the end of a window, after the warm-up."""
        time.sleep(self.plan.warm_up)
        first = sample(proxy, upstream)
        time.sleep(self.plan.window)
        return first, sample(proxy, upstream)


def sample(proxy: Proxy, upstream: HttpUpstream) -> Sample:
    """Read both counters; CPU time is taken halfway through asking the upstream."""
    before, cpu_before = time.monotonic(), proxy.process.cpu_seconds()
    counters = upstream.counters()
    after, cpu_after = time.monotonic(), proxy.process.cpu_seconds()
    return Sample((before + after) / 2, (cpu_before + cpu_after) / 2, counters)
