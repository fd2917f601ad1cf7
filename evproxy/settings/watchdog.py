"""
The settings of the watchdog.
"""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen

from evproxy.config.declare import setting
from evproxy.config.rules import SecondsOrZero


@frozen
class WatchdogSettings:
    """From when on the watchdog of ``twistd evproxy`` reports what holds the event loop."""

    BELOW: ClassVar[str] = "watchdog"

    threshold: float = setting(
        SecondsOrZero(0.01, 60),
        "What holds the event loop for this long is reported once for each place, with its stack: "
        "see [watchdog.md](watchdog.md). Only `twistd evproxy` has a watchdog by itself. 0: none.",
        default=0.1,
        option="watchdog-threshold",
    )
