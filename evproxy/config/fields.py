"""
Every key that a configuration file may have, and the rule for its value.

A table of the file is an attrs class of `evproxy.settings`, and a key is its attribute of
the same name.  What is not here is refused, even if the settings have it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping

from evproxy.config import addresses
from evproxy.config.pool_tables import DISCOVER_KEYS, HEALTH_CHECK_KEYS
from evproxy.config.rules import (
    Refused,
    Rule,
    array,
    choice,
    flag,
    judged,
    many,
    matching,
    regular_expression,
    seconds,
    some,
    table,
    tables,
    text,
    whole,
)
from evproxy.model import UpstreamServer
from evproxy.policy.balance import NAMES
from evproxy.settings import (
    HIGHEST_PORT,
    MILLISECOND,
    MOST_IN_A_ROW,
    MOST_SESSIONS,
    RELAYS,
    Discover,
    Ejection,
    HealthCheck,
    ListenerSettings,
    PoolSettings,
    Settings,
    Timeouts,
)

Validate = Callable[[str], str | None]
"""Looks closer at an endpoint description: why it is refused, ``None`` if it is not."""

Fields = Mapping[type, Mapping[str, Rule]]
"""For each table of the file, the keys it may have."""

_NAME = 'a name of letters, digits, "_", "-" and "."'


def pool_name_rule() -> Rule:
    """What a pool may be called: fit for a log line and a metric's label."""
    return matching(_NAME, r"[\w.-]+")


def fields(
    directory: str,
    validate_endpoint: Validate | None = None,
    validate_listen: Validate | None = None,
) -> Fields:
    """
    The tables and their keys.

    `directory` is prefixed to the paths in the file that are not absolute.  An upstream
    server's endpoint must satisfy `validate_endpoint` too, if there is one, and that of a
    listener `validate_listen`.
    """
    listen = judged("a server endpoint description", addresses.listen_fault)
    endpoint = judged(
        "HOST:PORT, [v6]:PORT or a client endpoint description", addresses.upstream_fault
    )
    return {
        Settings: {
            "listeners": array("an array of tables", tuple[ListenerSettings, ...]),
            "pools": tables(dict[str, PoolSettings]),
            "timeouts": table(Timeouts),
            "max_sessions": whole(0, MOST_SESSIONS),
            "relay": choice(*RELAYS),
        },
        ListenerSettings: {
            "name": matching(_NAME, r"[\w.-]*"),
            "listen": _description_rule(listen, directory, validate_listen),
            "pool": text(),
        },
        Timeouts: {
            "idle": seconds(0),
            "half_close": seconds(MILLISECOND),
            "drain": seconds(0),
        },
        PoolSettings: _pool_fields(),
        UpstreamServer: {
            "endpoint": _description_rule(endpoint, directory, validate_endpoint),
            "weight": whole(0, 256),
            "backup": flag(),
            "max_sessions": whole(0, MOST_SESSIONS),
            "priority": whole(0, 65535),
        },
        HealthCheck: _health_check_fields(directory),
        Ejection: {
            "failures": whole(1, MOST_IN_A_ROW),
            "base_time": seconds(MILLISECOND),
            "max_time": seconds(MILLISECOND),
            "max_percent": whole(0, 100),
        },
        Discover: _discover_fields(directory),
    }


def _pool_fields() -> Mapping[str, Rule]:
    return {
        "upstreams": array("an array of upstream servers", tuple[UpstreamServer, ...]),
        "balance": choice(*NAMES),
        "connect_timeout": seconds(MILLISECOND),
        "connect_attempts": whole(1, MOST_IN_A_ROW),
        "queue_timeout": seconds(0),
        "queue_size": whole(0, MOST_SESSIONS),
        "slow_start": seconds(0),
        "on_down": choice("keep", "reset"),
        "all_down": choice("refuse", "try"),
        "health_check": table(HealthCheck),
        "ejection": table(Ejection),
        "discover": table(Discover),
    }


def _health_check_fields(directory: str) -> Mapping[str, Rule]:
    return {
        "kind": choice(*HEALTH_CHECK_KEYS),
        "interval": seconds(MILLISECOND),
        "fast_interval": seconds(0),
        "timeout": seconds(MILLISECOND),
        "rise": whole(1, MOST_IN_A_ROW),
        "fall": whole(1, MOST_IN_A_ROW),
        "port": whole(0, HIGHEST_PORT),
        "method": matching("an HTTP method", r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"),
        "path": matching("a path that starts with /, in ASCII, without spaces", r"/[!-~]*"),
        "host": matching("HOST or HOST:PORT, in ASCII", r"(?!.*[/?#@])[!-~]*"),
        "expect_status": many("an array of whole numbers from 100 to 599", whole(100, 599)),
        "expect_text": text(),
        "send": _escaped_rule(),
        "expect": _escaped_rule(),
        "expect_pattern": regular_expression(),
        "verify": flag(),
        "server_name": judged("a host name or an IP address", addresses.server_name_fault),
        "ca": _path_rule("a path", r".*", directory),
    }


def _discover_fields(directory: str) -> Mapping[str, Rule]:
    return {
        "kind": choice(*DISCOVER_KEYS),
        "name": judged("a domain name", addresses.domain_fault),
        "port": whole(1, HIGHEST_PORT),
        "path": _path_rule("a path that ends in .toml or .json", r".*[^/]\.(toml|json)", directory),
        "endpoints": some("an array of URLs, at least one", judged("a URL", addresses.url_fault)),
        "prefix": matching("a string that is not empty", r".+"),
        "interval": seconds(MILLISECOND),
        "min_interval": seconds(MILLISECOND),
        "nameservers": many(
            "an array of addresses",
            judged("ADDRESS or ADDRESS:PORT", addresses.nameserver_fault),
        ),
    }


def _path_rule(expected: str, pattern: str, directory: str) -> Rule:
    """A path that `pattern` matches; an empty one, if it may be empty, stays so."""
    plain = matching(expected, rf"(?!.*\0){pattern}")

    def accept(value: object) -> str:
        path: str = plain.accept(value)
        return posixpath.join(directory, path) if path else path

    return Rule(expected, accept)


def _escaped_rule() -> Rule:
    return matching(
        r"a string, with \r, \n, \t, \0, \\ and \xHH as its only backslashes",
        r"(?:[^\\]|\\[rnt0\\]|\\x[0-9a-fA-F]{2})*",
    )


def _description_rule(plain: Rule, directory: str, validate: Validate | None) -> Rule:
    """The rule `plain` for an endpoint description, then a closer look by `validate`."""

    def accept(value: object) -> str:
        description = addresses.below(directory, plain.accept(value))
        fault = validate(description) if validate is not None else None
        if fault is not None:
            raise Refused(fault)
        return description

    return Rule(plain.expected, accept)
