"""
The server endpoint ``evproxy:``: a listener of evproxy in front of the program's protocols.

The listener decides who gets a session, reads PROXY headers, limits rates and injects faults; the
server of its sessions is the program itself, inside the process.  A mirror sends copies to others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.config.declare import declared
from evproxy.config.problems import shown
from evproxy.config.reading import Rule
from evproxy.endpoints.keys import read_keys, rules_of
from evproxy.endpoints.mirror import SECOND_POOL, MirrorText, check_second_pool
from evproxy.endpoints.program import ProgramDialer
from evproxy.errors import SettingsError
from evproxy.model import UpstreamServer
from evproxy.service.listener import server_endpoint as described_endpoint
from evproxy.service.service import ProxyService
from evproxy.settings import (
    AccessLogSettings,
    ListenerSettings,
    PoolSettings,
    Settings,
    Timeouts,
)
from evproxy.upstream.pool.pool import Pool

LISTENER_KEYS = (
    "accept_proxy_protocol_from",
    "allow",
    "deny",
    "max_sessions",
    "max_sessions_per_peer",
    "new_sessions_per_second",
    "new_sessions_per_second_per_peer",
    "bytes_per_second",
    "bytes_per_second_per_peer",
    "bytes_per_second_per_session",
    "filters",
    "record",
    "record_format",
    "record_max_files",
    "record_max_bytes",
    "faults",
    "faults_seed",
    "name",
)
"""The settings of a listener that an endpoint string can have."""

TIMEOUT_KEYS = {
    "idle_timeout": "idle",
    "half_close_timeout": "half_close",
    "handshake_timeout": "handshake",
}
"""The timeouts that an endpoint string can have, by their keys there."""

NO_IDLE_TIMEOUT = 0.0
"""The idle timeout by default: the program has its own timeouts."""


def _rules() -> dict[str, Rule]:
    timeouts = {each.name: each.setting.rule for each in declared(Timeouts)}
    own = {key: timeouts[name] for key, name in TIMEOUT_KEYS.items()}
    return rules_of(ListenerSettings, LISTENER_KEYS) | own | {"mirror": MirrorText()}


def server_endpoint(reactor: Any, *words: str, **keys: str) -> GuardedEndpoint:
    """
    Return the endpoint that a string ``evproxy:LISTEN:KEY=VALUE…`` describes.

    :param reactor: Twisted's.
    :param words: one server endpoint description.
    :param keys: settings of the listener, as text.
    :raises SettingsError: if anything is wrong.
    """
    # `quoteStringArgument` leaves a "=" as it is, so that Twisted takes a description with one for
    # a key and its value.  Only a description has a colon there, and joined it is whole again.
    described = [f"{key}={keys.pop(key)}" for key in tuple(keys) if ":" in key]
    words = (*words, *described)
    if len(words) != 1 or not words[0]:
        raise SettingsError(
            "evproxy: expected one server endpoint description with backslashes before its colons, "
            f"such as evproxy:tcp\\:8080, got {shown(':'.join(words))}"
        )
    return GuardedEndpoint(reactor, words[0], read_keys(_rules(), keys))


@implementer(IStreamServerEndpoint)
class GuardedEndpoint:
    """
    Listens with a listener of evproxy, whose sessions go to the factory of the program.

    :param reactor: Twisted's.
    :param listen: where to listen: a server endpoint description.
    :param settings: settings with the names of `LISTENER_KEYS` and `TIMEOUT_KEYS`, and ``mirror``:
        a mirror and its second pool, as `MirrorText` reads them.
    :raises SettingsError: if there is no such endpoint, or if a setting is wrong.
    """

    def __init__(self, reactor: Any, listen: str, settings: Mapping[str, Any]) -> None:
        timeouts = {name: settings[key] for key, name in TIMEOUT_KEYS.items() if key in settings}
        described_endpoint(reactor, listen)
        listener = ListenerSettings(
            listen, **{key: settings[key] for key in LISTENER_KEYS if key in settings}
        )
        pools: tuple[PoolSettings, ...] = (_POOL,)
        if "mirror" in settings:
            mirror, second = settings["mirror"]
            check_second_pool(reactor, listener, pools := (evolve(_POOL, mirror=mirror), second))
        self._reactor = reactor
        self._settings = Settings(
            listeners=(listener,),
            pools=pools,
            timeouts=Timeouts(**{"idle": NO_IDLE_TIMEOUT} | timeouts),
            access_log=AccessLogSettings("off"),
        )

    def listen(self, protocolFactory: Any) -> Deferred[IListeningPort]:
        """
        Listen; each client that gets a session gets a protocol of `protocolFactory`.

        :return: fires with the port, or fails as the endpoint behind ``evproxy:`` does, now or
            later.
        """
        dialer = ProgramDialer(self._reactor, protocolFactory)

        def make_pool(reactor: Any, settings: PoolSettings, **more: Any) -> Pool:
            if settings.name != SECOND_POOL:
                more["dialer_for"] = lambda server: dialer
            return Pool.from_settings(reactor, settings, **more)

        service = ProxyService(self._reactor, settings=self._settings, make_pool=make_pool)
        try:
            service.startService()
        except Exception:
            service.drain(None)
            return fail()
        protocolFactory.doStart()

        def failed(failure: Failure) -> Failure:
            service.drain(None)
            protocolFactory.doStop()
            return failure

        listening: Deferred[Any] = service.listeners[0].outcome()
        return listening.addCallbacks(lambda _: GuardedPort(service, protocolFactory), failed)


_POOL = PoolSettings(
    upstreams=(UpstreamServer("unix:program"),),
    send_proxy_protocol=2,
    connect_attempts=1,
)
"""The program as a pool; its dialer connects inside the process, and takes the PROXY header."""


@implementer(IListeningPort)
class GuardedPort:
    """The port of a `GuardedEndpoint`."""

    def __init__(self, service: ProxyService, factory: Factory) -> None:
        self._service = service
        self._factory = factory
        (self._host,) = service.addresses

    def startListening(self) -> None:
        """Nothing to do: the endpoint has begun to listen."""

    def stopListening(self) -> Deferred[None]:
        """Close the port.  Sessions go on, as connections of Twisted's own ports do."""
        closed: Deferred[Any] = maybeDeferred(self._service.listeners[0].close)

        def drain(_: object) -> None:
            self._service.drain(None)
            self._factory.doStop()

        return closed.addCallback(drain)

    def getHost(self) -> Any:
        return self._host
