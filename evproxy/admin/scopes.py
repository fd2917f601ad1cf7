"""The parts of the metrics, of which a scrape can leave some out."""

from __future__ import annotations

SCOPES = ("proxy", "sessions", "pools", "servers", "relay", "loop", "process")
"""Each metric of `evproxy.observe.metrics.declared` belongs to one."""
