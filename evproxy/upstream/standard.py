"""What pools are made with unless they are given something else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from evproxy.interfaces import Dialer, Discovery, Probe
from evproxy.model import UpstreamServer
from evproxy.settings import Discover, HealthCheck
from evproxy.upstream.connect import client_endpoint, dialer_for
from evproxy.upstream.discovery import discovery_for
from evproxy.upstream.names import Names
from evproxy.upstream.probes import probe_for


def dialers_on(reactor: Any) -> Callable[[UpstreamServer], Dialer]:
    """Makes the dialers of one pool, which share the names that they have resolved."""
    names = Names(reactor)
    return lambda server: dialer_for(reactor, names, server.endpoint)


def probes_on(reactor: Any) -> Callable[[HealthCheck], Probe]:
    """Makes the probe that a health check describes."""
    return lambda check: probe_for(reactor, check, partial(client_endpoint, reactor))


def discoveries_on(reactor: Any, random: Random) -> Callable[[Discover], Discovery]:
    """Makes the discovery that settings describe; `random` draws its delays."""
    return lambda discover: discovery_for(reactor, discover, random)
