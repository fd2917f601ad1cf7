"""The watchdog: times the turns of the loop, and reports what holds it."""

from evproxy.observe.watchdog.metrics import MetricFamily, loop_metrics
from evproxy.observe.watchdog.status import LoopStatus
from evproxy.observe.watchdog.watchdog import Watchdog

__all__ = ["LoopStatus", "MetricFamily", "Watchdog", "loop_metrics"]
