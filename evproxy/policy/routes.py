"""
The conditions of a declared route: which names, addresses and protocols it matches.

Pure.  A condition that needs bytes of the client is asked only once these are read.
"""

from __future__ import annotations

import re

from attrs import field, frozen

from evproxy.policy.address_number import address_number
from evproxy.policy.networks import Networks
from evproxy.settings import RouteSettings
from evproxy.wire.client_hello import ClientHello
from evproxy.wire.postgres import Startup

_WILDCARD = re.compile(r"\*(?:\.(.+))?")


def name_matches(pattern: str, name: str) -> bool:
    """
    Whether the host name `name` matches `pattern`: both in lower case.

    ``*.example.org`` matches every name below ``example.org``, however deep, and not
    ``example.org`` itself, as in nginx's ``map`` with ``hostnames``.  ``*`` matches every name.
    """
    wildcard = _WILDCARD.fullmatch(pattern)
    if wildcard is None:
        return name == pattern
    return bool(name) and (wildcard[1] is None or name.endswith("." + wildcard[1]))


@frozen
class Conditions:
    """
    The conditions of `route`, all of which must hold.

    `reads_hello`, `reads_host` and `reads_start` say what must be read of the client.
    """

    route: RouteSettings
    reads_hello: bool = field(init=False)
    reads_host: bool = field(init=False)
    reads_start: bool = field(init=False)
    _networks: Networks | None = field(init=False)

    @reads_hello.default
    def _reads_hello(self) -> bool:
        return bool(self.route.sni or self.route.alpn)

    @reads_host.default
    def _reads_host(self) -> bool:
        return bool(self.route.http_host)

    @reads_start.default
    def _reads_start(self) -> bool:
        return bool(self.route.postgres_user or self.route.postgres_database)

    @_networks.default
    def _make_networks(self) -> Networks | None:
        return Networks([self.route.peer]) if self.route.peer else None

    @property
    def reads(self) -> bool:
        """Whether anything must be read of the client."""
        return self.reads_hello or self.reads_host or self.reads_start

    def hold_for(self, host: str, listener: str, certificate: str) -> bool:
        """
        Whether those conditions hold that need nothing to be read.

        :param host: the client's address.
        :param listener: the name of the listener.
        :param certificate: the common name in the client's verified certificate, or empty.
        """
        route = self.route
        if route.listener and route.listener != listener:
            return False
        if route.client_cert and not (certificate and _cn_matches(route.client_cert, certificate)):
            return False
        if self._networks is None:
            return True
        number = address_number(host)
        return number is not None and number in self._networks

    def hold_for_hello(self, hello: ClientHello) -> bool:
        """Whether `sni` and `alpn` match `hello`."""
        route = self.route
        if route.sni and not name_matches(route.sni.lower(), hello.server_name or ""):
            return False
        return not route.alpn or route.alpn.encode() in hello.alpn

    def hold_for_host(self, host: str) -> bool:
        """Whether `http_host` matches `host`."""
        return name_matches(self.route.http_host.lower(), host)

    def hold_for_start(self, start: Startup) -> bool:
        """Whether `postgres_user` and `postgres_database` match `start`."""
        user, database = self.route.postgres_user, self.route.postgres_database
        return user in ("", start.user) and database in ("", start.database)

    def __str__(self) -> str:
        """The conditions as the log has them: ``sni *.example.org, alpn h2``."""
        return ", ".join(
            f"{key} {value}" for key in CONDITIONS if (value := getattr(self.route, key))
        )


CONDITIONS = (
    *("listener", "peer", "client_cert", "sni", "alpn"),
    *("http_host", "postgres_user", "postgres_database"),
)
"""The keys of a route that are conditions, in the order in which the log has them."""


def _cn_matches(pattern: str, name: str) -> bool:
    return name_matches(pattern.lower(), name.lower())
