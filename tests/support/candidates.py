"""Upstream servers as a balancing policy sees them."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define

from evproxy.model import UpstreamServer


@define(eq=False)
class FakeServer:
    """A candidate whose load a test sets."""

    spec: UpstreamServer
    weight: float = 1.0
    sessions: int = 0
    connect_time: float = 0.0


def servers_of(weights: Sequence[float]) -> list[FakeServer]:
    return [
        FakeServer(UpstreamServer(f"tcp:10.0.{n // 256}.{n % 256}:80"), weight)
        for n, weight in enumerate(weights)
    ]
