"""Limits: the bound on sessions, and accepting when descriptors run out."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import Clock

from evproxy import Pool, ProxyFactory, ProxyService
from evproxy.hub import Hub
from evproxy.model import Ending, Side
from evproxy.service.limits import RESERVED_FILES, pipes_for, sessions_for
from evproxy.session.admission import CALM, RETRY, Admission
from tests.support.exhaustion import Exhaustion
from tests.support.peers import END, RESET, Listening, Peer, connect, converse
from tests.support.proxies import Observed, Proxied

pytestmark = pytest.mark.every_reactor

FULL = "paused: 2 sessions, as many as are allowed"
NO_DESCRIPTOR = (
    "this process has no free descriptor: raise its limit on open files (ulimit -n, LimitNOFILE=)"
)
EXHAUSTED = f"paused: {NO_DESCRIPTOR}"


async def test_a_client_waits_at_the_bound(proxied: Proxied) -> None:
    """At the bound, new clients wait in the accept queue, and are accepted as sessions end."""
    await proxied.start(max_sessions=2)
    pairs = [await proxied.pair() for _ in range(2)]
    waiting = [proxied.client() for _ in range(3)]
    for number, client in enumerate(waiting):
        await client.send(b"%d" % number)
    await proxied.observed.until(lambda: proxied.observed.pressure == [FULL])
    for one, other in pairs:
        await converse(one, other)
    assert proxied.upstream.nobody_waits()
    for number in range(3):
        client, server = pairs.pop(0)
        client.end()
        assert await server.rest() == (b"", END)
        server.end()
        assert await client.rest() == (b"", END)
        next_server = await proxied.upstream.accept()
        assert await next_server.receive(1) == b"%d" % number
        pairs.append((waiting[number], next_server))
        assert proxied.upstream.nobody_waits()
    # The service was at the bound the whole time, except for moments.
    assert proxied.observed.pressure == [FULL]


async def test_the_end_of_the_pressure_is_told_once(proxied: Proxied) -> None:
    """Observers are notified once at the end of a period; the next period is reported again."""
    await proxied.start(max_sessions=2)
    observed = proxied.observed
    for period in 1, 2:
        pairs = [await proxied.pair() for _ in range(2)]
        for client, server in pairs:
            client.close()
            assert await server.rest() == (b"", END)
            server.close()
        await observed.until(lambda: observed.pressure[-1] == "resumed")
        assert observed.pressure == [FULL, "resumed"] * period


async def test_the_bound_counts_sessions_that_connect(proxied: Proxied) -> None:
    """Connecting sessions count towards the bound; a client that leaves frees its place."""
    await proxied.start(max_sessions=1)
    for _ in range(5):
        client, server = await proxied.pair()
        client.reset()
        await server.rest()
    await proxied.observed.ended(5)
    assert proxied.observed.pressure == ["paused: 1 sessions, as many as are allowed"]


async def test_running_out_of_descriptors_when_clients_come(proxied: Proxied) -> None:
    """Accepting pauses, running sessions go on, and the waiting clients are served later."""
    await proxied.start()
    client, server = await proxied.pair()
    await converse(client, server)
    newcomers = [unconnected(proxied) for _ in range(5)]
    with Exhaustion() as descriptors:
        for newcomer in newcomers:
            newcomer.socket.connect_ex(proxied.address)
        await proxied.observed.until(lambda: proxied.observed.pressure == [EXHAUSTED])
        for _ in range(20):
            await converse(client, server)
        # Another failed accept is not reported again.
        descriptors.free(1)
        descriptors.take()
        await converse(client, server)
    for newcomer in newcomers:
        await newcomer.send(b"!")
        assert await (await proxied.upstream.accept()).receive(1) == b"!"
    assert proxied.observed.pressure == [EXHAUSTED]
    await proxied.observed.until(lambda: proxied.observed.pressure == [EXHAUSTED, "resumed"])
    assert proxied.observed.records == []


async def test_running_out_of_descriptors_without_a_session(proxied: Proxied) -> None:
    """Even if no session can end, evproxy tries to accept again."""
    await proxied.start()
    newcomer = unconnected(proxied)
    with Exhaustion() as descriptors:
        newcomer.socket.connect_ex(proxied.address)
        await proxied.observed.until(lambda: proxied.observed.pressure == [EXHAUSTED])
        # Descriptors that are freed during the pause are taken, too.
        descriptors.take()
        await proxied.observed.until(lambda: True)
    await newcomer.send(b"!")
    assert await (await proxied.upstream.accept()).receive(1) == b"!"


async def test_running_out_of_descriptors_while_connecting(proxied: Proxied) -> None:
    """
    A session without a descriptor for its server waits for one, and accepting pauses.

    Twisted's own transports connect by themselves; with them, only that session fails.
    """
    await proxied.start()
    client, server = await proxied.pair()
    await converse(client, server)
    newcomer, observed = unconnected(proxied), proxied.observed
    with Exhaustion() as descriptors:
        descriptors.free(1)
        newcomer.socket.connect_ex(proxied.address)
        await observed.until(lambda: bool(observed.pressure or observed.failures))
        await converse(client, server)
        if proxied.transports == "twisted":
            await observed.ended()
            assert observed.records[0].error.endswith(NO_DESCRIPTOR)
        assert observed.pressure == [EXHAUSTED]
        assert observed.failures == []
        [status] = proxied.pool.servers
        assert status.connect_failures == 0
        # The error of the first session, not the timeout.
        assert status.connect_time < 1
    if proxied.transports == "twisted":
        return
    await newcomer.send(b"!")
    assert await (await proxied.upstream.accept()).receive(1) == b"!"
    assert proxied.observed.failures == []


async def test_a_connect_that_gets_no_descriptor_in_time(proxied: Proxied) -> None:
    """The wait for a descriptor ends at the connect timeout."""
    await proxied.start(connect_timeout=0.2)
    newcomer = unconnected(proxied)
    with Exhaustion() as descriptors:
        descriptors.free(1)
        newcomer.socket.connect_ex(proxied.address)
        await proxied.observed.ended()
    record, [status] = proxied.observed.records[0], proxied.pool.servers
    assert (record.reason.by, record.reason.how) == (Side.PROXY, Ending.UNREACHABLE)
    assert record.error.endswith(NO_DESCRIPTOR)
    assert (status.connect_failures, status.connect_time, status.sessions) == (0, 0.0, 0)
    assert proxied.observed.failures == []


async def test_ports_of_others_refuse_at_the_bound(reactor: Any) -> None:
    """A port that evproxy did not make cannot pause: evproxy resets clients over the bound."""
    observed, upstream = Observed(), Listening.tcp(reactor)
    pool = Pool(reactor, [f"127.0.0.1:{upstream.port}"])
    factory = ProxyFactory(pool, max_sessions=1, observers=[observed])
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    address = ("127.0.0.1", port.getHost().port)
    client = connect(reactor, address)
    server = await upstream.accept()
    await converse(client, server)
    refused = connect(reactor, address)
    assert await refused.rest() == (b"", RESET)
    await converse(client, server)
    client.close()
    await server.rest()
    server.close()
    await observed.ended()
    again = connect(reactor, address)
    next_server = await upstream.accept()
    await converse(again, next_server)
    for each in (refused, again, upstream):
        each.close()
    await port.stopListening()
    await observed.ended(2)
    factory.admission.close()


def test_the_bound_follows_from_the_limit_on_open_files(reactor: Any) -> None:
    """The default bound on sessions fits the limit on open files, with some files to spare."""
    for open_files in 256, 1024, 20_000, 1_048_576:
        needed = 2 * sessions_for(open_files) + 2 * pipes_for(open_files) + RESERVED_FILES
        assert open_files - 2 < needed <= open_files
    assert sessions_for(16) == 1
    assert ProxyService(reactor, upstreams=["127.0.0.1:1"]).admission.limit > 1
    assert ProxyService(reactor, upstreams=["127.0.0.1:1"], max_sessions=7).admission.limit == 7


class FakePort:
    """A port that records its calls; `resume_accepting` can fail."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.error: OSError | None = None

    def pause_accepting(self) -> None:
        self.told.append("pause")

    def resume_accepting(self) -> None:
        self.told.append("resume")
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    ("number", "limit"),
    [
        (errno.EMFILE, "LimitNOFILE="),
        (errno.ENFILE, "fs.file-max"),
        (errno.ENOBUFS, "net.ipv4.tcp_mem"),
        (errno.ENOMEM, "net.ipv4.tcp_mem"),
    ],
)
def test_a_system_that_is_exhausted(number: int, limit: str) -> None:
    """If the whole system runs out (which no test may cause), accepting pauses and is retried."""
    clock, observed, port = Clock(), Observed(), FakePort()
    admission = Admission(clock, 10, Hub((observed,)))
    admission.watch(port)
    for _ in range(2):
        admission.exhausted(OSError(number, os.strerror(number)))
        assert port.told[-1] == "pause"
        clock.advance(RETRY)
        assert port.told[-1] == "resume"
    clock.advance(CALM)
    paused, resumed = observed.pressure
    assert paused.startswith("paused: ")
    assert limit in paused
    assert resumed == "resumed"
    assert clock.getDelayedCalls() == []


