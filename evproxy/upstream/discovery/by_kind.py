"""
Makes the discovery of a pool from its settings, by kind.

`discovery_for` makes the discovery.  A discovery of your own is any object that satisfies
`evproxy.interfaces.Discovery`.

All kinds call `changed` with a complete set of servers: when the set has changed, and with the
first set after a failure.  While look-ups fail, the last good set stays, and look-ups are
repeated with a growing delay of at most `Discover.interval`.
"""

from __future__ import annotations

from random import Random
from typing import Any

from evproxy.config.declare import declared
from evproxy.config.problems import quoted
from evproxy.errors import SettingsError
from evproxy.interfaces import Discovery
from evproxy.settings import Discover
from evproxy.upstream.address import check_upstream
from evproxy.upstream.discovery.dns import dns_discovery
from evproxy.upstream.discovery.etcd import etcd_discovery
from evproxy.upstream.discovery.file import file_discovery


def discovery_for(reactor: Any, settings: Discover, random: Random) -> Discovery:
    """
    Make the discovery that `settings` describe.

    :param reactor: provides `IReactorTime`, `IReactorFDSet`, `IReactorTCP` and
        `IReactorFromThreads`, as Twisted's reactors do.
    :param random: the random source of the delays after failed look-ups.
    """

    def validate(endpoint: str) -> str | None:
        try:
            check_upstream(reactor, endpoint)
        except SettingsError as error:
            return str(error)
        return None

    for each in declared(Discover):
        missing = getattr(settings, each.name) == each.default
        if missing and settings.kind in each.setting.required_for:
            raise SettingsError(f"discover.{each.name}: required for kind {quoted(settings.kind)}")
    shortest, longest = settings.min_interval, settings.interval
    if shortest > longest:
        raise SettingsError(
            f"discover.min_interval: min_interval ({shortest}) is more than interval ({longest})"
        )
    match settings.kind:
        case "dns" | "dns-srv":
            return dns_discovery(reactor, settings, random)
        case "file":
            return file_discovery(reactor, settings, validate)
        case "etcd":
            return etcd_discovery(reactor, settings, random, validate)
    raise AssertionError("Discover refuses any other kind")
