"""The parts that a pool is made of: its balancer, its dialers, its probe and its discovery."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IStreamClientEndpoint

from evproxy.engine.files import signature_or_error
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
from evproxy.upstream.pool.checks import ServerChecks
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
    checks_for: Callable[..., ServerChecks] | None = None


class Parts:
    """
    The parts of one pool.

    `probe` and `discovery` are ``None`` if the pool has no health checks or no discovery.
    `own_names` is the resolver that the pool must stop: ``None`` if the caller gave `names`.
    `files` differs once a file of the settings has changed.

    Reads files: it may block.

    :param short: called with the shortage when a source address cannot be used.
    :param before: the parts that the pool has; those that `settings` do not change stay.
    """

    names: Names
    random: Random
    connecting: Any
    dialer_for: Callable[[UpstreamServer], Dialer]
    balancer: Balancer
    probe: Probe | None
    check_timing: HealthCheck
    discovery: Discovery | None

    def __init__(
        self,
        reactor: Any,
        settings: PoolSettings,
        given: GivenParts,
        short: Callable[[Shortage], None],
        before: Parts | None = None,
    ) -> None:
        self.settings = settings
        self.files = files_of(settings)
        self.own_names: Names | None = None
        if before is not None:
            self.names, self.random, self.own_names = before.names, before.random, before.own_names
        else:
            self.own_names = Names(reactor) if given.names is None else None
            self.names = given.names or self.own_names or Names(reactor)
            self.random = given.random if given.random is not None else Random()
        kept = before if before is not None and before.connects_as(self) else None
        if kept is not None:
            connecting, self.dialer_for = kept.connecting, kept.dialer_for
        else:
            source = Sources(settings.source) if settings.source else None
            connecting = reactor if source is None else SourcedReactor(reactor, source, short)
            self.dialer_for = given.dialer_for or dialers_on(
                connecting, self.names, source, settings.tls
            )
        self.connecting = connecting
        if before is not None and before.settings.balance == settings.balance:
            self.balancer = before.balancer
        else:
            self.balancer = given.balancer or balancer_named(settings.balance, self.random)
        if kept is not None and kept.settings.health_check == settings.health_check:
            self.probe, self.check_timing = kept.probe, kept.check_timing
        else:
            self.probe, self.check_timing = self._probe(given)
        # A probe that the caller makes may accept endpoints that evproxy's own probes refuse.
        self._own_check = settings.health_check if given.probe_for is None else None
        if before is not None and before.settings.discover == settings.discover:
            self.discovery = before.discovery
        else:
            self.discovery = self._discovery(reactor, given)

    def connects_as(self, other: Parts) -> bool:
        """Whether connections to servers are made as `other` makes them."""
        mine, others = self.settings, other.settings
        return (mine.source, mine.tls, mine.send_proxy_protocol, self.files) == (
            others.source,
            others.tls,
            others.send_proxy_protocol,
            other.files,
        )

    def _probe(self, given: GivenParts) -> tuple[Probe | None, HealthCheck]:
        settings = self.settings
        if settings.health_check is None:
            return given.probe, given.check_timing or HealthCheck()
        make = given.probe_for or probes_on(
            self.connecting, self.names, settings.send_proxy_protocol, settings.tls
        )
        return make(settings.health_check), settings.health_check

    def _discovery(self, reactor: Any, given: GivenParts) -> Discovery | None:
        if self.settings.discover is None:
            return given.discovery
        make = given.discovery_for or discoveries_on(reactor, self.random, self.names)
        return make(self.settings.discover)

    def check_endpoint(self, server: UpstreamServer) -> None:
        """
        Check that `server` can get a PROXY header and TLS, and that the probe can ever succeed.

        :raises SettingsError: if it cannot; the message says why, with the key's name.
        """
        check_header(server, self.settings.send_proxy_protocol)
        if self.settings.tls is not None:
            tls_name(self.settings.tls, server)
        if self._own_check is not None:
            check_probe(self._own_check, server.endpoint)


def files_of(settings: PoolSettings) -> tuple[object, ...]:
    """What differs once one of the files that `settings` name was changed or replaced."""
    paths = [] if settings.tls is None else [settings.tls.ca, settings.tls.certificate]
    if settings.health_check is not None:
        paths.append(settings.health_check.ca)
    return tuple(signature_or_error(path) for path in paths if path)
