"""
The mirror of a server's endpoint string: the settings that its text means, and its second pool.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from evproxy.config.descriptions import ClientDescription
from evproxy.config.loops import loops
from evproxy.config.problems import shown
from evproxy.config.reading import Rule
from evproxy.config.rules import Many
from evproxy.endpoints.keys import items, read_keys, rules_of
from evproxy.errors import SettingsError
from evproxy.model import UpstreamServer
from evproxy.settings import ListenerSettings, Mirror, PoolSettings
from evproxy.upstream.pool.pool import Pool

SECOND_POOL = "mirror"
"""The name of the second pool in the log."""

MIRROR_KEYS = ("fraction", "hash", "answers", "buffer", "max_copies")
"""The settings of a mirror that an endpoint string can have, beside ``pool``."""

SECOND_POOL_KEYS = ("balance", "connect_timeout", "connect_attempts", "send_proxy_protocol")
"""The settings of the second pool that it can have, beside the servers."""


@frozen
class MirrorText(Rule):
    """
    The text of the key ``mirror``: ``pool=SERVER SERVER,KEY=VALUE…``.

    A file names the second pool.  A string has no other pools, and so lists the servers.
    """

    @property
    def expected(self) -> str:
        return "pool=SERVER, and further keys with commas between them"

    def read(self, text: str) -> tuple[Mirror, PoolSettings]:
        """
        The mirror and its second pool.

        :raises SettingsError: if anything is wrong; the message names the key.
        """
        given: dict[str, str] = {}
        for part in items(text):
            key, equals, value = part.partition("=")
            if not equals:
                raise SettingsError(f"evproxy: mirror: expected KEY=VALUE, got {shown(part)}")
            given[key] = value
        servers = Many("servers", ClientDescription())
        own, second = rules_of(Mirror, MIRROR_KEYS), rules_of(PoolSettings, SECOND_POOL_KEYS)
        values = read_keys({"pool": servers} | own | second, given, ("mirror",))
        upstreams = values.pop("pool", ())
        if not upstreams:
            raise SettingsError(
                "evproxy: mirror.pool: expected at least one server, such as "
                "mirror=pool=10.0.0.1\\:80"
            )
        pool = PoolSettings(
            name=SECOND_POOL,
            upstreams=tuple(map(UpstreamServer, upstreams)),
            **{key: values[key] for key in second if key in values},
        )
        return Mirror(SECOND_POOL, **{key: values[key] for key in own if key in values}), pool


def check_second_pool(
    reactor: Any, listener: ListenerSettings, pools: tuple[PoolSettings, PoolSettings]
) -> None:
    """
    Check the servers of the second of `pools`, before there are clients.

    :raises SettingsError: if there is no such server, or if the copies of `listener` would come
        back to it.
    """
    _, second = pools
    try:
        Pool.from_settings(reactor, second)
    except SettingsError as error:
        # The servers are the key `upstreams` in a file only.
        why = str(error).removeprefix("upstreams: ")
        raise SettingsError(f"evproxy: mirror.pool: {why}") from None
    for loop in loops((listener,), pools):
        if loop.pool is second:
            raise SettingsError(f"evproxy: mirror.pool: {loop.reason}")