def test_accepting_that_cannot_be_resumed_is_tried_again() -> None:
    """If watching a port again fails for lack of a descriptor, evproxy tries again later."""
    clock, observed, port = Clock(), Observed(), FakePort()
    admission = Admission(clock, 10, Hub((observed,)))
    admission.watch(port)
    error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    port.error = error
    admission.exhausted(error)
    for _ in range(3):
        clock.advance(RETRY)
        assert port.told[-2:] == ["resume", "pause"]
    port.error = None
    clock.advance(RETRY)
    assert port.told[-1] == "resume"
    admission.close()
    assert observed.pressure == [EXHAUSTED]
    assert clock.getDelayedCalls() == []


def test_a_pause_does_not_outlive_the_stop() -> None:
    """After a stop during a pause, a new port accepts, and the next pause is reported."""
    clock, observed, port = Clock(), Observed(), FakePort()
    admission = Admission(clock, 10, Hub((observed,)))
    error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    admission.exhausted(error)
    admission.close()
    admission.watch(port)
    assert port.told == []
    admission.exhausted(error)
    assert observed.pressure == [EXHAUSTED] * 2
    admission.close()


def unconnected(proxied: Proxied) -> Peer:
    """A client that has its descriptor already, and is not connected yet."""
    peer: Peer = proxied.closes(Peer(proxied.reactor, socket.socket()))
    return peer
