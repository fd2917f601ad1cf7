"""What the benchmark knows of a proxy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import frozen

from ..processes import Command


@frozen
class Forward:
    """
    Loopback port ``listen`` is proxied to loopback port ``upstream``.

    With a ``certificate``, a PEM file with its key, TLS ends at ``listen``.
    """

    listen: int
    upstream: int
    certificate: Path | None = None

    def __str__(self) -> str:
        return f"{self.listen}:{self.upstream}"


Starter = Callable[[Sequence[Forward], Path], Command]
"""From forwards, and a directory for configuration files, to a command."""


@frozen
class Peer:
    """A proxy: its name in tables, what it is, how to start it, and all its measures if not all."""

    name: str
    title: str
    command: Starter
    measures: frozenset[str] | None = None
