"""
Logs what the watchdog reports, as events of `twisted.logger`, in any Twisted process.
"""

from __future__ import annotations

from twisted.logger import Logger

from evproxy.escape import printable
from evproxy.loop_report import LoopReport

_log = Logger(namespace="evproxy.watchdog")


class LoopLog:
    """
    Logs each report as a warning, in the namespace ``evproxy.watchdog``.

    The event has every field of `LoopReport` under its own name, as text where it is text in the
    end, and the one line of the report as `text`.
    """

    def loop_held(self, report: LoopReport) -> None:
        stack = "".join(f"\n{printable(line)}" for line in report.stack)
        _log.warn("{text}{stack}", stack=stack, **_fields(report))

    def loop_released(self, report: LoopReport) -> None:
        # The same level as `loop_held`: who sees the beginning must see the end.
        _log.warn("{text}", **_fields(report))


def _fields(report: LoopReport) -> dict[str, object]:
    return {
        "text": printable(report.text),
        "trouble": report.trouble.value,
        "seconds": report.seconds,
        "over": report.over,
        "place": printable(report.place),
        "called": printable(report.called),
        "doing": report.doing.value,
        "detail": printable(report.detail),
    }
