"""
Routers: the declared routes of a listener, and the names of pools that a function returns.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from importlib import import_module
from typing import Any

from twisted.internet.defer import Deferred

from evproxy.errors import Refused, SettingsError
from evproxy.escape import printable
from evproxy.interfaces import Client, Pool
from evproxy.policy.routes import Conditions
from evproxy.settings import RouteSettings
from evproxy.wire.client_hello import ClientHello, NotTls
from evproxy.wire.http_host import HttpHost, NoHost
from evproxy.wire.postgres import Start, Startup

DEFAULT = "default"
"""What the log calls the choice of the listener's own pool, where there are routes."""


class Routes:
    """
    The `evproxy.interfaces.Router` of declared routes: the first one that matches counts.

    The client's bytes are looked at only if a route needs them, and no earlier one matches.

    :param routes: in their order.
    :param pools: the pools by name.
    :param default: the pool of clients that no route matches.
    """

    def __init__(
        self, routes: Sequence[RouteSettings], pools: Mapping[str, Pool], default: Pool
    ) -> None:
        self._routes = [(Conditions(each), pools[each.pool]) for each in routes]
        self._default = default

    def route(self, client: Client) -> Pool | Coroutine[Any, Any, Pool]:
        """The pool, or a coroutine that reads what the client sends first."""
        info = client.info
        certificate = certificate_of(client)
        left = [
            (conditions, pool)
            for conditions, pool in self._routes
            if conditions.hold_for(info.peer_host, info.listener, certificate)
        ]
        if left and left[0][0].reads:
            return self._read(client, left)
        if left:
            client.note(str(left[0][0]))
            return left[0][1]
        client.note(DEFAULT)
        return self._default

    async def _read(self, client: Client, left: Sequence[tuple[Conditions, Pool]]) -> Pool:
        told = _Told(client)
        for conditions, pool in left:
            if await told.match(conditions):
                client.note(f"{conditions}{told.also}")
                return pool
        client.note(f"{DEFAULT}{told.why}{told.also}")
        return self._default


class _Told:
    """
    What one client has told, read once.

    `why`: why a condition could not match, for the log; `also`: what else the log says.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._hello: ClientHello | NotTls | None = None
        self._host: HttpHost | NoHost | None = None
        self._start: Start | None = None
        self.why = self.also = ""

    async def match(self, conditions: Conditions) -> bool:
        """Whether the conditions that need bytes hold."""
        if conditions.reads_hello:
            hello = await self._read_hello()
            if not (isinstance(hello, ClientHello) and conditions.hold_for_hello(hello)):
                return False
        if conditions.reads_host:
            host = await self._read_host()
            if not (isinstance(host, HttpHost) and conditions.hold_for_host(host.host)):
                return False
        if conditions.reads_start:
            start = await self._read_start()
            if not (isinstance(start, Startup) and conditions.hold_for_start(start)):
                return False
        return True

    async def _read_hello(self) -> ClientHello | NotTls:
        if self._hello is None:
            self._hello = hello = await self._client.client_hello()
            if isinstance(hello, NotTls):
                self.why = f": no TLS, {hello.reason}"
            elif not hello.server_name:
                self.why = ": no SNI"
            if isinstance(hello, ClientHello) and hello.ech:
                self.also = ", ECH offered"
        return self._hello

    async def _read_host(self) -> HttpHost | NoHost:
        if self._host is None:
            self._host = await self._client.http_host()
            if isinstance(self._host, NoHost):
                self.why = f": no host, {self._host.reason}"
        return self._host

    async def _read_start(self) -> Start:
        if self._start is None:
            self._start = await self._client.postgres_start()
            if not isinstance(self._start, Startup):
                self.why = f": {type(self._start).__name__} where a StartupMessage was expected"
        return self._start


def certificate_of(client: Client) -> str:
    """The common name in the client's verified certificate, empty if there is none."""
    info = client.info
    if info.tls is not None and info.tls.client_name and not info.header_inside_tls:
        return info.tls.client_name
    header = info.header
    ssl = header.tlvs.ssl if header is not None else None
    return (ssl.common_name or "") if ssl is not None and ssl.certificate_verified else ""


class ByName:
    """
    A router that lets `function` return the name of a pool.

    ``web`` is the pool of that name, and ``web/10.0.0.1:80`` one server of it.

    :param function: a route, as in `evproxy.interfaces.Router`.
    :param pools: the pools by name.
    """

    def __init__(self, function: Callable[[Client], Any], pools: Mapping[str, Any]) -> None:
        self._function = function
        self._pools = pools

    def route(self, client: Client) -> Any:
        """The pool, or a Deferred of it."""
        chosen = self._function(client)
        if isinstance(chosen, Coroutine):
            chosen = Deferred.fromCoroutine(chosen)
        if isinstance(chosen, Deferred):
            return chosen.addCallback(self._pool)
        return self._pool(chosen)

    def _pool(self, chosen: Any) -> Any:
        if not isinstance(chosen, str):
            return chosen
        name, _, server = chosen.partition("/")
        pool = self._pools.get(name)
        if pool is None:
            raise Refused(f"the route chose {printable(chosen)!r}: there is no such pool")
        return pool.only(server) if server else pool


def function_named(text: str) -> Callable[[Client], Any]:
    """
    The function that ``MODULE:FUNCTION`` names.

    :raises SettingsError: if there is none, or its module cannot be imported.
    """
    module_name, _, name = text.partition(":")
    try:
        function = getattr(import_module(module_name), name)
    except Exception as error:
        # A module may raise anything when it is imported.
        raise SettingsError(f"{text}: {type(error).__name__}: {error}") from None
    if not callable(function):
        raise SettingsError(f"{text} is not a function")
    made: Callable[[Client], Any] = function
    return made
