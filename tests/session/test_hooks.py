"""An exception in a user's code ends its own session, and affects no other session."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IConnector
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from evproxy.model import ConnectionInfo, Ending, Side
from evproxy.records import SessionRecord
from evproxy.session.factory import ProxyFactory
from evproxy.session.halves import DownstreamProtocol, UpstreamFactory, UpstreamProtocol
from tests.support.bulk import ENDLESS
from tests.support.certificates import Certificates
from tests.support.leaks import LoggedErrors
from tests.support.peers import END, RESET, converse, turn
from tests.support.proxies import Proxied
from tests.support.secured import Secured, SecuredPeer
from tests.support.unreachable import Refusing, Unanswered


class Broken(Exception):
    """The exception that the hooks of these tests raise."""


class Switch:
    """Makes hooks that work until the switch is turned on, and then raise `kind`."""

    def __init__(self, kind: type[BaseException] = Broken) -> None:
        self.on = False
        self._kind = kind

    def look(self) -> None:
        if self.on:
            raise self._kind("on purpose")

    def before(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return `method`, which raises before it does anything."""

        def broken(*arguments: Any) -> Any:
            self.look()
            return method(*arguments)

        return broken

    def after(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return `method`, which raises after its work."""

        def broken(*arguments: Any) -> Any:
            result = method(*arguments)
            self.look()
            return result

        return broken


Breaks = Callable[[Callable[..., Any]], Callable[..., Any]]


def downstream_build(breaks: Breaks) -> type[ProxyFactory]:
    """A factory whose ``buildProtocol`` breaks."""

    class Custom(ProxyFactory):
        buildProtocol = breaks(ProxyFactory.buildProtocol)

    return Custom


def downstream_made(breaks: Breaks) -> type[ProxyFactory]:
    """A factory whose protocols' ``connectionMade`` breaks."""

    class Custom(ProxyFactory):
        def buildProtocol(self, addr: Any) -> Any:
            protocol = super().buildProtocol(addr)
            protocol.connectionMade = breaks(protocol.connectionMade)
            return protocol

    return Custom


def upstream_factory(breaks: Breaks) -> type[ProxyFactory]:
    """A factory whose upstream factory cannot be made."""

    class Custom(ProxyFactory):
        upstream_factory = staticmethod(breaks(UpstreamFactory))

    return Custom


def upstream_build(breaks: Breaks) -> type[ProxyFactory]:
    """A factory whose upstream factory's ``buildProtocol`` breaks."""

    class Upstreams(UpstreamFactory):
        buildProtocol = breaks(UpstreamFactory.buildProtocol)

    class Custom(ProxyFactory):
        upstream_factory = Upstreams

    return Custom


def upstream_made(breaks: Breaks) -> type[ProxyFactory]:
    """A factory whose upstream protocols' ``connectionMade`` breaks."""

    class Upstreams(UpstreamFactory):
        def buildProtocol(self, addr: Any) -> Any:
            protocol = super().buildProtocol(addr)
            protocol.connectionMade = breaks(protocol.connectionMade)
            return protocol

    class Custom(ProxyFactory):
        upstream_factory = Upstreams

    return Custom


pytestmark = pytest.mark.deadline(10)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "hook", [downstream_build, downstream_made, upstream_factory, upstream_build, upstream_made]
)
async def test_a_broken_protocol_or_factory(
    proxied: Proxied,
    logged_errors: LoggedErrors,
    hook: Callable[[Breaks], type[ProxyFactory]],
    when: str,
) -> None:
    """evproxy resets the client and logs the traceback; no other session is affected."""
    switch = Switch()
    await proxied.start(factory=hook(getattr(switch, when)))
    await breaks_alone(proxied, switch, logged_errors)


