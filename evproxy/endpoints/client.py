"""
The client endpoint ``evproxy:``: connects a program to a server of a pool.

The endpoint is a pool without a listener: it picks a server, goes on with the next one if a connect
fails, and hands the connection to the program.  Only faults put a relay in between.
"""

from __future__ import annotations

from typing import Any
from weakref import finalize

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from zope.interface import implementer

from evproxy.config.conflicts import useless_keys
from evproxy.config.descriptions import ClientDescription
from evproxy.config.problems import shown
from evproxy.config.rules import Many
from evproxy.endpoints.connection import Connection
from evproxy.endpoints.keys import read_keys, rules_of
from evproxy.errors import SettingsError, Shortage
from evproxy.hub import Hub
from evproxy.model import UpstreamServer
from evproxy.session.connecting import ConnectContext
from evproxy.session.halves import UpstreamFactory
from evproxy.settings import PoolSettings
from evproxy.sockets.makers import TwistedSockets
from evproxy.sockets.ports import PlainPort
from evproxy.upstream.pool.pool import Pool

POOL_KEYS = (
    "balance",
    "connect_timeout",
    "connect_attempts",
    "send_proxy_protocol",
    "health_check",
    "ejection",
    "on_down",
    "all_down",
    "faults",
    "faults_seed",
)
"""The settings of a pool that an endpoint string can have, beside ``pool``."""

_SERVERS = Many("servers", ClientDescription())


def client_endpoint(reactor: Any, *words: str, **keys: str) -> PoolEndpoint:
    """
    Return the endpoint that a string ``evproxy:pool=SERVER,SERVER:KEY=VALUE…`` describes.

    :param reactor: Twisted's.
    :param words: none.
    :param keys: ``pool``, and settings of the pool, as text.
    :raises SettingsError: if anything is wrong.
    """
    for word in filter(None, words):
        raise SettingsError(
            f"evproxy: expected KEY=VALUE, got {shown(word)}; a colon inside a value needs a "
            "backslash, such as evproxy:pool=10.0.0.1\\:80"
        )
    given = read_keys({"pool": _SERVERS} | rules_of(PoolSettings, POOL_KEYS), keys)
    servers = given.pop("pool", ())
    if not servers:
        raise SettingsError("evproxy: pool: expected at least one server, such as 10.0.0.1\\:80")
    for problem in useless_keys((), {"upstreams": [], **given}):
        raise SettingsError(f"evproxy: {problem}")
    settings = PoolSettings(upstreams=tuple(map(UpstreamServer, servers)))
    return PoolEndpoint(reactor, evolve(settings, **given))


@implementer(IStreamClientEndpoint)
class PoolEndpoint:
    """
    Connects to the servers of a pool.

    `pool` is the pool.  It keeps its counts from one connect to the next.  Its health checks begin
    with the first connect, and end once nothing refers to the endpoint any more, or with
    ``pool.stop(endpoint.USER)``.

    :param reactor: Twisted's.
    :param settings: the pool.
    :raises SettingsError: if a setting is wrong.
    """

    USER = "endpoint"
    """The user of the pool, as the pool knows it."""

    def __init__(self, reactor: Any, settings: PoolSettings) -> None:
        if settings.balance == "source-hash":
            raise SettingsError(
                "evproxy: balance: source-hash needs the address of a client, and there is none"
            )
        for fault in settings.faults:
            for key in ("peer", "route"):
                if getattr(fault, key):
                    raise SettingsError(
                        f"evproxy: faults: {fault.name or fault.kind}: {key} is of a client, and "
                        "there is none"
                    )
        self.pool = Pool(reactor, settings=settings)
        self._watches = settings.health_check is not None or settings.ejection is not None
        self._started = False
        self._reactor = reactor
        self._context = ConnectContext(
            clock=reactor,
            sockets=TwistedSockets(reactor, _NoGate(), None),
            upstream_factory=UpstreamFactory,
            observer=Hub(()),
            short=lambda shortage: None,
        )

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        """
        Connect a protocol of `protocolFactory` to a server.

        :return: fires with the protocol; fails with a `twisted.internet.error.ConnectError` that
            says what the last attempt met.  To cancel it ends the attempt.
        """
        if self._watches and not self._started:
            self._start()
        connection = Connection(self._reactor, self.pool, self._context, protocolFactory)
        # The connect needs the pool, and so this object, until it is over.
        return connection.connect().addBoth(self._result)

    def _start(self) -> None:
        self._started = True
        self.pool.start(self.USER)
        # An endpoint has no end of its own.  This may be called in any thread.
        ended = finalize(self, self._reactor.callFromThread, self.pool.stop, self.USER)
        ended.atexit = False

    def _result(self, result: Any) -> Any:
        return result


class _NoGate:
    """An `evproxy.sockets.ports.Gate`: the endpoint accepts nothing, so nothing has to pause."""

    def watch(self, port: PlainPort) -> None:
        """There is no port."""

    def forget(self, port: PlainPort) -> None:
        """There is no port."""

    def exhausted(self, error: OSError) -> None:
        """Nothing is accepted."""

    def short(self, shortage: Shortage) -> None:
        """The attempt that lacks something fails."""
