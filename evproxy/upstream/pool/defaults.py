"""What pools are made with unless they are given something else."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from evproxy.interfaces import Dialer, Discovery, Probe
from evproxy.model import UpstreamServer
from evproxy.policy.sources import Sources
from evproxy.settings import Discover, HealthCheck
from evproxy.sockets.sourced import SourcedReactor
from evproxy.upstream.address import dialer_for
from evproxy.upstream.discovery.by_kind import discovery_for
from evproxy.upstream.names import Names
from evproxy.upstream.probes.names import check_endpoints
from evproxy.upstream.probes.probe import probe_for
from evproxy.upstream.resolving import ResolvingReactor


def dialers_on(
    reactor: Any, names: Names, source: Sources | None = None
) -> Callable[[UpstreamServer], Dialer]:
    """Makes the dialers of one pool; `names` resolves host names, `source` is connected from."""
    return lambda server: dialer_for(reactor, names, server.endpoint, source)


def probes_on(
    reactor: Any, names: Names | None = None, source: Sources | None = None
) -> Callable[[HealthCheck], Probe]:
    """
    Makes the probe that a health check describes.

    `names` (``None``: its own) resolves host names, `source` is connected from.
    """
    names = names or Names(reactor)
    connecting = reactor if source is None else SourcedReactor(reactor, source)
    return lambda check: probe_for(
        reactor, check, check_endpoints(connecting, names, check.timeout)
    )


def discoveries_on(
    reactor: Any, random: Random, names: Names | None = None
) -> Callable[[Discover], Discovery]:
    """
    Makes the discovery that settings describe.

    `random` draws its delays, `names` (``None``: its own) resolves the hosts of etcd members.
    """
    resolving = ResolvingReactor(reactor, names or Names(reactor))
    return lambda discover: discovery_for(resolving, discover, random)
