"""
Proxies under test: the same proxy on each kind of relay, with an observer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
import pytest_twisted
from OpenSSL import SSL
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort

from evproxy.engine.pipes import MOST
from evproxy.faults import Faults
from evproxy.hub import Hub
from evproxy.model import UpstreamServer
from evproxy.observe.log import TroubleLog
from evproxy.observers import Observer
from evproxy.records import SessionRecord
from evproxy.relay.contract import Half, Relay, RelayListener
from evproxy.relay.pace import NO_PACES, Paces
from evproxy.relay.stages import Stage, StagesOfSession
from evproxy.session.admission import Admission
from evproxy.session.factory import ProxyFactory
from evproxy.settings import Keepalive, PoolTLS, Timeouts
from evproxy.sockets import tls_channel
from evproxy.sockets.plane import DataPlane
from evproxy.sockets.tls_server import ServerTLS
from evproxy.sockets.tls_tap import Tap
from evproxy.upstream.pool.pool import Pool
from tests.support.certificates import Certificates
from tests.support.harmless_faults import HARMLESS
from tests.support.peers import Listening, Peer, connect
from tests.support.stages import Later, Shift
from tests.support.tls import TLSPeer, context_of, server_tls
from tests.support.waiting import Waiting

KINDS = {
    # name: (relay mode, whose transports, name of the relay in the record)
    "socket": ("auto", "engine", "socket"),
    "socket-twisted": ("auto", "twisted", "socket"),
    "stream": ("stream", "engine", "stream"),
    "stream-twisted": ("stream", "twisted", "stream"),
}
"""The socket relay on evproxy's and on Twisted's transports, and the stream relay on both."""

LINGERING = {"lingering": ("auto", "engine", "socket")}
"""The engine of ``twistd evproxy``, which waits a moment for the next batch.

Tests marked ``lingering`` run on it as well."""


STAGED = {"staged": ("auto", "engine", "stream")}
"""Sessions with stages, which undo each other's changes of the bytes.

Tests marked ``staged`` run on it as well."""


FAULTED = {f"fault-{name}": ("auto", "engine", "stream") for name in HARMLESS}
"""Sessions with a fault that delays bytes, or does not come into effect.

Tests marked ``faulted`` run on it as well."""


TLS = {
    f"tls-{side}-{version}": ("auto", "engine", "socket")
    for side in ("client", "server", "both")
    for version in ("1.2", "1.3")
} | {"tls-both-hidden-1.3": ("auto", "engine", "socket")}
"""TLS that evproxy ends on the client's side, starts on the server's, or both.

Hidden: with a pyOpenSSL whose handles cannot be found, so that it makes all calls.

