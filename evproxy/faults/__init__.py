"""Faults: what a bad network does to the bytes of sessions, injected on purpose."""

from evproxy.faults.by_name import (
    bandwidth,
    corrupt,
    end,
    half_open,
    hang,
    latency,
    limit,
    refused,
    reset,
    slicer,
    slow_close,
    stall,
    timeout,
    tls_failure,
    tls_stall,
    truncate,
)
from evproxy.faults.faults import Faults
from evproxy.settings.fault import FaultSettings

__all__ = [
    "FaultSettings",
    "Faults",
    "bandwidth",
    "corrupt",
    "end",
    "half_open",
    "hang",
    "latency",
    "limit",
    "refused",
    "reset",
    "slicer",
    "slow_close",
    "stall",
    "timeout",
    "tls_failure",
    "tls_stall",
    "truncate",
]
