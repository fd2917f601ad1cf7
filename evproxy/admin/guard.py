"""
Who may ask, and who may change: the checks of a request before anything else looks at it.

Pure.  A browser must not become the tool of a page that its user visits:

* DNS rebinding gives a name of an attacker the address of the admin interface.  The browser then
  sends this name as ``Host``.  An address, or a name that the settings list, cannot be rebound.
* A page of another site can send requests that it cannot read the answers of.  The browser says so
  in ``Origin`` (RFC 6454) and in ``Sec-Fetch-Site`` (W3C, "Fetch Metadata Request Headers").
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from attrs import frozen

from evproxy.admin.answers import Problem
from evproxy.config.canonical import is_address
from evproxy.config.problems import quoted

_OWN_PAGES = ("same-origin", "none")
"""``Sec-Fetch-Site`` of requests by pages of the admin interface, and by the user."""


@frozen
class Asking:
    """
    What is known of a request before its body is read.

    `local`: it came through a UNIX socket.  `changes`: it would change the proxy.  `hosts`,
    `origins`, `sites` and `credentials` are the values of the headers Host, Origin, Sec-Fetch-Site
    and Authorization.  `old`: the client speaks HTTP/1.0, which needs no Host.
    """

    local: bool
    changes: bool
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    sites: Sequence[str] = ()
    credentials: Sequence[str] = ()
    old: bool = False


@frozen
class Guard:
    """
    Decides which requests are served.

    :param token: what a request needs to change the proxy; empty: nothing.
    :param names: the host names of the admin interface, in lower case.
    """

    token: bytes
    names: frozenset[str]

    def check(self, asking: Asking) -> None:
        """
        Return if a request may be served.

        :raises Problem: if it may not.
        """
        self._check_host(asking)
        if asking.changes:
            self._check_origin(asking)
            self._check_token(asking)

    def _check_host(self, asking: Asking) -> None:
        if asking.local or (asking.old and not asking.hosts):
            return
        if len(asking.hosts) != 1:
            raise Problem(400, "Host: expected exactly one such header")
        [host] = asking.hosts
        name = _name_in(host)
        if not (is_address(name) or name == "localhost" or name in self.names):
            raise Problem(
                403, f"Host: {quoted(host)} is no name of this admin interface: see admin.hosts"
            )

    def _check_origin(self, asking: Asking) -> None:
        for site in asking.sites:
            if site.strip().lower() not in _OWN_PAGES:
                raise Problem(403, "Sec-Fetch-Site: pages of other sites may not change the proxy")
        for origin in asking.origins:
            _, _, host = origin.strip().lower().partition("://")
            if not host or host not in [each.strip().lower() for each in asking.hosts]:
                raise Problem(403, f"Origin: pages of {quoted(origin)} may not change the proxy")

    def _check_token(self, asking: Asking) -> None:
        if not self.token:
            return
        kind, _, given = (asking.credentials[0] if asking.credentials else "").partition(" ")
        right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self.token)
        if len(asking.credentials) != 1 or kind.lower() != "bearer" or not right:
            what = "a wrong token" if given else "no token"
            raise Problem(
                401,
                f"Authorization: {what}; to change the proxy, send the bearer token of its token "
                "file",
                {"WWW-Authenticate": 'Bearer realm="evproxy"'},
            )


def _name_in(host: str) -> str:
    """The host in ``HOST:PORT``, ``[v6]:PORT`` or ``HOST``, in lower case."""
    host = host.strip().lower()
    if host.startswith("["):
        name, bracket, _ = host[1:].partition("]")
        return name if bracket else host
    name, _, port = host.rpartition(":")
    found = name if port.isdigit() and name else host
    return found.removesuffix(".")
