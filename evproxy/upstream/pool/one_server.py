"""A pool that is one server of another pool, for routes that choose the server themselves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Protocol

from evproxy.errors import NoServerAvailable
from evproxy.interfaces import Pool, Server
from evproxy.model import ConnectionInfo
from evproxy.relay.stages import StagesOfSession
from evproxy.settings import Mirror
from evproxy.upstream.pool.server import PoolServer


class _Whole(Pool, Protocol):
    """The pool that a server is taken from."""

    @property
    def load(self) -> int:
        """See `evproxy.interfaces.CountingPool`."""

    @property
    def stages(self) -> Sequence[StagesOfSession]:
        """The stages of its sessions."""

    @property
    def mirror(self) -> Mirror | None:
        """The mirror of its sessions."""

    def server_named(self, name: str) -> PoolServer:
        """The server called `name`.  Raises `LookupError` if it is not in the pool."""

    def leaving(self) -> Sequence[PoolServer]:
        """The servers that have left the pool, but still have sessions."""


class OneServer:
    """
    The server called `server` of `pool`; an `evproxy.interfaces.Pool`.

    Health, drain and `max_sessions` of the server count.  A session does not wait in the queue
    of the pool: it ends if the server cannot take it now.

    :param in_any_state: they do not count, and the server may have left the pool as long as it has
        sessions: for what belongs to a session that the server has already.
    """

    def __init__(self, pool: _Whole, server: str, in_any_state: bool = False) -> None:
        self._pool = pool
        self._server = server
        self._in_any_state = in_any_state
        self.name = pool.name
        self.connect_timeout = pool.connect_timeout
        self.connect_attempts = 1
        self.claim = pool.claim
        self.connected = pool.connected
        self.connect_failed = pool.connect_failed
        self.abandoned = pool.abandoned
        self.ended = pool.ended

    @property
    def load(self) -> int:
        """How many sessions the whole pool has."""
        return self._pool.load

    @property
    def stages(self) -> Sequence[StagesOfSession]:
        """Those of the whole pool."""
        return self._pool.stages

    @property
    def mirror(self) -> Mirror | None:
        """That of the whole pool."""
        return self._pool.mirror

    def candidates(self, info: ConnectionInfo) -> Iterator[Server]:
        """The server, if it can take a session now."""
        try:
            server = self._found()
        except LookupError:
            return
        if self._in_any_state or (server.usable and server.sessions < server.limit):
            yield server

    def wait(
        self,
        info: ConnectionInfo,
        ready: Callable[[], None],
        gave_up: Callable[[Exception], None],
        tried: Collection[Server] = (),
    ) -> Any:
        """
        Do not wait.

        :raises NoServerAvailable: says why the server cannot take the session.
        """
        try:
            server = self._found()
        except LookupError as error:
            raise NoServerAvailable(f"the route chose a server: {error}") from None
        if server in tried:
            return None
        state = f"{server.state}: {server.why}" if server.state != "up" else "full"
        raise NoServerAvailable(f"the server {server.name} that the route chose is {state}")

    def _found(self) -> PoolServer:
        try:
            return self._pool.server_named(self._server)
        except LookupError:
            if self._in_any_state:
                for server in self._pool.leaving():
                    if server.name == self._server:
                        return server
            raise

    def start(self) -> None:
        """The whole pool is started by itself."""

    def stop(self) -> None:
        """The whole pool is stopped by itself."""
