"""
A pool: a named group of upstream servers and the policy that picks one.

`Pool` takes the settings as keywords, or as one value; `running_pool` has its other methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, Self

from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from evproxy.interfaces import Balancer, Dialer, Discovery, Probe
from evproxy.model import UpstreamServer, upstream_server
from evproxy.observers import Observer
from evproxy.settings import (
    Discover,
    Ejection,
    FaultSettings,
    HealthCheck,
    Mirror,
    PoolSettings,
    PoolTLS,
    in_a_tuple,
    refuse_beside_settings,
    refuse_other,
    several,
)
from evproxy.upstream.names import Names
from evproxy.upstream.pool.checks import ServerChecks
from evproxy.upstream.pool.parts import GivenParts
from evproxy.upstream.pool.reloading import ReloadablePool

_DEFAULT = PoolSettings()

_PARTS = ("dialer_for", "probe_for", "discovery_for", "random", "names", "checks_for", "observer")
"""The arguments of `Pool` that may stand beside ``settings``."""


class Pool(ReloadablePool):
    """
    Upstream servers, their health, and the choice among them; an `evproxy.interfaces.Pool`.

    The keywords from `name` to `discover` are the fields of `evproxy.settings.PoolSettings`,
    with the same defaults.  `balance`, `health_check` and `discover` also take an object of
    your own.  `settings` has all of them, without these objects.

    :param reactor: the time and the timers.
    :param servers: values, endpoints as in `UpstreamServer.endpoint`, or client endpoint
        objects.
    :param dialer_for: makes the `Dialer` of a server, once for each server; ``None``: the
        dialer that suits the endpoint.
    :param balance: the name of a policy, or a `Balancer`.
    :param health_check: the settings of active checks, or a `Probe`; ``None``: no checks.
    :param ejection: ``None``: no passive health.
    :param discover: the settings of discovery, or a `Discovery`; ``None``: no discovery.
    :param check_timing: the intervals, rise and fall for a `Probe` of your own.
    :param probe_for: makes the `Probe` for a `HealthCheck`; ``None``: the probe of its kind.
    :param discovery_for: makes the `Discovery` for a `Discover`; ``None``: that of its kind.
    :param random: the random source of policies, checks and delays; ``None``: a new one.
    :param names: resolves host names, for sessions, checks and etcd; ``None``: a new resolver.
    :param checks_for: makes the active checks, from a function that returns the settings of the
        pool and the arguments of `evproxy.upstream.pool.checks.Checks`; ``None``: this class.
    :param observer: is notified of changes; ``None``: no observer, unless a `ProxyService` gets
        the pool: then the service logs the changes.
    :param settings: the settings in one value, in place of the keywords.
    :raises SettingsError: if an argument has a wrong value, if a server is listed twice, or if
        a server can never pass the check.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        servers: Iterable[str | UpstreamServer | IStreamClientEndpoint] = (),
        *,
        dialer_for: Callable[[UpstreamServer], Dialer] | None = None,
        name: str = _DEFAULT.name,
        balance: str | Balancer = _DEFAULT.balance,
        connect_timeout: float = _DEFAULT.connect_timeout,
        connect_attempts: int = _DEFAULT.connect_attempts,
        send_proxy_protocol: int = _DEFAULT.send_proxy_protocol,
        queue_timeout: float = _DEFAULT.queue_timeout,
        queue_size: int = _DEFAULT.queue_size,
        slow_start: float = _DEFAULT.slow_start,
        on_down: str = _DEFAULT.on_down,
        all_down: str = _DEFAULT.all_down,
        source: str | Sequence[str] = _DEFAULT.source,
        tls: PoolTLS | None = _DEFAULT.tls,
        mirror: Mirror | None = _DEFAULT.mirror,
        faults: Sequence[FaultSettings] = _DEFAULT.faults,
        faults_seed: int = _DEFAULT.faults_seed,
        health_check: HealthCheck | Probe | None = _DEFAULT.health_check,
        ejection: Ejection | None = _DEFAULT.ejection,
        discover: Discover | Discovery | None = _DEFAULT.discover,
        check_timing: HealthCheck | None = None,
        probe_for: Callable[[HealthCheck], Probe] | None = None,
        discovery_for: Callable[[Discover], Discovery] | None = None,
        random: Random | None = None,
        names: Names | None = None,
        checks_for: Callable[..., ServerChecks] | None = None,
        observer: Observer | None = None,
        settings: PoolSettings | None = None,
    ) -> None:
        if not hasattr(reactor, "callLater"):
            raise TypeError(f"Pool: the first argument is the reactor, got {reactor!r}")
        if settings is not None:
            refuse_other("settings", settings, PoolSettings)
            refuse_beside_settings(Pool, locals(), _PARTS)
        balancer, policy = _own_or_setting(balance, _DEFAULT.balance, "update", "candidates")
        probe, check = _own_or_setting(health_check, None, "check")
        discovery, discovered = _own_or_setting(discover, None, "start", "stop")
        settings = settings or PoolSettings(
            name=name,
            upstreams=_upstreams(servers),
            balance=policy,
            connect_timeout=connect_timeout,
            connect_attempts=connect_attempts,
            send_proxy_protocol=send_proxy_protocol,
            queue_timeout=queue_timeout,
            queue_size=queue_size,
            slow_start=slow_start,
            on_down=on_down,
            all_down=all_down,
            source=in_a_tuple(source),
            tls=tls,
            mirror=mirror,
            faults=several("faults", faults),
            faults_seed=faults_seed,
            health_check=check,
            ejection=ejection,
            discover=discovered,
        )
        given = GivenParts(
            balancer=balancer,
            probe=probe,
            discovery=discovery,
            check_timing=check_timing,
            dialer_for=dialer_for,
            probe_for=probe_for,
            discovery_for=discovery_for,
            random=random,
            names=names,
            checks_for=checks_for,
        )
        super().__init__(reactor, settings, given, observer)

    @classmethod
    def from_settings(
        cls,
        reactor: IReactorTime,
        settings: PoolSettings,
        *,
        dialer_for: Callable[[UpstreamServer], Dialer] | None = None,
        probe_for: Callable[[HealthCheck], Probe] | None = None,
        discovery_for: Callable[[Discover], Discovery] | None = None,
        random: Random | None = None,
        names: Names | None = None,
        checks_for: Callable[..., ServerChecks] | None = None,
        observer: Observer | None = None,
    ) -> Self:
        """Make the pool that `settings` describe; the other arguments are those of the class."""
        return cls(
            reactor,
            settings=settings,
            dialer_for=dialer_for,
            probe_for=probe_for,
            discovery_for=discovery_for,
            random=random,
            names=names,
            checks_for=checks_for,
            observer=observer,
        )


def _upstreams(servers: Any) -> Any:
    """The setting for `servers`; `PoolSettings` refuses what is no array."""
    array = isinstance(servers, Iterable) and not isinstance(servers, str | bytes)
    return tuple(map(upstream_server, servers)) if array else servers


def _own_or_setting(given: Any, default: Any, *methods: str) -> tuple[Any, Any]:
    """The object of a user's own that `given` is, if it has `methods`, and the setting."""
    own = all(callable(getattr(given, method, None)) for method in methods)
    return (given, default) if own else (None, given)
