"""An exception in code of a user ends the session that it happens in, and is no other's matter."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IConnector
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from evproxy.model import ConnectionInfo, Ending, SessionRecord, Side
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
    """What a hook of these tests raises."""


class Switch:
    """Makes hooks that work until it is turned on, and raise `kind` then."""

    def __init__(self, kind: type[BaseException] = Broken) -> None:
        self.on = False
        self._kind = kind

    def look(self) -> None:
        if self.on:
            raise self._kind("on purpose")

    def before(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """`method`, which breaks before it has done anything."""

        def broken(*arguments: Any) -> Any:
            self.look()
            return method(*arguments)

        return broken

    def after(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """`method`, which breaks when it has done its work."""

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
    """The client is reset, the traceback is logged, and every other session is unharmed."""
    switch = Switch()
    await proxied.start(factory=hook(getattr(switch, when)))
    await breaks_alone(proxied, switch, logged_errors)


class Unheard(DownstreamProtocol):
    """A client's half that breaks, and tells nobody, when its connection is lost."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        raise Broken("on purpose")


class UnheardFactory(ProxyFactory):
    protocol = Unheard


async def leaves_while_connecting(proxied: Proxied, logged_errors: LoggedErrors) -> None:
    """A client that leaves before it has a server leaves no session, and its hook one error."""
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
    """A client that leaves while it is being connected frees its session all the same."""
    await proxied.start(upstreams=[unanswered.name], factory=UnheardFactory)
    await leaves_while_connecting(proxied, logged_errors)


async def test_such_a_hook_of_a_tls_client(
    secured: Secured, logged_errors: LoggedErrors, unanswered: Unanswered
) -> None:
    """So does one whose connection is Twisted's, because it speaks TLS."""
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
    """Or because the port is."""
    await proxied.start(
        listen="systemd:domain=INET:index=0", upstreams=[unanswered.name], factory=UnheardFactory
    )
    await leaves_while_connecting(proxied, logged_errors)


async def test_hooks_that_break_when_a_session_ends(
    proxied: Proxied, logged_errors: LoggedErrors
) -> None:
    """A session that was relayed comes to its end as ever, though both its halves break then."""

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
    # The socket relay tells both halves at once: one traceback, with the other as its context.
    assert logged_errors.flush()


async def test_a_hook_that_breaks_when_its_server_is_lost_in_the_handshake(
    proxied: Proxied, certificates: Certificates, logged_errors: LoggedErrors
) -> None:
    """The attempt fails once its time is over, and the session goes on from there."""

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
    # The client's half of the handshake.
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
    """Not even that ends more than its own session."""
    switch = Switch(kind)
    await proxied.start(factory=downstream_made(switch.before))
    await breaks_alone(proxied, switch, logged_errors)


@pytest.mark.parametrize("proxied", ["socket", "stream"], indirect=True)
async def test_bytes_that_raise_what_nobody_catches(
    proxied: Proxied, logged_errors: LoggedErrors, unanswered: Any
) -> None:
    """A hook that hears of early bytes ends its own session, too, and the proxy goes on."""

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
    """What it has read comes before what its client has sent since."""

    class Downstream(DownstreamProtocol):
        seen: bytes | None = b""

        def connectionMade(self) -> None:
            """Not yet."""

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
    """It comes before what its client says."""

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
    """That is Twisted's way to refuse: the client is reset, and told why in the log."""

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
    """The session ends with its client at the latest, and gives the server up."""

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
    # Twisted's connector, too, complains: it does not connect any more when it is told to stop.
    logged_errors.flush()


async def test_what_is_left_of_an_attempt_counts_for_no_other(
    proxied: Proxied, logged_errors: LoggedErrors, unanswered: Unanswered
) -> None:
    """When a hook breaks on one server, its connection that is lost then is not the next one's."""
    switch = Switch()
    first = f"127.0.0.1:{proxied.upstream.port}"
    await proxied.start(
        factory=upstream_made(switch.before), upstreams=[first, unanswered.name], connect_timeout=60
    )
    switch.on = True
    client = proxied.client()
    await client.send(b"?")
    assert (await (await proxied.upstream.accept()).rest())[0] == b""
    await proxied.observed.until(lambda: bool(proxied.observed.failures))
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
    """A pool that breaks when it is asked for servers is a broken hook as any other."""
    switch = Switch()
    await proxied.start()
    pool: Any = proxied.pool
    pool.candidates = switch.before(pool.candidates)
    await breaks_alone(proxied, switch, logged_errors)
    assert [each.reason.how for each in proxied.observed.records] == [Ending.ERROR]


async def test_a_pool_that_cannot_let_go(
    proxied: Proxied, logged_errors: LoggedErrors, unanswered: Unanswered
) -> None:
    """A pool that breaks when a client has left before it was connected keeps no session."""
    switch = Switch()
    await proxied.start(upstreams=[unanswered.name])
    pool: Any = proxied.pool
    pool.abandoned = switch.after(pool.abandoned)
    await leaves_nothing(proxied, switch, logged_errors)
    assert [server.sessions for server in pool.servers] == [0]


async def test_a_connect_that_cannot_be_stopped(
    proxied: Proxied, logged_errors: LoggedErrors
) -> None:
    """Nor does a dialer's connector that breaks then; its server is left all the same."""
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
    """Nor does a pool of somebody whose waiters break."""
    switch = Switch()
    await proxied.start()
    pool: Any = proxied.pool
    pool.candidates = lambda info: iter(())
    pool.wait = lambda info, ready, gave_up, tried: Unstoppable(switch)
    await leaves_nothing(proxied, switch, logged_errors)


async def test_a_broken_balancer(proxied: Proxied, logged_errors: LoggedErrors) -> None:
    """So is a balancer, even one that breaks at a candidate that is asked for late."""
    switch = Switch()
    await proxied.start(balance=BrokenBalancer(switch))
    await breaks_alone(proxied, switch, logged_errors)
    assert [each.reason.how for each in proxied.observed.records] == [Ending.ERROR]


async def test_a_broken_observer(proxied: Proxied, logged_errors: LoggedErrors) -> None:
    """An observer that breaks when a session ends is logged, and the session ends as ever."""
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
    """Observers after one that breaks hear of the session's end too."""
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
    """One that breaks when accepting pauses keeps nobody from being served."""
    switch = Switch()
    switch.on = True
    await proxied.start(max_sessions=1, observers=[BrokenObserver(switch)])
    client, server = await proxied.pair()
    await converse(client, server)
    assert len(logged_errors.flush(Broken)) == 1
    assert len(proxied.observed.pressure) == 1
    switch.on = False


async def leaves_nothing(proxied: Proxied, switch: Switch, logged_errors: LoggedErrors) -> None:
    """A client that leaves before it is connected ends its session, though a hook breaks then."""
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
    """Of three sessions, only the one that begins while the hook is broken notices."""
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
    """A dialer that never connects, what it returns, and a place in a line: it cannot be ended."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch

    def connect(self, factory: Any, timeout: float, sockets: Any) -> Any:
        return self

    def stopConnecting(self) -> None:
        self._switch.look()

    cancel = stopConnecting


class BrokenBalancer:
    """Takes servers as they come."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch
        self._servers: list[Any] = []

    def update(self, servers: Any) -> None:
        self._servers = list(servers)

    def candidates(self, info: ConnectionInfo) -> Iterator[Any]:
        self._switch.look()
        yield from self._servers


class BrokenObserver:
    """Observes nothing."""

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
