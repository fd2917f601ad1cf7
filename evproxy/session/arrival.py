"""
From an accepted client to the pool of its session: PROXY header, admission, TLS, and the route.

An `Arrival` belongs to one session, from its start until its pool is chosen.  Where a listener asks
nothing of its clients, its sessions have none.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol

from attrs import define, evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.causes import Cause
from evproxy.errors import EvproxyError, Refused
from evproxy.interfaces import Pool, Router
from evproxy.model import ConnectionInfo, Ending, Side
from evproxy.policy.refusal import Refusal
from evproxy.relay.contract import Half
from evproxy.session.connecting import message_of
from evproxy.session.entry import Admitted, Entry
from evproxy.session.inspection import Inspection, StageMaker
from evproxy.session.intake import Intake
from evproxy.session.opening import Opening
from evproxy.session.proxy_header import HeaderReader, behind
from evproxy.sockets.tls_channel import TLSFault
from evproxy.sockets.tls_server import ServerTLS
from evproxy.sockets.tls_tap import Tap
from evproxy.sockets.tls_transport import TLSTransport
from evproxy.sockets.transport import SocketTransport
from evproxy.wire.proxy_protocol import ProxyHeader

_log = Logger()


class ClientHalf(Half, Protocol):
    """The client's half; `info` is what is known of its connection."""

    info: ConnectionInfo


class Arriving(Protocol):
    """
    The session of the client.

    `id` is its number.  `info`, `admitted`, `route`, `opening`, `stages`, `error` and `cause` are
    kept up to date here.
    """

    id: int
    info: ConnectionInfo
    admitted: Admitted | None
    route: str
    opening: Opening | None
    stages: Sequence[StageMaker]
    error: str
    cause: str
    downstream: ClientHalf

    def wait_for_client(self) -> None:
        """From now on, the handshake timeout counts from when the client connected."""

    def routed(self, pool: Pool) -> None:
        """`pool` is chosen.  The session drops its arrival."""

    def close_unconnected(self, by: Side, how: Ending) -> None:
        """Reset the client, which has no server yet.  Stops the arrival."""

    def failed(self, failure: Failure) -> None:
        """Log the exception in `failure`, and end the session."""


@define
class ArrivalContext:
    """
    What the clients of one listener are asked before a pool is chosen.

    `pool` is the pool of each session, unless `router` chooses it.
    `is_proxy` says whether the client with an address must send a PROXY header; ``None``: nobody.
    `entry` decides who gets a session; ``None``: everyone.
    `tls` begins TLS with clients; ``None``: evproxy ends none.  `tls_by_router`: the router says
    when.  `header_inside_tls`: the PROXY header comes after the handshake.  `tap` makes what sees
    the TLS records of a client, from the number of its session and from the address (a Twisted
    address) of evproxy to which it has connected; ``None``: nobody sees them.
    """

    pool: Pool | None = None
    router: Router | None = None
    is_proxy: Callable[[str, int], bool] | None = None
    entry: Entry | None = None
    tls: ServerTLS | None = None
    tls_by_router: bool = False
    header_inside_tls: bool = False
    tap: Callable[[int, Any], Tap] | None = None

    @property
    def asks_nothing(self) -> bool:
        """Whether every client gets a session of `pool` at once."""
        return (
            self.router is None
            and self.is_proxy is None
            and self.entry is None
            and self.tls is None
        )


def is_pool(value: object) -> bool:
    """Whether `value` has what a session asks of an `evproxy.interfaces.Pool` first."""
    return not isinstance(value, type) and all(
        hasattr(value, name) for name in ("name", "candidates", "claim")
    )


