"""
The settings of a pool.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from evproxy.config.declare import setting
from evproxy.config.rules import (
    MOST_SESSIONS,
    Choice,
    Judged,
    Many,
    Matching,
    OneOrMany,
    Seconds,
    Text,
    Whole,
)
from evproxy.config.tables import Table
from evproxy.model import UpstreamServer
from evproxy.policy.balance.by_name import NAMES
from evproxy.policy.sources import MOST as MOST_SOURCES
from evproxy.policy.sources import Sources, source_fault
from evproxy.settings.arguments import in_a_tuple
from evproxy.settings.discover import SERVER, Discover
from evproxy.settings.fault import FAULTS, SEED, SEED_MEANING, FaultSettings
from evproxy.settings.health import MOST_IN_A_ROW, Ejection, HealthCheck
from evproxy.settings.mirror import Mirror
from evproxy.settings.timeouts import MILLISECOND
from evproxy.settings.tls import PoolTLS

POOL_NAME = Matching('a name of letters, digits, "_", "-" and "."', r"[\w.-]+")
"""The names that a file may give a pool: each fits a log line and a metric's label."""


def too_many_sources(given: Sequence[str]) -> str | None:
    """What is wrong with more than `MOST_SOURCES` addresses; ``None`` if `given` are fewer."""
    many = Sources(given).count > MOST_SOURCES
    return f"more than {MOST_SOURCES} addresses" if many else None


@frozen
class PoolSettings:
    """A named group of upstream servers, and how the pool picks one."""

    name: str = setting(Text(), "Its name in the log.", default="default", in_file=False)
    upstreams: tuple[UpstreamServer, ...] = setting(
        Many("an array of upstream servers", SERVER),
        "The servers: each an endpoint or [a table](#upstream-servers), and none twice.",
        default=(),
    )
    balance: str = setting(
        Choice(NAMES),
        "Which server gets a session: each in turn; the one with the fewest sessions for its "
        "weight; the better of two random ones; one that the client's address decides; the one "
        "that connects fastest.",
        default="round-robin",
        option="balance",
    )
    connect_timeout: float = setting(
        Seconds(MILLISECOND),
        "The timeout of one attempt to connect to one server.",
        default=5.0,
        option="connect-timeout",
    )
    connect_attempts: int = setting(
        Whole(1, MOST_IN_A_ROW),
        "How many distinct servers evproxy tries for one session before it resets the client.",
        default=3,
        option="connect-attempts",
    )
    send_proxy_protocol: int = setting(
        Whole(0, 2),
        "The version of the [PROXY header](proxy-protocol.md) that evproxy sends to a server "
        "first, so that the server knows the client. 0: no header.",
        default=0,
    )
    queue_timeout: float = setting(
        Seconds(0),
        "How long a session waits for a free slot while every server is at its `max_sessions`. 0: "
        "it does not wait.",
        default=5.0,
    )
    queue_size: int = setting(
        Whole(0, MOST_SESSIONS),
        "How many sessions may wait for a free slot at once. 0: none.",
        default=1024,
    )
    slow_start: float = setting(
        Seconds(0),
        "How long a server that came up takes to grow to its full weight. 0: no time.",
        default=0.0,
    )
    on_down: str = setting(
        Choice(("keep", "reset")),
        "Whether evproxy keeps or resets the sessions of a server that goes down.",
        default="keep",
    )
    all_down: str = setting(
        Choice(("refuse", "try")),
        "What happens to new sessions while no server is up: evproxy resets them, or tries the "
        "servers anyway.",
        default="refuse",
    )
    source: tuple[str, ...] = setting(
        OneOrMany(
            "an IP address, a range of them (CIDR), or an array of both",
            Judged("an IP address or a range of them (CIDR)", source_fault),
            too_many_sources,
        ),
        "The [addresses of this machine](pools.md#where-connections-come-from) that sessions and "
        "health checks connect from, in turn. Empty: the kernel chooses.",
        default=(),
        converter=in_a_tuple,
    )
    tls: PoolTLS | None = setting(
        Table(PoolTLS),
        "[TLS](#tls-of-a-pool) that evproxy starts to the servers, and health checks too.",
        default=None,
    )
    mirror: Mirror | None = setting(
        Table(Mirror),
        "A [mirror](#mirror): a copy of what clients send, for a second pool.",
        default=None,
    )
    faults: tuple[FaultSettings, ...] = setting(
        FAULTS,
        "[Faults](#faults) that are injected into its sessions, for tests: one table for each.",
        default=(),
        converter=tuple,
    )
    faults_seed: int = setting(SEED, SEED_MEANING, default=0)
    health_check: HealthCheck | None = setting(
        Table(HealthCheck), "An [active check](#health-checks) of each server.", default=None
    )
    ejection: Ejection | None = setting(
        Table(Ejection),
        "When a server is [ejected](#ejection) because its sessions fail.",
        default=None,
    )
    discover: Discover | None = setting(
        Table(Discover), "Where the pool [finds servers](#discovery) at run time.", default=None
    )