class Unheard(DownstreamProtocol):
    """A client's half whose ``connectionLost`` raises, and notifies nobody."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        raise Broken("on purpose")


class UnheardFactory(ProxyFactory):
    protocol = Unheard


async def leaves_while_connecting(proxied: Proxied, logged_errors: LoggedErrors) -> None:
    """Check that a client that leaves early leaves no session, and that its hook logs one error."""
    client = proxied.client()
    await client.send(b"x")
    while not proxied.admission.sessions:
        await turn(proxied.reactor)
    client.reset()
    await proxied.admission.sessions.when_empty()
    await turn(proxied.reactor)
    assert len(logged_errors.flush()) == 1


async def test_a_hook_that_breaks_when_its_client_leaves(
    proxied: Proxied, logged_errors: LoggedErrors, unanswered: Unanswered
) -> None:
    """If the hook raises when a client leaves before the connect, the session still ends."""
    await proxied.start(upstreams=[unanswered.name], factory=UnheardFactory)
    await leaves_while_connecting(proxied, logged_errors)


async def test_such_a_hook_of_a_tls_client(
    secured: Secured, logged_errors: LoggedErrors, unanswered: Unanswered
) -> None:
    """The session of a TLS client, on a transport of Twisted's own, still ends."""
    pem, proxied = secured.certificates.pem, secured.proxied
    await proxied.start(
        listen=f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}",
        upstreams=[unanswered.name],
        factory=UnheardFactory,
    )
    client = SecuredPeer(proxied.client(), secured.certificates.client)
    await client.handshake()
    await client.send(b"x")
    client.peer.reset()
    await proxied.admission.sessions.when_empty()
    await turn(proxied.reactor)
    assert len(logged_errors.flush()) == 1


async def test_such_a_hook_behind_a_descriptor_of_systemd(
    proxied: Proxied, logged_errors: LoggedErrors, inherited: Any, unanswered: Unanswered
) -> None:
    """The session of a client of a ``systemd:`` listener still ends."""
    await proxied.start(
        listen="systemd:domain=INET:index=0", upstreams=[unanswered.name], factory=UnheardFactory
    )
    await leaves_while_connecting(proxied, logged_errors)


async def test_hooks_that_break_when_a_session_ends(
    proxied: Proxied, logged_errors: LoggedErrors
) -> None:
    """A relayed session ends as usual, even if ``connectionLost`` of both halves raises."""

    class Breaks:
        def connectionLost(self, reason: Failure = connectionDone) -> None:
            raise Broken("on purpose")

    class Downstream(Breaks, DownstreamProtocol):
        """Has it from another class."""

    class Upstream(Breaks, UpstreamProtocol):
        """Has it from another class."""

    class Upstreams(UpstreamFactory):
        protocol = Upstream

    class Custom(ProxyFactory):
        protocol = Downstream
        upstream_factory = Upstreams

    await proxied.start(factory=Custom)
    client, server = await proxied.pair()
    await converse(client, server)
    client.end()
    assert await server.rest() == (b"", END)
    server.end()
    assert await client.rest() == (b"", END)
    await proxied.admission.sessions.when_empty()
    await turn(proxied.reactor)
    assert [each.reason.how for each in proxied.observed.records] == [Ending.FINISHED]
    # The socket relay notifies both halves in one call: one traceback is the other's context.
    assert logged_errors.flush()


async def test_a_hook_that_breaks_when_its_server_is_lost_in_the_handshake(
    proxied: Proxied, certificates: Certificates, logged_errors: LoggedErrors
) -> None:
    """The attempt fails at its timeout, and the session goes on with the next server."""

    class Upstream(UpstreamProtocol):
        def connectionLost(self, reason: Failure = connectionDone) -> None:
            raise Broken("on purpose")

    class Upstreams(UpstreamFactory):
        protocol = Upstream

    class Custom(ProxyFactory):
        upstream_factory = Upstreams

    port, trusted = proxied.upstream.port, certificates.authorities
    await proxied.start(
        upstreams=[f"tls:127.0.0.1:{port}:trustRoots={trusted}"],
        factory=Custom,
        connect_timeout=0.3,
    )
    client, server = await proxied.pair()
    # The client's part of the handshake.
    assert await server.some()
    server.reset()
    assert await client.rest() == (b"", RESET)
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.UNREACHABLE
    assert len(proxied.observed.failures) == 1
    await turn(proxied.reactor)
    assert len(logged_errors.flush()) == 1


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, CancelledError])
async def test_a_hook_that_raises_what_nobody_catches(
    proxied: Proxied, logged_errors: LoggedErrors, kind: type[BaseException]
) -> None:
    """Even a `BaseException` ends only its own session."""
    switch = Switch(kind)
    await proxied.start(factory=downstream_made(switch.before))
    await breaks_alone(proxied, switch, logged_errors)


