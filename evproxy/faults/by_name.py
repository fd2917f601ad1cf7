"""
Faults as functions: each returns the `FaultSettings` of one kind.

Times are in seconds and sizes in bytes.  `more` are the other fields of `FaultSettings`, which all
kinds have: `stream`, `probability`, `peer`, `route`, `server`, `after`, `lasts`, `every`,
`after_bytes`, `until_bytes` and `name`.  A value that its field does not accept raises
`SettingsError`.
"""

from __future__ import annotations

from typing import Any

from evproxy.settings.fault import FaultSettings


def latency(
    latency: float, jitter: float = 0.0, *, distribution: str = "uniform", **more: Any
) -> FaultSettings:
    """Bytes, ends and resets arrive `latency` seconds later, in their order."""
    return FaultSettings(
        "latency", latency=latency, jitter=jitter, distribution=distribution, **more
    )


def bandwidth(rate: int, **more: Any) -> FaultSettings:
    """At most `rate` bytes pass in a second.  0: none."""
    return FaultSettings("bandwidth", rate=rate, **more)


def slicer(
    average_size: int, size_variation: int = 0, *, delay: float = 0.0, **more: Any
) -> FaultSettings:
    """Bytes pass in pieces of about `average_size` bytes, one each `delay` seconds."""
    return FaultSettings(
        "slicer", average_size=average_size, size_variation=size_variation, delay=delay, **more
    )


def slow_close(delay: float, **more: Any) -> FaultSettings:
    """The end of the stream, or a reset, arrives `delay` seconds later."""
    return FaultSettings("slow-close", delay=delay, **more)


def timeout(timeout: float = 0.0, **more: Any) -> FaultSettings:
    """
    Nothing arrives: bytes are dropped.

    The session ends after `timeout` seconds without a byte (0: never), and when the fault is
    removed.
    """
    return FaultSettings("timeout", timeout=timeout, **more)


def stall(**more: Any) -> FaultSettings:
    """Nothing arrives for now, neither bytes nor an end: they do once the fault is removed."""
    return FaultSettings("stall", **more)


def half_open(**more: Any) -> FaultSettings:
    """Bytes arrive, but no end and no reset: the receiver does not notice that its peer is gone."""
    return FaultSettings("half-open", **more)


def limit(bytes: int, **more: Any) -> FaultSettings:
    """Both connections end in order after exactly so many bytes."""
    return FaultSettings("limit", bytes=bytes, **more)


def end(bytes: int, **more: Any) -> FaultSettings:
    """The stream ends after exactly so many bytes; the other stream goes on."""
    return FaultSettings("end", bytes=bytes, **more)


def reset(bytes: int = 0, *, delay: float = 0.0, **more: Any) -> FaultSettings:
    """
    Both connections are reset after exactly so many bytes, and `delay` seconds.

    0 bytes: the reset comes in place of the first byte, or of the end.
    """
    return FaultSettings("reset", bytes=bytes, delay=delay, **more)


def truncate(bytes: int, **more: Any) -> FaultSettings:
    """Only so many bytes arrive; the rest is dropped, and the end of the stream arrives."""
    return FaultSettings("truncate", bytes=bytes, **more)


def corrupt(share: float = 0.001, **more: Any) -> FaultSettings:
    """A `share` of the bytes is changed."""
    return FaultSettings("corrupt", share=share, **more)


def tls_failure(**more: Any) -> FaultSettings:
    """A TLS client gets a fatal alert in place of a handshake; other clients are left alone."""
    return FaultSettings("tls-failure", **more)


def tls_stall(**more: Any) -> FaultSettings:
    """The TLS handshake of a client gets no answer; other clients are left alone."""
    return FaultSettings("tls-stall", **more)


def refused(**more: Any) -> FaultSettings:
    """
    A connect to a server is refused.

    With ``stream="downstream"``, the client is reset instead, and no server is asked.
    """
    return FaultSettings("refused", **more)


def hang(**more: Any) -> FaultSettings:
    """A connect to a server gets no answer: it goes on once the fault is removed or over."""
    return FaultSettings("hang", **more)
