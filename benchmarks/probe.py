"""A tiny request sent through a proxy at a fixed pace, and how long each took.

The probe is client and upstream in one process: it sends on one end of a session, reads
on the other, and the same way back. So its latency is the proxy's, twice, and a few
system calls. The largest is the loop lag as seen from outside: a request that comes
while the proxy is busy with something else waits until that is done.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from attrs import frozen

from .network import LOOPBACK, free_port

_MESSAGE = b"evproxy benchmark probe, a small request of sixty-four bytes...\n"


@frozen
class Session:
    """Both ends of one session through the proxy."""

    downstream: socket.socket
    upstream: socket.socket

    def round_trips(self, seconds: float, pace: float) -> list[float]:
        """The latency in seconds of requests sent every ``pace`` seconds.

        A request that is answered later than the next one is due delays that one:
        latencies are counted from when a request was sent.
        """
        latencies = []
        now = due = time.perf_counter()
        end = now + seconds
        while now < end:
            time.sleep(max(0.0, due - now))
            start = time.perf_counter()
            self._pass_on(self.downstream, self.upstream)
            self._pass_on(self.upstream, self.downstream)
            now = time.perf_counter()
            latencies.append(now - start)
            due = max(due + pace, now)
        return latencies

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        source.sendall(_MESSAGE)
        missing = len(_MESSAGE)
        while missing:
            part = target.recv(missing)
            if not part:
                raise ConnectionError("the proxy ended the probe's session")
            missing -= len(part)


@frozen
class Probe:
    """The upstream end of the probe, listening before the proxy is started."""

    port: int
    _listener: socket.socket

    @contextmanager
    def session(self, proxy_port: int) -> Iterator[Session]:
        """A session through the proxy that listens on ``proxy_port``."""
        with ExitStack() as stack:
            address = (LOOPBACK, proxy_port)
            downstream = stack.enter_context(socket.create_connection(address, timeout=10))
            upstream = stack.enter_context(self._listener.accept()[0])
            for end in (downstream, upstream):
                end.settimeout(10)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield Session(downstream, upstream)


@contextmanager
def probe() -> Iterator[Probe]:
    """A listener for the probe's sessions to arrive at."""
    port = free_port()
    with socket.create_server((LOOPBACK, port)) as listener:
        listener.settimeout(10)
        yield Probe(port, listener)
