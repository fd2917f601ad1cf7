"""
The arguments of `ProxyService` as settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import attrs
from attrs import evolve
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint

from evproxy.errors import SettingsError
from evproxy.interfaces import Pool
from evproxy.model import UpstreamServer, upstream_server
from evproxy.service.listener import described, listeners_for
from evproxy.settings import AccessLogSettings, PoolSettings, Settings, Timeouts, in_a_tuple


def settings_of(
    listen: Sequence[str | IStreamServerEndpoint],
    upstreams: Sequence[str | UpstreamServer | IStreamClientEndpoint],
    pool: Pool | None,
    *,
    source: str | Sequence[str],
    timeouts: Timeouts,
    access_log: AccessLogSettings | bool,
    accept_proxy_protocol_from: str | Sequence[str],
    permissions: Sequence[str],
    pool_options: dict[str, Any],
    **more: Any,
) -> Settings:
    """
    Return the settings that the arguments of `ProxyService` describe.

    :param permissions: those of UNIX listeners, in the order of `PERMISSIONS`.
    :param pool_options: further fields of `PoolSettings`.
    :param more: further fields of `Settings`.
    :raises SettingsError: if an argument is wrong, or contradicts another.
    """
    _refuse_none("listen", listen, "server endpoint description")
    if pool is None:
        _refuse_none("upstreams", upstreams, "server (or a pool)")
    descriptions = [each if isinstance(each, str) else described(each) for each in listen]
    pool_settings = PoolSettings(
        upstreams=tuple(upstream_server(given) for given in upstreams),
        source=in_a_tuple(source),
        **pool_options,
    )
    if pool is not None:
        _refuse_beside_a_pool(pool_settings)
    proxies = in_a_tuple(accept_proxy_protocol_from)
    if isinstance(access_log, bool):
        access_log = AccessLogSettings("auto" if access_log else "off")
    return Settings(
        listeners=tuple(
            evolve(each, accept_proxy_protocol_from=proxies)
            for each in listeners_for(descriptions, *permissions)
        ),
        pools=(pool_settings,),
        timeouts=timeouts,
        access_log=access_log,
        **more,
    )


def _refuse_none(argument: str, values: object, what: str) -> None:
    """Refuse an empty sequence, and a string, which is a sequence of characters."""
    if isinstance(values, str) or not isinstance(values, Iterable) or not values:
        raise SettingsError(
            f"{argument}: expected a sequence of at least one {what}, got {values!r}"
        )


def _refuse_beside_a_pool(given: PoolSettings) -> None:
    """Refuse pool options beside a pool object: the options would have no effect."""
    for attribute in attrs.fields(PoolSettings):
        if getattr(given, attribute.name) != attribute.default:
            raise SettingsError(
                f"{attribute.name}: cannot be given together with pool, which has its own"
            )
