"""Servers from an etcd that misbehaves, and stopping at every moment."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import capturedLogs
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import directlyProvides, providedBy

from evproxy.upstream.discovery.etcd_client import EtcdClient
from evproxy.upstream.discovery.etcd_wire import SIZE_LIMIT
from evproxy.upstream.names import Names
from evproxy.upstream.resolving import ResolvingReactor
from tests.support.discovery_recorder import Told
from tests.support.etcd_gateway import OFTEN, PREFIX, Gateway, encoded, watching
from tests.support.look_ups import look_ups
from tests.support.peers import turn
from tests.support.real_servers import free_port
from tests.support.visited_server import Visits, listening

Serve = Callable[[Gateway], str]


@pytest.fixture
def serve(reactor: Any) -> Iterator[Serve]:
    """Serves a gateway on a loopback port and tells its URL."""
    ports: list[IListeningPort] = []

    def serving(gateway: Gateway) -> str:
        port = reactor.listenTCP(0, gateway.site(), interface="127.0.0.1")
        ports.append(port)
        return f"http://127.0.0.1:{port.getHost().port}/"

    yield serving
    for port in ports:
        port.stopListening()


def put(name: str, endpoint: str) -> bytes:
    """A line of a watch that says that a key was put."""
    kv = {"key": encoded(PREFIX + name), "value": encoded(json.dumps(endpoint))}
    return json.dumps({"result": {"events": [{"kv": kv}]}}).encode() + b"\n"


async def test_byte_by_byte(reactor: Any, serve: Serve) -> None:
    """Changes arrive whole, however they are cut."""
    gateway = Gateway({"a": "a:1"})
    told, discovery = watching(reactor, [serve(gateway)])
    await gateway.until(lambda: bool(gateway.watches))
    for byte in put("b", "b:1") + put("c", "c:1"):
        gateway.watches[0].write(bytes([byte]))
        turned: Deferred[None] = Deferred()
        reactor.callLater(0, turned.callback, None)
        await turned
    await told.servers("a:1", "b:1", "c:1")
    discovery.stop()
    assert told.failures == []


async def test_compaction_reads_again(reactor: Any, serve: Serve) -> None:
    """When the revision to watch from is compacted, all keys are read again."""
    gateway = Gateway({"a": "a:1"})

    def compacted(request: Request) -> bytes:
        gateway.keys = {"b": "b:1"}
        gateway.on_watch = None
        return b'{"result": {"canceled": true, "compact_revision": "9"}}\n'

    gateway.on_watch = compacted
    told, discovery = watching(reactor, [serve(gateway)])
    await told.servers("b:1")
    discovery.stop()


async def test_watch_ends_at_once(reactor: Any, serve: Serve) -> None:
    """Where watches do not work keys are still read, ever more rarely, and it is told once."""
    gateway = Gateway({"a": "a:1"}, on_watch=lambda request: b"")
    url = serve(gateway)
    told, discovery = watching(reactor, [url])
    assert await told.problem() == f"{url}: the watch ended"
    began, ranges = reactor.seconds(), gateway.ranges
    gateway.keys["b"] = "b:1"
    await told.servers("a:1", "b:1")
    await gateway.until(lambda: gateway.ranges == ranges + 3)
    assert reactor.seconds() - began >= 3 * OFTEN
    discovery.stop()
    assert (len(told.sets), told.failures) == (3, [])


async def test_watch_that_ended_before_a_failure(reactor: Any, serve: Serve) -> None:
    """Once keys can be read again, how the watch ended before that is no news."""
    gateway = Gateway({"a": "a:1"}, on_watch=lambda request: b"")
    url = serve(gateway)
    told, discovery = watching(reactor, [url])
    assert await told.problem() == f"{url}: the watch ended"
    gateway.on_range = lambda request: b"<html>"
    assert await told.failure() == f"{url}: the answer is not an etcd answer"
    gateway.on_range = gateway.on_watch = None
    await told.until(lambda: not told.problems)
    await gateway.until(lambda: bool(gateway.watches))
    gateway.watches[-1].write(put("b", "b:1"))
    await told.servers("a:1", "b:1")
    discovery.stop()
    assert told.failures[-1] == f"{url}: the answer is not an etcd answer"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"<html>", "the answer is not an etcd answer"),
        (b"{}", "the answer is not an etcd answer"),
        (b" " * (SIZE_LIMIT + 1), f"the answer is longer than {SIZE_LIMIT} bytes"),
    ],
)
async def test_bad_answer(reactor: Any, serve: Serve, answer: bytes, reason: str) -> None:
    """An answer that is not etcd's, or never ends, is a failure."""
    url = serve(Gateway(on_range=lambda request: answer))
    told, discovery = watching(reactor, [url])
    assert await told.failure() == f"{url}: {reason}"
    discovery.stop()


