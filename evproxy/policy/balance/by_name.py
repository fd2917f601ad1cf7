"""
The balancing policies by name.  Pure: no I/O, no clock; the random source is injected.

A policy picks the upstream server of a new session.  Each policy is a plain object that
satisfies `evproxy.interfaces.Balancer`.  `candidates` is lazy: the first pick is cheap,
whatever the number of servers, and the iterator then yields every other server exactly once.
No policy picks a server of weight 0.
"""

from __future__ import annotations

from random import Random

from evproxy.errors import SettingsError
from evproxy.policy.balance.candidate import Candidate, Incremental, LoadAware
from evproxy.policy.balance.least_sessions import LeastSessions
from evproxy.policy.balance.least_time import LeastTime
from evproxy.policy.balance.random_two import RandomTwo
from evproxy.policy.balance.round_robin import RoundRobin
from evproxy.policy.balance.source_hash import SourceHash

__all__ = [
    "NAMES",
    "POLICIES",
    "Candidate",
    "Incremental",
    "LeastSessions",
    "LeastTime",
    "LoadAware",
    "NamedBalancer",
    "RandomTwo",
    "RoundRobin",
    "SourceHash",
    "balancer_named",
]

NAMES = ("round-robin", "least-sessions", "random-two", "source-hash", "least-time")
"""The names that `balancer_named` knows."""

POLICIES = frozenset({RoundRobin, LeastSessions, RandomTwo, SourceHash, LeastTime})
"""The policies.  Each yields, for every client, all servers whose weight is not 0."""

NamedBalancer = RoundRobin | LeastSessions | RandomTwo | SourceHash | LeastTime


def balancer_named(name: str, random: Random) -> NamedBalancer:
    """
    Make a balancer of the policy called `name`.

    :param name: one of `NAMES`.
    :param random: the random source of the policies that draw servers at random.
    :raises SettingsError: if no policy has this name.
    """
    match name:
        case "round-robin":
            return RoundRobin()
        case "least-sessions":
            return LeastSessions()
        case "random-two":
            return RandomTwo(random)
        case "source-hash":
            return SourceHash()
        case "least-time":
            return LeastTime(random)
    raise SettingsError(f"balance: expected one of {', '.join(NAMES)}, got {name!r}")
