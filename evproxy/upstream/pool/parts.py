"""The parts that a pool is made of: its balancer, its dialers, its probe and its discovery."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IStreamClientEndpoint

from evproxy.errors import Shortage
from evproxy.interfaces import Balancer, Dialer, Discovery, Probe
from evproxy.model import UpstreamServer
from evproxy.policy.balance.by_name import balancer_named
from evproxy.policy.sources import Sources
from evproxy.settings import Discover, HealthCheck, PoolSettings, PoolTLS
from evproxy.sockets.sourced import SourcedReactor
from evproxy.sockets.tls_client import ClientTLS
from evproxy.upstream.address import dialer_for
from evproxy.upstream.discovery.by_kind import discovery_for
from evproxy.upstream.names import Names
from evproxy.upstream.probes.endpoints import check_endpoints
from evproxy.upstream.probes.header import check_header
from evproxy.upstream.probes.probe import check_probe, probe_for
from evproxy.upstream.probes.secured import SecuredEndpoint
from evproxy.upstream.resolving import ResolvingReactor
from evproxy.upstream.tls_dialer import TLSDialer, request_before, tls_name


def dialers_on(
    reactor: Any, names: Names, source: Sources | None = None, settings: PoolTLS | None = None
) -> Callable[[UpstreamServer], Dialer]:
    """
    Return a factory of dialers for one pool.

    :param names: resolves host names.
    :param source: the source addresses of plain sockets; ``None``: as the kernel chooses.
    :param settings: the TLS that is started; ``None``: none.
    :raises SettingsError: if a file of `settings` cannot be used.
    """
    if settings is None:
        return lambda server: dialer_for(reactor, names, server, source)
    tls, chosen, request = ClientTLS(settings), settings, request_before(settings)

    def with_tls(server: UpstreamServer) -> Dialer:
        name = tls_name(chosen, server)
        dialer = dialer_for(reactor, names, server, source)
        return TLSDialer(reactor, dialer, tls, name, request)

    return with_tls


def probes_on(
    reactor: Any,
    names: Names | None = None,
    pool_proxy_version: int = 0,
    settings: PoolTLS | None = None,
) -> Callable[[HealthCheck], Probe]:
    """
    Return a factory that makes the probe for a health check.

    :param names: resolves host names; ``None``: a resolver of its own.
    :param pool_proxy_version: the version of the PROXY header that a server gets first, unless
        the server has a version of its own.
    :param settings: the TLS of the pool; ``None``: none.
    """
    names = names or Names(reactor)
    tls = None if settings is None else _securing(settings)
    return lambda check: probe_for(
        reactor, check, check_endpoints(reactor, names, check.timeout), pool_proxy_version, tls
    )


def _securing(
    settings: PoolTLS,
) -> Callable[[IStreamClientEndpoint, UpstreamServer], IStreamClientEndpoint]:
    tls, request = ClientTLS(settings), request_before(settings)

    def secured(endpoint: IStreamClientEndpoint, server: UpstreamServer) -> SecuredEndpoint:
        return SecuredEndpoint(endpoint, tls, tls_name(settings, server), request)

    return secured


def discoveries_on(
    reactor: Any, random: Random, names: Names | None = None
) -> Callable[[Discover], Discovery]:
    """
    Return a factory that makes the discovery for its settings.

    :param random: the random source of the delays.
    :param names: resolves the host names of etcd members; ``None``: a resolver of its own.
    """
    resolving = ResolvingReactor(reactor, names or Names(reactor))
    return lambda discover: discovery_for(resolving, discover, random)


@frozen(kw_only=True)
class GivenParts:
    """
    The parts that the caller of a pool gives; ``None``: the settings decide.

    The fields are the arguments of `Pool` with the same names.  `balancer`, `probe` and
    `discovery` are objects given as `balance`, `health_check` and `discover`.
    """

    balancer: Balancer | None = None
    probe: Probe | None = None
    discovery: Discovery | None = None
    check_timing: HealthCheck | None = None
    dialer_for: Callable[[UpstreamServer], Dialer] | None = None
    probe_for: Callable[[HealthCheck], Probe] | None = None
    discovery_for: Callable[[Discover], Discovery] | None = None
    random: Random | None = None
    names: Names | None = None


class Parts:
    """
    The parts of one pool.

    `probe` and `discovery` are ``None`` if the pool has no health checks or no discovery.
    `own_names` is the resolver that the pool must stop: ``None`` if the caller gave `names`.

    :param short: called with the shortage when a source address cannot be used.
    """

    def __init__(
        self,
        reactor: Any,
        settings: PoolSettings,
        given: GivenParts,
        short: Callable[[Shortage], None],
    ) -> None:
        self.own_names = Names(reactor) if given.names is None else None
        names = given.names or self.own_names
        assert names is not None
        source = Sources(settings.source) if settings.source else None
        self.random = given.random if given.random is not None else Random()
        self.balancer = given.balancer or balancer_named(settings.balance, self.random)
        connecting = reactor if source is None else SourcedReactor(reactor, source, short)
        self.dialer_for = given.dialer_for or dialers_on(connecting, names, source, settings.tls)
        self.probe = given.probe
        self._proxy_version = settings.send_proxy_protocol
        self._tls = settings.tls
        self.check_timing = given.check_timing or HealthCheck()
        # A probe that the caller makes may accept endpoints that evproxy's own probes refuse.
        self._own_check: HealthCheck | None = None
        if settings.health_check is not None:
            self.check_timing = settings.health_check
            version = settings.send_proxy_protocol
            make_probe = given.probe_for or probes_on(connecting, names, version, settings.tls)
            self.probe = make_probe(self.check_timing)
            if given.probe_for is None:
                self._own_check = settings.health_check
        self.discovery = given.discovery
        if settings.discover is not None:
            make = given.discovery_for or discoveries_on(reactor, self.random, names)
            self.discovery = make(settings.discover)

    def check_endpoint(self, server: UpstreamServer) -> None:
        """
        Check that `server` can get a PROXY header and TLS, and that the probe can ever succeed.

        :raises SettingsError: if it cannot; the message says why, with the key's name.
        """
        check_header(server, self._proxy_version)
        if self._tls is not None:
            tls_name(self._tls, server)
        if self._own_check is not None:
            check_probe(self._own_check, server.endpoint)