class Arrival:
    """
    One client on its way to a pool.

    :param context: what the listener asks.
    :param session: gets the pool, or is refused.
    :param intake: has the client's bytes.
    """

    __slots__ = ("_context", "_inspection", "_intake", "_routing", "_session", "_stopped")

    def __init__(self, context: ArrivalContext, session: Arriving, intake: Intake) -> None:
        self._context = context
        self._session = session
        self._intake = intake
        self._inspection = Inspection(intake, session.info)
        self._routing: Deferred[Pool | None] | None = None
        self._stopped = False

    def begin(self) -> None:
        """Read the client's PROXY header, if it must send one; then let it in, or refuse it."""
        context, info = self._context, self._session.info
        if context.is_proxy is None or not context.is_proxy(info.peer_host, info.peer_port):
            self._enter()
        elif context.header_inside_tls and context.tls is not None:
            self._begin_tls(context.tls, self._read_header)
        else:
            self._read_header()

    @property
    def wanted(self) -> str:
        """What the client has still to send, with an article; empty if it is up to the router."""
        if self._inspection.wanted:
            return self._inspection.wanted
        shaking = self._context.tls is not None and self._session.info.tls is None
        return "all of its TLS handshake" if shaking else ""

    def stop(self) -> None:
        """Look no more, and cancel the router; no callback comes any more."""
        self._stopped = True
        self._keep_findings()
        routing, self._routing = self._routing, None
        if routing is not None:
            peer = self._session.info.peer_host
            with _log.failuresHandled("Could not stop choosing a pool for {peer}", peer=peer):
                routing.cancel()

    def _keep_findings(self) -> None:
        session, found = self._session, self._inspection
        found.stop()
        tls, transport = self._context.tls, session.downstream.transport
        if tls is not None and found.info.tls is None and isinstance(transport, TLSTransport):
            # The handshake is not over, or has failed; the client may have asked for a name.
            found.info = evolve(found.info, server_name=tls.server_name(transport))
        session.info, session.route = found.info, found.noted
        # Not the list of each session, which is mostly empty.
        session.opening, session.stages = found.opening, found.stages or ()

    # The steps, in their order.

    def _read_header(self) -> None:
        self._session.wait_for_client()
        self._inspection.look(
            HeaderReader(), "its PROXY header", self._header_read, self._malformed
        )

    def _header_read(self, found: tuple[ProxyHeader, int]) -> None:
        header, size = found
        self._intake.take(size)
        self._know(behind(header, self._session.info))
        self._enter()

    def _malformed(self, error: EvproxyError) -> None:
        self._refuse(str(error), Cause.PROXY_HEADER.value)

    def _know(self, info: ConnectionInfo) -> None:
        session = self._session
        # The half lasts as long as the session, and would keep what was known before.
        session.info = session.downstream.info = self._inspection.info = info

    def _enter(self) -> None:
        """The client is known: it may come in, or not."""
        context = self._context
        if context.entry is not None:
            admitted = context.entry.admit(self._session.info.peer_host)
            if isinstance(admitted, Refusal):
                self._refuse(f"the client is refused: {admitted.value}", admitted.value)
                return
            if self._session.admitted is None:
                self._session.admitted = admitted
            else:
                # A reload has set other limits meanwhile, for which the session counts.
                admitted.leave()
        tls = None if context.tls_by_router else context.tls
        if tls is not None and self._session.info.tls is None:
            self._begin_tls(tls, self._choose_pool)
        else:
            self._choose_pool()

    def _begin_tls_by_router(self, tls: ServerTLS) -> Deferred[None]:
        begun: Deferred[None] = Deferred()
        self._begin_tls(tls, partial(begun.callback, None))
        return begun

    def _begin_tls(self, tls: ServerTLS, then: Callable[[], None]) -> None:
        """Shake hands with the client, and call `then`; end the session if that fails."""
        session = self._session
        session.wait_for_client()
        transport, received = session.downstream.transport, self._intake.take_all()
        if isinstance(transport, SocketTransport) and transport.speaks_to(session.downstream):
            tap = None
            if self._context.tap is not None:
                tap = self._context.tap(session.id, transport.getHost())
                if self._inspection.agreement is not None:
                    request, answer = self._inspection.agreement
                    tap.received(request)
                    tap.sent(answer)
            tls.begin(transport, received, partial(self._tls_begun, tls, then), tap)
        else:
            why = "there is no TLS on this transport"
            self._refuse(why, Cause.TLS.value, Ending.HANDSHAKE)

    def _tls_begun(self, tls: ServerTLS, then: Callable[[], None], error: OSError | None) -> None:
        if self._stopped:
            return
        session = self._session
        transport: Any = session.downstream.transport
        if error is None:
            self._know(session.info.with_tls(tls.facts(transport)))
            then()
            return
        session.error = f"the TLS handshake failed: {tls.reason(transport, error)}"
        session.cause = Cause.TLS.value
        if isinstance(error, TLSFault):
            session.close_unconnected(Side.PROXY, Ending.HANDSHAKE)
        else:
            session.close_unconnected(Side.DOWNSTREAM, Ending.LEFT)

    def _choose_pool(self) -> None:
        context, client = self._context, self._inspection
        if context.router is None:
            self._routed(context.pool)
            return
        if context.tls is not None and context.tls_by_router:
            client.begin_tls = partial(self._begin_tls_by_router, context.tls)
        try:
            pool = context.router.route(client)
            if isinstance(pool, Coroutine):
                pool = Deferred.fromCoroutine(pool)
        except Exception:
            self._not_routed(Failure())
            return
        if isinstance(pool, Deferred):
            self._routing = pool
            self._session.wait_for_client()
            pool.addCallbacks(self._chosen, self._not_routed)
        else:
            self._chosen(pool)

    def _chosen(self, pool: Any) -> None:
        """The router, which may be a user's own, has returned `pool`."""
        if pool is None or is_pool(pool):
            self._routed(pool)
            return
        if isinstance(pool, Coroutine):
            # Nobody has awaited it, and nobody will.
            pool.close()
        got = type(pool).__name__
        self._not_routed(Failure(Refused(f"the router returned {got}, expected a pool")))

    def _routed(self, pool: Pool | None) -> None:
        self._routing = None
        if self._stopped:
            return
        if pool is None:
            self._refuse("the router chose no pool", Cause.ROUTER.value)
            return
        self._stopped = True
        self._keep_findings()
        self._session.routed(pool)

    def _not_routed(self, reason: Failure) -> None:
        self._routing = None
        if self._stopped:
            return
        if reason.check(EvproxyError):
            self._refuse(message_of(reason), Cause.ROUTER.value)
        else:
            self._session.failed(reason)

    def _refuse(self, why: str, cause: str, how: Ending = Ending.REFUSED) -> None:
        self._session.error = why
        self._session.cause = cause
        self._session.close_unconnected(Side.PROXY, how)