@pytest.mark.parametrize("proxied", ["socket", "stream"], indirect=True)
async def test_bytes_that_raise_what_nobody_catches(
    proxied: Proxied, logged_errors: LoggedErrors, unanswered: Any
) -> None:
    """A hook that raises on early bytes ends only its own session, and the proxy goes on."""

    class Downstream(DownstreamProtocol):
        def dataReceived(self, data: bytes) -> None:
            if data == b"exit":
                raise SystemExit("on purpose")

    class Custom(ProxyFactory):
        protocol = Downstream

    await proxied.start(upstreams=[unanswered.name], factory=Custom)
    client, other = proxied.client(), proxied.client()
    await client.send(b"exit")
    assert await client.rest() == (b"", RESET)
    assert len(logged_errors.flush(SystemExit)) == 1
    await proxied.observed.ended()
    [record] = proxied.observed.records
    assert (record.reason.by, record.reason.how) == (Side.PROXY, Ending.ERROR)
    other.reset()
    await proxied.admission.sessions.when_empty()


async def test_a_hook_that_begins_when_it_has_seen_a_line(proxied: Proxied) -> None:
    """The bytes that the hook has read come before the bytes that the client sends later."""

    class Downstream(DownstreamProtocol):
        seen: bytes | None = b""

        def connectionMade(self) -> None:
            """Do not begin the session yet."""

        def dataReceived(self, data: bytes) -> None:
            if self.seen is None:
                super().dataReceived(data)
                return
            self.seen += data
            if b"\n" in self.seen:
                seen, self.seen = self.seen, None
                super().connectionMade()
                super().dataReceived(seen)

    class Custom(ProxyFactory):
        protocol = Downstream

    await proxied.start(factory=Custom)
    client = proxied.client()
    says = b"line\n" + bytes(ENDLESS[:200_000])
    await client.send(says)
    client.end()
    server = await proxied.upstream.accept()
    assert await server.rest() == (says, END)
    server.end()
    assert await client.rest() == (b"", END)
    await proxied.observed.ended()


async def test_a_hook_that_says_something_first(proxied: Proxied) -> None:
    """The hook's own bytes come before the bytes of the client."""

    class Downstream(DownstreamProtocol):
        def connectionMade(self) -> None:
            super().connectionMade()
            self.dataReceived(b"header\n")

    class Custom(ProxyFactory):
        protocol = Downstream

    await proxied.start(factory=Custom)
    client = proxied.client()
    client.send_now(b"question")
    client.end()
    server = await proxied.upstream.accept()
    assert await server.rest() == (b"header\nquestion", END)
    server.end()
    assert await client.rest() == (b"", END)
    await proxied.observed.ended()


@pytest.mark.parametrize("proxied", ["socket", "stream"], indirect=True)
async def test_an_upstream_factory_that_makes_no_protocol(proxied: Proxied) -> None:
    """Twisted lets a factory refuse with ``None``: the client is reset, and the log says why."""

    class Upstreams(UpstreamFactory):
        def buildProtocol(self, addr: Any) -> Any:
            return None

    class Custom(ProxyFactory):
        upstream_factory = Upstreams

    await proxied.start(factory=Custom)
    assert await proxied.client().rest() == (b"", RESET)
    await proxied.observed.ended()
    [record] = proxied.observed.records
    assert record.reason.how is Ending.UNREACHABLE
    assert "made no protocol" in record.error


async def test_a_hook_that_hears_of_a_failed_connect(proxied: Proxied, refusing: Refusing) -> None:
    """The session goes on to the next server if the hook calls the method that it overrides."""
    heard = []

    class Upstreams(UpstreamFactory):
        def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
            heard.append(reason.type)
            super().clientConnectionFailed(connector, reason)

    class Custom(ProxyFactory):
        upstream_factory = Upstreams

    await proxied.start(
        upstreams=[refusing(), f"127.0.0.1:{proxied.upstream.port}"], factory=Custom
    )
    client, server = await proxied.pair()
    await converse(client, server)
    assert heard == [ConnectionRefusedError]
    assert [each.sessions for each in proxied.pool.servers] == [0, 1]


