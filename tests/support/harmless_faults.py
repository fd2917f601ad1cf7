"""Faults that change when bytes, ends and resets arrive, and nothing else."""

from __future__ import annotations

from typing import Any

from evproxy.faults import (
    FaultSettings,
    bandwidth,
    corrupt,
    end,
    half_open,
    latency,
    limit,
    reset,
    slicer,
    slow_close,
    stall,
    timeout,
    tls_failure,
    tls_stall,
    truncate,
)

FAR = 10**12
"""More bytes than any test sends."""

_BOTH: dict[str, Any] = {"stream": "both"}

HARMLESS: dict[str, list[FaultSettings]] = {
    "latency": [latency(0.01, 0.005, **_BOTH)],
    "bandwidth": [bandwidth(50_000_000, **_BOTH)],
    "slicer": [slicer(8192, 4096, **_BOTH)],
    "slow-close": [slow_close(0.02, **_BOTH)],
    "stall": [stall(lasts=0.05, **_BOTH)],
    "cuts": [
        limit(FAR, **_BOTH),
        end(FAR, **_BOTH),
        reset(FAR, **_BOTH),
        truncate(FAR, **_BOTH),
    ],
    "later": [
        timeout(after=3600.0, **_BOTH),
        half_open(after=3600.0, **_BOTH),
        corrupt(1.0, after_bytes=FAR, **_BOTH),
        tls_failure(),
        tls_stall(),
    ],
    "all": [
        latency(0.005, 0.005, distribution="pareto", **_BOTH),
        slicer(16384, **_BOTH),
        bandwidth(100_000_000, **_BOTH),
        slow_close(0.01, **_BOTH),
    ],
}
"""Sets of faults, by name."""
