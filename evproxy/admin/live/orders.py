"""
The orders in which a viewer may see sessions, and how many of them.

Pure, and light: `evproxy.cli.top` uses it too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from evproxy.records import SessionStatus

MOST_SHOWN = 500
"""The most servers, and the most sessions, that a viewer sees at once."""

SORTS: dict[str, tuple[Callable[[SessionStatus, float], Any], bool]] = {
    "rate": (lambda session, rate: rate, True),
    "bytes": (
        lambda session, rate: session.bytes_to_upstream + session.bytes_to_downstream,
        True,
    ),
    "age": (lambda session, rate: session.duration, True),
    "id": (lambda session, rate: session.id, True),
    "peer": (lambda session, rate: session.peer, False),
    "server": (lambda session, rate: (session.pool, session.upstream), False),
    "route": (lambda session, rate: (session.listener, session.route), False),
    "phase": (lambda session, rate: session.phase.value, False),
}
"""What sessions may be sorted by: the key, and whether the highest comes first by default."""
