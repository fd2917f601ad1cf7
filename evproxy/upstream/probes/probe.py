"""
Makes the probe of an active health check from its settings.

`probe_for` makes the probe.  A probe of your own is any object that satisfies
`evproxy.interfaces.Probe`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint

from evproxy.config.impossible import impossible
from evproxy.errors import SettingsError, Shortage
from evproxy.interfaces import Probe
from evproxy.model import UpstreamServer, proxy_version
from evproxy.settings import HealthCheck
from evproxy.upstream.address import parse_upstream, with_port
from evproxy.upstream.dialers import TCPAddress
from evproxy.upstream.probes import scripts
from evproxy.upstream.probes.attempt import Attempt
from evproxy.upstream.probes.conversation import Conversation, ask_tcp
from evproxy.upstream.probes.endpoints import FIRST_ANSWER, LooksUp
from evproxy.upstream.probes.header import HeaderEndpoint
from evproxy.upstream.probes.http import HttpQuestion
from evproxy.upstream.probes.tls import TlsQuestion, name_of, refuse_tls

__all__ = ["EndpointProbe", "Question", "check_probe", "probe_for"]


class Question(Protocol):
    """What a kind of check does on its connection."""

    def __call__(
        self, attempt: Attempt, endpoint: IStreamClientEndpoint, server: UpstreamServer
    ) -> Deferred[Any]:
        """
        Connect by `endpoint`, ask `server`, and call ``attempt.decide`` with the verdict.

        If the returned Deferred fails, the check fails.  Cancelling it cancels the connect.
        """


class EndpointProbe:
    """
    A probe that connects to a server by its endpoint.

    :param timeout: seconds for the whole check, from when the server's address is known.
    :param port: the port to check; 0: the server's own port.
    :param endpoint_for: makes the client endpoint of an address.
    :param pool_proxy_version: the version of the PROXY header that comes first, unless the server
        has a version of its own; 0: no header.
    :param tls: makes an endpoint with TLS of one without; ``None``: without.
    """

    def __init__(
        self,
        reactor: Any,
        question: Question,
        endpoint_for: Callable[[str], IStreamClientEndpoint],
        timeout: float,
        port: int = 0,
        pool_proxy_version: int = 0,
        tls: Callable[[IStreamClientEndpoint, UpstreamServer], IStreamClientEndpoint] | None = None,
    ) -> None:
        self._tls = tls
        self._reactor = reactor
        self._question = question
        self._endpoint_for = endpoint_for
        self._timeout = timeout
        self._port = port
        self._pool_proxy_version = pool_proxy_version
        self.longest = FIRST_ANSWER + timeout
        """See `evproxy.interfaces.SelfBounded`."""

    def check(
        self, server: UpstreamServer, done: Callable[[str | Shortage | None], None]
    ) -> Callable[[], None]:
        """See `evproxy.interfaces.Probe`.  `done` is never called from within."""
        # The text of an endpoint says whether it may try several addresses.
        plain = parse_upstream(server.endpoint)
        called = server.name if isinstance(plain, TCPAddress) else server.endpoint
        attempt = Attempt(self._reactor, self._timeout, done, called)
        version = proxy_version(server, self._pool_proxy_version)

        def ask() -> Deferred[Any]:
            address = with_port(server.endpoint, self._port)
            endpoint = server.client_endpoint or self._endpoint_for(address)
            if isinstance(endpoint, LooksUp):
                endpoint.notify(attempt)
            if version:
                endpoint = HeaderEndpoint(endpoint, version)
            if self._tls is not None:
                endpoint = self._tls(endpoint, server)
            return self._question(attempt, attempt.watched(endpoint), server)

        attempt.begin(ask)
        return attempt.cancel


def probe_for(
    reactor: Any,
    check: HealthCheck,
    endpoint_for: Callable[[str], IStreamClientEndpoint],
    pool_proxy_version: int = 0,
    tls: Callable[[IStreamClientEndpoint, UpstreamServer], IStreamClientEndpoint] | None = None,
) -> Probe:
    """
    Make the probe that `check` describes.

    :param reactor: the time and the timers; for ``http`` a reactor for Twisted's `Agent`.
    :param endpoint_for: makes the client endpoint of an address (``HOST:PORT`` or a Twisted
        client endpoint description).
    :param pool_proxy_version, tls: see `EndpointProbe`.
    :raises SettingsError: if no server can pass the check; the message names the key.
    """
    question = question_for(reactor, check)
    return EndpointProbe(
        reactor, question, endpoint_for, check.timeout, check.port, pool_proxy_version, tls
    )


def check_probe(check: HealthCheck, endpoint: str) -> None:
    """
    Check that `check` can ever succeed for the server at `endpoint`.

    :raises SettingsError: if it cannot; the message says why, with the key's name.
    """
    try:
        with_port(endpoint, check.port)
    except SettingsError as error:
        raise SettingsError(f"health_check.port: {error}") from None
    if check.kind != "tls":
        return
    try:
        refuse_tls(endpoint)
    except SettingsError as error:
        raise SettingsError(f"health_check.kind: {error}") from None
    if check.verify:
        try:
            name_of(check.server_name, endpoint)
        except SettingsError as error:
            raise SettingsError(f"health_check.server_name: {error}") from None


def question_for(reactor: Any, check: HealthCheck) -> Question:
    """The question of `check`.  Raises `SettingsError` if no server can pass it."""
    for key, why in impossible(check):
        raise SettingsError(f"health_check.{key}: {why}")
    match check.kind:
        case "tcp":
            return ask_tcp
        case "tls":
            return TlsQuestion(check)
        case "http":
            return HttpQuestion(reactor, check)
        case "send-expect":
            return Conversation(scripts.send_expect(check))
        case "redis":
            return Conversation(scripts.REDIS)
        case "smtp":
            return Conversation(scripts.SMTP)
        case "postgresql":
            return Conversation(scripts.POSTGRESQL)
    raise AssertionError("HealthCheck refuses any other kind")
