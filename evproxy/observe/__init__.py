"""The observers that evproxy brings: its logs, and the watchdog of the loop."""

from evproxy.observe.log import SessionLog, TroubleLog
from evproxy.observe.watchdog import LoopStatus, MetricFamily, Watchdog, loop_metrics

__all__ = [
    "LoopStatus",
    "MetricFamily",
    "SessionLog",
    "TroubleLog",
    "Watchdog",
    "loop_metrics",
]
