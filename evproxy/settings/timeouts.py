"""
When sessions end by time, and how the kernel looks after their connections.
"""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen

from evproxy.config.declare import setting
from evproxy.config.rules import Seconds, Whole

MILLISECOND = 0.001


@frozen
class Timeouts:
    """When evproxy resets sessions: idle ones, half-closed ones, and those left after a drain."""

    idle: float = setting(
        Seconds(0),
        "evproxy resets a session in which no byte moves either way for this long. 0: never.",
        default=3600.0,
        called=("idle_timeout",),
        option="idle-timeout",
    )
    half_close: float = setting(
        Seconds(MILLISECOND),
        "The same timeout for a session in which one side has ended its stream.",
        default=30.0,
        called=("half_close_timeout",),
        option="half-close-timeout",
    )
    handshake: float = setting(
        Seconds(MILLISECOND),
        "How long a client may take, from its connect on, to send a PROXY header, to shake hands "
        "for TLS, and to send whatever its route depends on, and how long a router may take to "
        "choose a pool. Then evproxy "
        "resets the client.",
        default=10.0,
        called=("handshake_timeout",),
    )
    drain: float = setting(
        Seconds(0),
        "When evproxy stops, how long sessions may go on before it resets them. 0: no time.",
        default=30.0,
        called=("drain_timeout",),
        option="drain-timeout",
    )


@frozen
class Keepalive:
    """TCP keepalive on both sides of a session."""

    BELOW: ClassVar[str] = "keepalive"

    idle: int = setting(
        Whole(1, 32767),
        "Seconds without data until the kernel probes a TCP connection, on both sides. With 20 or "
        "more, evproxy sets the keepalive times of a server's socket up to 10 seconds after the "
        "session began; the kernel counts the silence before that too.",
        default=60,
        option="keepalive-idle",
        in_file=False,
    )
    interval: int = setting(
        Whole(1, 32767),
        "Seconds between two keepalive probes.",
        default=10,
        option="keepalive-interval",
        in_file=False,
    )
    probes: int = setting(
        Whole(1, 127),
        "After this many probes without an answer, the kernel ends a connection.",
        default=6,
        option="keepalive-probes",
        in_file=False,
    )
