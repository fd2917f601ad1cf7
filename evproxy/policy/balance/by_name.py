"""
Which upstream server a new session goes to.  Pure: no I/O, no clock; chance is injected.

Each policy is a plain object that satisfies `evproxy.interfaces.Balancer`.  Its walk is
lazy: the first pick is cheap, whatever the number of servers, and walking on gives every
other server exactly once.  Servers of weight 0 are never picked.
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
"""The policies.  Each gives every client all the servers that have a weight."""

NamedBalancer = RoundRobin | LeastSessions | RandomTwo | SourceHash | LeastTime


def balancer_named(name: str, random: Random) -> NamedBalancer:
    """
    A new balancer of the policy called `name`.

    :param name: one of `NAMES`.
    :param random: where the policies that draw lots take their chance from.
    :raises SettingsError: if there is no such policy.
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