@pytest.mark.parametrize("raises", [True, False])
async def test_a_hook_that_hides_a_failed_connect(
    proxied: Proxied, logged_errors: LoggedErrors, refusing: Refusing, raises: bool
) -> None:
    """The session ends when its client leaves, and gives up the server."""

    class Upstreams(UpstreamFactory):
        def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
            if raises:
                raise Broken("on purpose")

    class Custom(ProxyFactory):
        upstream_factory = Upstreams

    await proxied.start(upstreams=[refusing()], factory=Custom)
    client = proxied.client()
    while not (proxied.admission.sessions or proxied.observed.records):
        await turn(proxied.reactor)
    await turn(proxied.reactor)
    client.reset()
    await proxied.observed.ended()
    await proxied.admission.sessions.when_empty()
    assert proxied.observed.records[0].reason.how in (Ending.LEFT, Ending.ERROR)
    assert [each.sessions for each in proxied.pool.servers] == [0]
    # Twisted's connector raises, too: it is not connecting any more when evproxy stops it.
    logged_errors.flush()


async def test_what_is_left_of_an_attempt_counts_for_no_other(
    proxied: Proxied, logged_errors: LoggedErrors, unanswered: Unanswered
) -> None:
    """If a hook raises on one server, the loss of that connection does not affect the next one."""
    switch = Switch()
    first = f"127.0.0.1:{proxied.upstream.port}"
    await proxied.start(
        factory=upstream_made(switch.before), upstreams=[first, unanswered.name], connect_timeout=60
    )
    switch.on = True
    client = proxied.client()
    await client.send(b"?")
    await proxied.observed.until(lambda: bool(proxied.observed.failures))
    if "twisted" in proxied.kind:
        assert (await (await proxied.upstream.accept()).rest())[0] == b""
    else:
        # It was reset before the server had the acknowledgement of its handshake.
        assert proxied.upstream.nobody_waits()
    for _ in range(3):
        await turn(proxied.reactor)
    [session] = proxied.admission.sessions
    assert session.server is not None
    assert (session.server.name, session.attempts) == (unanswered.name, 2)
    client.reset()
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.LEFT
    assert [name for name, _ in proxied.observed.failures] == [first]
    assert [(each.sessions, each.connect_failures) for each in proxied.pool.servers] == [
        (0, 1),
        (0, 0),
    ]
    assert "on purpose" in "\n".join(logged_errors.describe())
    logged_errors.flush()


async def test_a_broken_pool(proxied: Proxied, logged_errors: LoggedErrors) -> None:
    """A pool whose `candidates` raises ends only its own session."""
    switch = Switch()
    await proxied.start()
    pool: Any = proxied.pool
    pool.candidates = switch.before(pool.candidates)
    await breaks_alone(proxied, switch, logged_errors)
    assert [each.reason.how for each in proxied.observed.records] == [Ending.ERROR]


async def test_a_pool_that_cannot_let_go(
    proxied: Proxied, logged_errors: LoggedErrors, unanswered: Unanswered
) -> None:
    """If `abandoned` of a pool raises after a client has left, the session still ends."""
    switch = Switch()
    await proxied.start(upstreams=[unanswered.name])
    pool: Any = proxied.pool
    pool.abandoned = switch.after(pool.abandoned)
    await leaves_nothing(proxied, switch, logged_errors)
    assert [server.sessions for server in pool.servers] == [0]


async def test_a_connect_that_cannot_be_stopped(
    proxied: Proxied, logged_errors: LoggedErrors
) -> None:
    """If `stopConnecting` raises, the session still ends, and the server's slot is free again."""
    switch = Switch()
    await proxied.start()
    pool: Any = proxied.pool
    for server in pool.candidates(info=None):
        server.dialer = Unstoppable(switch)
    await leaves_nothing(proxied, switch, logged_errors)
    assert [server.sessions for server in pool.servers] == [0]


async def test_a_place_in_the_line_that_cannot_be_given_up(
    proxied: Proxied, logged_errors: LoggedErrors
) -> None:
    """If `cancel` of a pool's waiter raises, the session still ends."""
    switch = Switch()
    await proxied.start()
    pool: Any = proxied.pool
    pool.candidates = lambda info: iter(())
    pool.wait = lambda info, ready, gave_up, tried: Unstoppable(switch)
    await leaves_nothing(proxied, switch, logged_errors)


