"""
The faults of a pool, from its settings.
"""

from __future__ import annotations

from typing import Any

from evproxy.faults.faults import Faults
from evproxy.relay.stages import StagesOfSession
from evproxy.settings import PoolSettings


def faults_of(reactor: Any, settings: PoolSettings) -> tuple[StagesOfSession, ...]:
    """What makes the stages of the pool's sessions; empty if it has no faults."""
    if not settings.faults:
        return ()
    seed, name = settings.faults_seed or None, f"pool {settings.name}"
    return (Faults(reactor, settings.faults, seed=seed, name=name),)
