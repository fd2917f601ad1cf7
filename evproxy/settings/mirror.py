"""
The settings of the mirror of a pool.
"""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from evproxy.config.declare import setting
from evproxy.config.rules import MOST_SESSIONS, Choice, Matching, Number, Whole

ANSWERS = ("drop", "compare")
HASHED = ("session", "peer")

BUFFER = 1024 * 1024
"""How many bytes a copy may be behind its session, by default."""

MAX_COPIES = 1024
"""How many copies there may be at once, by default."""


@frozen
class Mirror:
    """
    A copy of what clients send, for the servers of a second pool.

    In a program, `to` is the second pool itself, whatever its name is; without it, `pool` names a
    pool of the same service.
    """

    pool: str = setting(
        Matching("the name of a pool", r"[\w.-]+"),
        "The second pool, which gets the copies.",
    )
    fraction: float = setting(
        Number(0, 1),
        "Which share of the sessions is copied, by `hash`. 1: all of them.",
        default=1.0,
    )
    hash: str = setting(
        Choice(HASHED),
        "What decides whether a session is copied: the hash of its `unique_id`, or of the "
        "client's address without the port, so that all sessions of a client are copied, or none.",
        default="session",
    )
    answers: str = setting(
        Choice(ANSWERS),
        "Whether evproxy drops what the second pool answers, or "
        "[compares](mirror.md#comparing-answers) it with what the client gets.",
        default="drop",
    )
    buffer: int = setting(
        Whole(1, 2**30),
        "How many bytes a copy may be behind its session; then evproxy drops the whole copy. Also "
        "how many bytes of one server's answer may wait for the other's.",
        default=BUFFER,
    )
    max_copies: int = setting(
        Whole(1, MOST_SESSIONS),
        "How many copies there may be at once: further sessions are not copied.",
        default=MAX_COPIES,
    )
    to: Any = field(default=None, kw_only=True, repr=False)