async def test_a_broken_balancer(proxied: Proxied, logged_errors: LoggedErrors) -> None:
    """A balancer that raises ends only its own session, even if it raises at a late candidate."""
    switch = Switch()
    await proxied.start(balance=BrokenBalancer(switch))
    await breaks_alone(proxied, switch, logged_errors)
    assert [each.reason.how for each in proxied.observed.records] == [Ending.ERROR]


async def test_a_broken_observer(proxied: Proxied, logged_errors: LoggedErrors) -> None:
    """If an observer raises when a session ends, the exception is logged, and the session ends."""
    switch = Switch()
    await proxied.start()
    proxied.factory.context.hub.add(BrokenObserver(switch))
    client, server = await proxied.pair()
    one, other = await proxied.pair()
    switch.on = True
    client.end()
    assert await server.rest() == (b"", END)
    server.end()
    assert await client.rest() == (b"", END)
    await proxied.observed.ended()
    assert len(logged_errors.flush(Broken)) == 1
    await converse(one, other)
    one.reset()
    await other.rest()
    await proxied.admission.sessions.when_empty()
    assert len(logged_errors.flush(Broken)) == 1


async def test_a_broken_observer_is_no_matter_of_the_others(
    proxied: Proxied, logged_errors: LoggedErrors
) -> None:
    """Observers after a broken one are notified of the session's end too."""
    switch = Switch()
    await proxied.start(observers=[BrokenObserver(switch)])
    client, server = await proxied.pair()
    switch.on = True
    client.reset()
    await server.rest()
    await proxied.admission.sessions.when_empty()
    logged_errors.flush(Broken)
    assert len(proxied.observed.records) == 1


async def test_a_broken_observer_of_troubles(proxied: Proxied, logged_errors: LoggedErrors) -> None:
    """If an observer raises when accepting pauses, clients are still served."""
    switch = Switch()
    switch.on = True
    await proxied.start(max_sessions=1, observers=[BrokenObserver(switch)])
    client, server = await proxied.pair()
    await converse(client, server)
    assert len(logged_errors.flush(Broken)) == 1
    assert len(proxied.observed.pressure) == 1
    switch.on = False


async def leaves_nothing(proxied: Proxied, switch: Switch, logged_errors: LoggedErrors) -> None:
    """Check that a session ends when its client leaves, even though a hook raises then."""
    switch.on = True
    client = proxied.client()
    await client.send(b"?")
    while not proxied.admission.sessions:
        await turn(proxied.reactor)
    client.reset()
    await proxied.observed.ended()
    assert proxied.observed.records[0].reason.how is Ending.LEFT
    await proxied.admission.sessions.when_empty()
    assert len(logged_errors.flush(Broken)) == 1


async def breaks_alone(proxied: Proxied, switch: Switch, logged_errors: LoggedErrors) -> None:
    """Check that of three sessions, only the one with the broken hook is affected."""
    client, server = await proxied.pair()
    await converse(client, server)
    switch.on = True
    assert await proxied.client().rest() == (b"", RESET)
    assert "on purpose" in "\n".join(logged_errors.describe())
    logged_errors.flush()
    switch.on = False
    while not proxied.upstream.nobody_waits():
        """The broken session may have been connected."""
    await converse(client, server)
    another, another_server = await proxied.pair()
    await converse(another, another_server)
    assert len(proxied.admission.sessions) == 2


class Unstoppable:
    """A dialer that never connects, a connector and a waiter, whose cancel methods raise."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch

    def connect(self, factory: Any, timeout: float, sockets: Any) -> Any:
        return self

    def stopConnecting(self) -> None:
        self._switch.look()

    cancel = stopConnecting


class BrokenBalancer:
    """A balancer that returns the servers in their order, and can raise."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch
        self._servers: list[Any] = []

    def update(self, servers: Any) -> None:
        self._servers = list(servers)

    def candidates(self, info: ConnectionInfo) -> Iterator[Any]:
        self._switch.look()
        yield from self._servers


class BrokenObserver:
    """An observer whose methods do nothing, or raise."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch

    def session_ended(self, record: SessionRecord) -> None:
        self._switch.look()

    def connect_failed(self, upstream: str, error: str) -> None:
        self._switch.look()

    def accepting_paused(self, why: str) -> None:
        self._switch.look()

    def accepting_resumed(self) -> None:
        self._switch.look()
