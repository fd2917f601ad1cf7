"""What is sent through the proxies: wrk, iperf3, and sessions that stay idle."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from attrs import define, frozen

from . import parsers
from .network import LOOPBACK, wait_until
from .processes import Command, spawned
from .upstreams import HttpUpstream

REQUEST = b"GET / HTTP/1.1\r\nHost: benchmark\r\n\r\n"
ANSWER_END = b"ok\n"
_LONGEST = 60  # seconds a load tool may run if nothing ends it before
_BATCH = 200  # sessions opened before the upstream must have seen them all


@define
class Wrk:
    """wrk while it runs, and what it saw once it has been stopped."""

    seen: parsers.HttpLoad | None = None


@contextmanager
def wrk(
    port: int,
    connections: int,
    cores: frozenset[int],
    *,
    new_connection_each: bool = False,
    tls: bool = False,
    background: bool = False,
) -> Iterator[Wrk]:
    """Requests as fast as they are answered, until the context is left.

    Raises:
        LoadError: wrk failed; on leaving the context.
    """
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{_LONGEST}s", "--latency"]
    if new_connection_each:
        argv += ["-H", "Connection: close"]
    url = f"{'https' if tls else 'http'}://{LOOPBACK}:{port}/"
    load = Wrk()
    with (
        tempfile.TemporaryFile() as output,
        spawned(
            Command([*argv, url]),
            cores,
            output,
            background=background,
        ) as process,
    ):
        yield load
        process.send_signal(signal.SIGINT)  # wrk stops and prints, as at the end of its time
        process.wait(timeout=10)
        output.seek(0)
        load.seen = parsers.wrk(output.read().decode())


@define
class Iperf3:
    """iperf3's client while it runs, and what it moved once it has come to its end."""

    moved: parsers.BulkLoad | None = None


@contextmanager
def iperf3(
    port: int, arguments: Sequence[str], cores: frozenset[int], *, background: bool = False
) -> Iterator[Iperf3]:
    """Bulk streams, as many bytes or seconds as ``arguments`` say; leaving waits for the end.

    Raises:
        LoadError: iperf3 failed or took longer than a minute; on leaving the context.
    """
    argv = ["iperf3", "-c", LOOPBACK, "-p", str(port), "--json", *arguments]
    load = Iperf3()
    with (
        tempfile.TemporaryFile() as output,
        spawned(Command(argv), cores, output, background=background) as process,
    ):
        yield load
        try:
            process.wait(timeout=_LONGEST)
        except subprocess.TimeoutExpired as late:
            raise parsers.LoadError(f"iperf3: not done within {_LONGEST} s") from late
        output.seek(0)
        load.moved = parsers.iperf3(output.read().decode())


@frozen
class IdleSessions:
    """Sessions held open through a proxy by this process, doing nothing."""

    _sockets: list[socket.socket]

    def request_on_each(self) -> None:
        """One request and its answer on every session, one after the other."""
        for session in self._sockets:
            session.sendall(REQUEST)
            answer = b""
            while not answer.endswith(ANSWER_END):
                part = session.recv(4096)
                if not part:
                    raise parsers.LoadError("a session ended before its answer")
                answer += part


@contextmanager
def idle_sessions(
    port: int, count: int, upstream: HttpUpstream, *, tls: bool = False
) -> Iterator[IdleSessions]:
    """Open ``count`` sessions, each up to the upstream, and close them on leaving.

    They are opened in batches, so that no listen queue overflows, which would cost a
    second for each SYN that is dropped.
    """
    before = upstream.counters().active - 1
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with ExitStack() as stack:
        sockets: list[socket.socket] = []
        while len(sockets) < count:
            for _ in range(min(_BATCH, count - len(sockets))):
                session = socket.create_connection((LOOPBACK, port), timeout=10)
                if tls:
                    session = context.wrap_socket(session)
                sockets.append(stack.enter_context(session))
            upstream.wait_active(before + len(sockets))
        yield IdleSessions(sockets)
    wait_until(
        lambda: upstream.counters().active - 1 <= before,
        "the end of idle sessions",
        timeout=30.0,
    )