Tests marked ``tls`` run on it as well: those that are marked ``half_closes``, too, without TLS 1.2,
where the end of one direction ends both."""


class StagedPlane(DataPlane):
    """Gives each session its stages."""

    def join(
        self,
        downstream: Half,
        upstream: Half,
        received: bytes,
        ended: bool,
        listener: RelayListener,
        stages: Sequence[Stage] = (),
        paces: Paces = NO_PACES,
    ) -> Relay:
        stages = (Later(self.reactor), Shift(1), Shift(255))
        return super().join(downstream, upstream, received, ended, listener, stages, paces)


class Observed:
    """A `SessionObserver` that records its calls, and lets a test wait."""

    def __init__(self) -> None:
        self.records: list[SessionRecord] = []
        self.failures: list[tuple[str, str]] = []
        self.pressure: list[str] = []
        self._waiting = Waiting()

    def session_ended(self, record: SessionRecord) -> None:
        self.records.append(record)
        self._waiting.look()

    def connect_failed(self, upstream: str, error: str) -> None:
        self.failures.append((upstream, error))
        self._waiting.look()

    def accepting_paused(self, why: str) -> None:
        self.pressure.append(f"paused: {why}")
        self._waiting.look()

    def accepting_resumed(self) -> None:
        self.pressure.append("resumed")
        self._waiting.look()

    def pressure_began(self, what: str, remedy: str) -> None:
        self.pressure.append(f"{what}: {remedy}")
        self._waiting.look()

    def pressure_over(self, what: str) -> None:
        self.pressure.append(f"over: {what}")
        self._waiting.look()

    def until(self, true: Callable[[], bool]) -> Deferred[None]:
        """Return a Deferred that fires once `true` holds; checked after each call."""
        return self._waiting.until(true)

    def ended(self, count: int = 1) -> Deferred[None]:
        """Return a Deferred that fires once `count` sessions have ended."""
        return self.until(lambda: len(self.records) >= count)


class Proxied:
    """One running proxy, its peers and its observer."""

    def __init__(self, reactor: Any, kind: str, certificates: Certificates | None = None) -> None:
        self.reactor = reactor
        self.certificates = certificates
        self.tls_version = kind.rpartition("-")[2] if kind in TLS else ""
        self.kind = kind
        self.mode, self.transports, self.relay = (KINDS | LINGERING | STAGED | FAULTED | TLS)[kind]
        self.observed = Observed()
        self.upstream = Listening.tcp(reactor)
        self.server_context: SSL.Context | None = None
        if self._secures("server"):
            assert certificates is not None
            self.server_context = context_of(certificates, self.tls_version, serves=True)
            self.upstream.peer = partial(TLSPeer, context=self.server_context, serves=True)
        self.address: Any = None
        self.factory: ProxyFactory
        self._closing: list[Any] = [self.upstream]
        self._ports: list[IListeningPort] = []

    async def start(
        self,
        *,
        listen: str = "tcp:0:interface=127.0.0.1",
        upstreams: Sequence[str | UpstreamServer] | None = None,
        timeouts: Timeouts | None = None,
        max_sessions: int = 10_000,
        factory: type[ProxyFactory] = ProxyFactory,
        most_pipes: int = MOST,
        keepalive: Keepalive | None = None,
        stages: Sequence[StagesOfSession] = (),
        observers: Sequence[Observer] = (),
        accept_proxy_protocol_from: Sequence[str] = (),
        listener_tls: Mapping[str, Any] | None = None,
        inside_tls: bool = False,
        tap: Callable[[int, Any], Tap] | None = None,
        wrap: Callable[[ProxyFactory], Any] = lambda factory: factory,
        **pool: Any,
    ) -> None:
        """
        Proxy from `listen` to `upstreams`, by default to `upstream`.

        `wrap` may wrap the proxy's factory before it listens.  The `observers` are notified before
        `observed`.
        """
        if upstreams is None:
            upstreams = [f"127.0.0.1:{self.upstream.port}"]
        if self._secures("server"):
            assert self.certificates is not None
            trusted = PoolTLS(server_name="127.0.0.1", ca=f"{self.certificates.authorities}/ca.pem")
            pool.setdefault("tls", trusted)
        self.pool = Pool(self.reactor, upstreams, observer=TroubleLog(), **pool)
        hub = Hub((*observers, self.observed))
        self.admission = Admission(self.reactor, max_sessions, hub)
        plane = StagedPlane if self.kind in STAGED else DataPlane
        self.plane = plane(
            self.reactor,
            self.mode,
            self.admission,
            keepalive or Keepalive(),
            most_pipes=most_pipes,
            transports=self.transports,
        )
        if self.kind in LINGERING:
            self.plane.linger()
        self.factory = factory(
            self.pool,
            reactor=self.reactor,
            listener="test",
            timeouts=timeouts or Timeouts(),
            accept_proxy_protocol_from=accept_proxy_protocol_from,
            tls=self._tls_with_clients({"keeps_keys": tap is not None, **(listener_tls or {})}),
            inside_tls=inside_tls,
            tap=tap,
            hub=hub,
            admission=self.admission,
            plane=self.plane,
            stages=[*stages, *self._faults()],
        )
        self.pool.start()
        port = await serverFromString(self.plane.listening, listen).listen(wrap(self.factory))
        self._ports.append(port)
        host: Any = port.getHost()
        self.address = (host.host, host.port) if hasattr(host, "host") else host.name.decode()

    def _faults(self) -> list[StagesOfSession]:
        name = self.kind.removeprefix("fault-")
        return [Faults(self.reactor, HARMLESS[name], seed=1)] if self.kind in FAULTED else []

    def _secures(self, side: str) -> bool:
        return self.kind.startswith((f"tls-{side}", "tls-both"))

    def _tls_with_clients(self, settings: Mapping[str, Any]) -> ServerTLS | None:
        if not self._secures("client"):
            return None
        assert self.certificates is not None
        return server_tls(self.certificates, **settings)

    def client(self) -> Peer:
        """Return a client connected to the proxy."""
        peer = connect(self.reactor, self.address)
        if self._secures("client"):
            assert self.certificates is not None
            context = context_of(self.certificates, self.tls_version, serves=False)
            peer = TLSPeer(self.reactor, peer.socket, context, serves=False)
        self._closing.append(peer)
        return peer

    async def pair(self) -> tuple[Peer, Peer]:
        """Return a client, and its server behind the proxy."""
        client = self.client()
        server = await self.upstream.accept()
        for peer in (client, server):
            if isinstance(peer, TLSPeer):
                await peer.ready()
        return client, server

    def closes(self, what: Any) -> Any:
        """Close `what` when the test is over."""
        self._closing.append(what)
        return what

    async def stop(self) -> None:
        """End everything, and check that the proxy has no session afterwards."""
        for each in self._closing:
            each.close()
        for port in self._ports:
            await maybeDeferred(port.stopListening)
        if self._ports:
            await self.admission.sessions.when_empty()
            await self.factory.mirrors.close()
            assert self.factory.mirrors.kept == 0
            self.pool.stop()
            self.admission.close()
            self.plane.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test of a proxy on every kind, unless the test names its kinds."""
    if "proxied" not in metafunc.fixturenames:
        return
    said = metafunc.definition.iter_markers("parametrize")
    if not any(mark.args[0] == "proxied" for mark in said):
        lingering = LINGERING if metafunc.definition.get_closest_marker("lingering") else {}
        staged = STAGED if metafunc.definition.get_closest_marker("staged") else {}
        faulted = FAULTED if metafunc.definition.get_closest_marker("faulted") else {}
        if "EVPROXY_TEST_REACTOR" in os.environ:
            # One set of faults has every timer that there is.
            faulted = {kind: how for kind, how in faulted.items() if kind == "fault-all"}
        secured = TLS if metafunc.definition.get_closest_marker("tls") else {}
        if metafunc.definition.get_closest_marker("half_closes"):
            secured = {kind: how for kind, how in secured.items() if not kind.endswith("1.2")}
        kinds = [*KINDS, *lingering, *staged, *faulted, *secured]
        metafunc.parametrize("proxied", kinds, indirect=True)


@pytest.fixture
def proxied(request: pytest.FixtureRequest, reactor: Any) -> Iterator[Proxied]:
    """A proxy of one kind, which the test starts, and which stops after the test."""
    kind = request.param
    if "hidden" in kind:
        request.getfixturevalue("monkeypatch").setattr(tls_channel, "handle_of", lambda _: None)
    certificates = request.getfixturevalue("certificates") if kind in TLS else None
    proxied = Proxied(reactor, kind, certificates)
    yield proxied
    pytest_twisted.blockon(Deferred.fromCoroutine(proxied.stop()).addTimeout(20, reactor))
