"""
PostgreSQL clients: their requests for encryption are answered, and their cancels find the server.

A PostgreSQL client asks for TLS in a message of its own before it speaks TLS.  So that a route can
see the name in its ClientHello, evproxy answers the request itself, and makes the same request to
the server once that is chosen.  A client cancels a query on a new connection, with the key that
its server gave it on the old one: evproxy remembers which server gave which key.

Sources: see `evproxy.wire.postgres`.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol, runtime_checkable

from twisted.internet.defer import Deferred

from evproxy.errors import Refused
from evproxy.interfaces import Pool, Router
from evproxy.relay.stages import PassThrough, Stage
from evproxy.session.inspection import Inspection
from evproxy.wire.postgres import (
    SSL_REQUEST,
    BackendKey,
    CancelRequest,
    DirectTls,
    GssRequest,
    KeyWatcher,
    SslRequest,
    StartReader,
    Startup,
    agrees_to_tls,
)

_ACCEPTED, _NOT_SUPPORTED = b"S", b"N"


class TlsOpening:
    """
    What evproxy says to a PostgreSQL server before the client's TLS; an
    `evproxy.session.opening.Opening`.
    """

    request = SSL_REQUEST

    def answered(self, data: bytes) -> bool:
        """See `agrees_to_tls`."""
        return agrees_to_tls(data)


@runtime_checkable
class _Divisible(Protocol):
    """A pool that a server can be taken from."""

    def only(self, name: str, in_any_state: bool = False) -> Pool: ...


class CancelKeys:
    """
    Which server gave which key to a client that has a session: at most one key for each session.
    """

    def __init__(self) -> None:
        self._servers: dict[BackendKey, tuple[Pool, str]] = {}

    def pool_of(self, request: CancelRequest) -> Pool | None:
        """The server that `request` is meant for, as a pool; ``None`` if nobody knows it."""
        found = self._servers.get(BackendKey(request.process_id, request.key))
        if found is None:
            return None
        pool, server = found
        # The session that it cancels goes on, whatever has become of the server since.
        return pool.only(server, in_any_state=True) if isinstance(pool, _Divisible) else pool

    def watch(self, pool: Pool, server: str) -> Stage:
        """A stage that remembers the key that `server` of `pool` gives, while the session runs."""
        return _KeyStage(self._servers, pool, server)


class _KeyStage(PassThrough):
    def __init__(
        self, servers: dict[BackendKey, tuple[Pool, str]], pool: Pool, server: str
    ) -> None:
        self._servers = servers
        self._server = (pool, server)
        self._watcher = KeyWatcher()
        self._key: BackendKey | None = None

    def download(self, data: bytes) -> None:
        if not self._watcher.over:
            self._key = self._watcher.feed(data)
            if self._key is not None:
                self._servers[self._key] = self._server
        super().download(data)

    def closed(self) -> None:
        if self._key is not None and self._servers.get(self._key) == self._server:
            del self._servers[self._key]
        super().closed()


class PostgresRouter:
    """
    The router of a listener with ``preread = "postgres"``.

    :param router: chooses the pool after the client's requests are answered; or the only pool.
    :param keys: shared by the listeners of a service.
    """

    def __init__(self, router: Router | Pool, keys: CancelKeys) -> None:
        self._router = router
        self._keys = keys

    async def route(self, client: Inspection) -> Any:
        """
        The pool for `client`.

        :raises Refused: if the client sent something with a request that it must wait after.
        """
        cancelled = await self._begin(client)
        if cancelled is not None:
            return cancelled
        router = self._router
        if not isinstance(router, Router):
            return router
        chosen = router.route(client)
        return await chosen if isinstance(chosen, Coroutine | Deferred) else chosen

    async def _begin(self, client: Inspection) -> Pool | None:
        """Answer requests for encryption; the pool of a cancel whose key is known."""
        asked: set[type] = set()
        while True:
            start = await client.read(StartReader(), "its first PostgreSQL message")
            if isinstance(start, SslRequest | GssRequest):
                what = "SSLRequest" if isinstance(start, SslRequest) else "GSSENCRequest"
                if type(start) in asked or client.info.tls is not None:
                    raise Refused(f"a second {what}")
                asked.add(type(start))
                if client.kept != len(SSL_REQUEST):
                    raise Refused(f"bytes came with {what}, before its answer")
                client.take(len(SSL_REQUEST))
                if isinstance(start, SslRequest):
                    client.answer(_ACCEPTED)
                    if client.begin_tls is None:
                        client.opening = TlsOpening()
                        return None
                    # On PostgreSQL's port, Wireshark looks for TLS only behind this request, and
                    # not if a GSSENCRequest comes before.
                    client.agreement = (SSL_REQUEST, _ACCEPTED)
                    await client.begin_tls()
                    continue
                client.answer(_NOT_SUPPORTED)
            elif isinstance(start, CancelRequest):
                pool = self._keys.pool_of(start)
                client.note("cancel" if pool is not None else "cancel with a key that is not known")
                return pool
            elif isinstance(start, DirectTls) and client.begin_tls is not None:
                if client.info.tls is not None:
                    raise Refused("TLS within TLS")
                await client.begin_tls()
            else:
                if isinstance(start, Startup):
                    client.stages.append(self._keys.watch)
                return None
