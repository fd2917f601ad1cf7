"""
The settings of the access log.
"""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen

from evproxy.config.declare import setting
from evproxy.config.rules import Choice, Flag, Seconds, WordOrPath


@frozen
class AccessLogSettings:
    """Where the line for the end of each session goes, and what it looks like."""

    BELOW: ClassVar[str] = "access_log"

    path: str = setting(
        WordOrPath.of("auto", "off", "-", "syslog:", "twisted:"),
        "Where a line for the end of each session goes: nowhere; standard output; the system's "
        "log; the events of `twisted.logger`; or the file of that path. `auto`: standard output "
        "under `twistd -n`, else `twisted:`.",
        default="auto",
        option="access-log",
    )
    format: str = setting(
        Choice(("text", "json", "tcplog")),
        "What the line looks like: words, a JSON object, or HAProxy's own line. `twisted:` has "
        "events of its own.",
        default="text",
        option="access-log-format",
    )
    start: bool = setting(
        Flag(),
        "Whether there is a line also when a session has got its server.",
        default=False,
    )
    interval: float = setting(
        Seconds(0),
        "Seconds between two lines of a session that lasts longer than this. 0: no such lines.",
        default=0.0,
    )
