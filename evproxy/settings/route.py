"""
The settings of a declared route.
"""

from __future__ import annotations

from attrs import frozen

from evproxy.config.declare import setting
from evproxy.config.rules import Judged, Matching, Text
from evproxy.policy.networks import network_fault

_HOST_PATTERN = Matching(
    'a name, "*" or "*.NAME"', r"\*|(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|"
)


@frozen
class RouteSettings:
    """One route of a listener: the sessions for which all of its conditions hold go to a pool."""

    pool: str = setting(Text(), "The pool that gets these sessions.")
    sni: str = setting(
        _HOST_PATTERN,
        "The name that a TLS client asks for. `*.example.org`: every name below `example.org`, "
        "however deep. `*`: any name.",
        default="",
    )
    alpn: str = setting(
        Matching("a protocol in ASCII", r"[!-~]*"),
        "A protocol that a TLS client offers, such as `h2` or `postgresql`. Where evproxy ends "
        "TLS: the one that it has chosen.",
        default="",
    )
    peer: str = setting(
        Judged(
            'an IP address or a network, such as "10.0.0.0/8"',
            lambda text: network_fault(text) if text else None,
        ),
        "The network of the client.",
        default="",
    )
    listener: str = setting(Text(), "The name of the listener.", default="")
    client_cert: str = setting(
        Text(),
        "The common name in the client's verified certificate, as `sni`. Behind a PROXY header, "
        "the proxy says it.",
        default="",
    )
    http_host: str = setting(
        _HOST_PATTERN,
        "The host of the first HTTP/1 request on the connection, as `sni`.",
        default="",
    )
    postgres_user: str = setting(
        Text(), "The user in the first message of a PostgreSQL client without TLS.", default=""
    )
    postgres_database: str = setting(
        Text(), "The database in that message; by default it is the user's name.", default=""
    )