async def test_refused(reactor: Any, serve: Serve) -> None:
    """A member that cannot answer now says why, and the next is asked."""

    def no_leader(request: Request) -> bytes:
        request.setResponseCode(503)
        return b'{"error": "etcdserver: no leader"}'

    first, second = serve(Gateway(on_range=no_leader)), serve(Gateway(on_range=no_leader))
    told, discovery = watching(reactor, [first, second])
    reason = "status 503: etcdserver: no leader"
    assert await told.failure() == f"{first}: {reason}; {second}: {reason}"
    discovery.stop()


async def test_nonsense_while_watching(reactor: Any, serve: Serve) -> None:
    """A watch that speaks nonsense is left, and the keys are read again."""
    gateway = Gateway({"a": "a:1"})
    gateway.on_watch = lambda request: b"nonsense\n"
    url = serve(gateway)
    told, discovery = watching(reactor, [url], interval=4 * OFTEN)
    assert await told.problem() == f"{url}: a line of the watch is not an etcd answer"
    gateway.on_watch = None
    await told.until(lambda: not told.problems)
    discovery.stop()


async def test_stop_while_reading(reactor: Any, serve: Serve) -> None:
    """Stopped while it waits for the keys, it leaves nothing and tells nothing."""
    gateway = Gateway(on_range=lambda request: NOT_DONE_YET)
    told, discovery = watching(reactor, [serve(gateway)])
    await gateway.until(lambda: gateway.ranges == 1)
    discovery.stop()
    discovery.stop()
    assert told == Told()


async def test_stop_while_watching(reactor: Any, serve: Serve) -> None:
    """Stopped while it watches, it closes the connection and tells nothing more."""
    gateway = Gateway({"a": "a:1"})
    told, discovery = watching(reactor, [serve(gateway)])
    await gateway.until(lambda: bool(gateway.watches))
    gateway.watches[0].write(put("b", "b:1"))
    await told.servers("a:1", "b:1")
    discovery.stop()
    await gateway.until(lambda: gateway.left == 1)
    assert len(told.sets) == 2


async def test_stop_while_connecting(reactor: Any) -> None:
    """Stopped before it is connected, or between two tries, it leaves nothing."""
    url = f"http://127.0.0.1:{free_port()}"
    told, discovery = watching(reactor, [url], interval=100.0, min_interval=100.0)
    discovery.stop()
    assert told == Told()
    told, discovery = watching(reactor, [url], interval=100.0, min_interval=100.0)
    await told.failure()
    discovery.stop()


async def test_requests_log_nothing(reactor: Any) -> None:
    """A request is no line in the log, and neither are its start and its end."""
    body = b'{"header": {"revision": "7"}}'
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    etcd = Visits(answer=head + body)
    with listening(reactor) as listen:
        client = EtcdClient(reactor, f"http://{listen(etcd)}", PREFIX)
        with capturedLogs() as events:
            assert (await client.read()).revision == 7
            await etcd.ended()
        assert events == []


async def test_a_member_by_name(reactor: Any, serve: Serve) -> None:
    """A member's name is resolved where those of servers are, and once."""
    gateway = Gateway({"a": "a:1"}, on_watch=lambda request: b"")
    url = serve(gateway).replace("127.0.0.1", "etcd.test")
    with look_ups() as asked:
        resolving = ResolvingReactor(reactor, Names(reactor, look_up=asked))
        told, discovery = watching(resolving, [url])
        await gateway.until(lambda: gateway.ranges >= 3)
        discovery.stop()
        assert asked.asked == ["etcd.test"]
    assert told.endpoints() == ["a:1"]


async def test_a_stop_before_the_watch_is_answered(reactor: Any, serve: Serve) -> None:
    """Nothing is begun again; a timer or a connection that is left fails the test."""
    gateway = Gateway({"a": "a:1"}, on_watch=lambda request: NOT_DONE_YET)
    told, discovery = watching(reactor, [serve(gateway)])
    await told.servers("a:1")
    discovery.stop()
    await turn(reactor)
    assert gateway.ranges == 1


class Redirected:
    """A reactor that connects to a port of loopback, whatever it is asked for."""

    def __init__(self, reactor: Any, port: int) -> None:
        self._reactor = reactor
        self._port = port
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def connectTCP(self, host: str, port: int, factory: Any, *arguments: Any) -> Any:
        return self._reactor.connectTCP("127.0.0.1", self._port, factory)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://[fe80::1%lo]:2379", "[fe80::1]:2379"),
        ("http://[fe80::1]:2379/", "[fe80::1]:2379"),
        ("http://10.0.0.1", "10.0.0.1"),
    ],
)
async def test_a_host_header_has_no_zone(reactor: Any, serve: Serve, url: str, host: str) -> None:
    """The zone of an IPv6 address is this machine's own business."""
    hosts: list[str | None] = []

    def answer(request: Request) -> bytes:
        hosts.append(request.getHeader("host"))
        return b'{"header": {"revision": "1"}}'

    port = urlsplit(serve(Gateway(on_range=answer))).port
    assert port is not None
    redirected = Redirected(reactor, port)
    await EtcdClient(ResolvingReactor(redirected, Names(reactor)), url, PREFIX).read()
    assert hosts == [host]
