"""
The balancing policies by name.  Pure: no I/O, no clock; the random source is injected.

A policy picks the upstream server of a new session.  Each policy is a plain object that
satisfies `evproxy.interfaces.Balancer`.  `candidates` is lazy: the first pick is cheap,
whatever the number of servers, and the iterator then yields every other server exactly once.
No policy picks a server of weight 0.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from evproxy.errors import SettingsError
from evproxy.policy.balance.candidate import Balancer, Candidate, Incremental, LoadAware
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
    "RandomTwo",
    "RoundRobin",
    "SourceHash",
    "balancer_named",
]

_MADE_BY: dict[str, Callable[[Random], Balancer]] = {
    "round-robin": lambda random: RoundRobin(),
    "least-sessions": lambda random: LeastSessions(),
    "random-two": RandomTwo,
    "source-hash": lambda random: SourceHash(),
    "least-time": LeastTime,
}

NAMES = tuple(_MADE_BY)
"""The names that `balancer_named` knows."""

POLICIES = frozenset(type(make(Random(0))) for make in _MADE_BY.values())
"""The policies.  Each yields, for every client, all servers whose weight is not 0."""


def balancer_named(name: str, random: Random) -> Balancer:
    """
    Make a balancer of the policy called `name`.

    :param name: one of `NAMES`.
    :param random: the random source of the policies that draw servers at random.
    :raises SettingsError: if no policy has this name.
    """
    make = _MADE_BY.get(name)
    if make is None:
        raise SettingsError(f"balance: expected one of {', '.join(NAMES)}, got {name!r}")
    return make(random)
