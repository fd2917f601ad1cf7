"""
The access log: one line for the end of each session.

What is done for each session is to append its record.  Lines are made `AT_ONCE` at a time, for
a function that was just called costs a fraction of one that was not, and are handed on
`INTERVAL` seconds later at the latest; see ``docs/notes/0016``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from evproxy.errors import CannotOpenLog
from evproxy.interfaces import LogWriterObserver
from evproxy.model import SessionRecord
from evproxy.observe.destinations import Destination, LogFile, StandardOutput, SystemLog
from evproxy.observe.formats import FORMATS, Format
from evproxy.observe.line_writer import LineWriter
from evproxy.settings import AccessLogSettings

AT_ONCE = 16
"""Lines made at a time: more records than these leave the processor's first cache."""

INTERVAL = 0.1
"""Seconds until the line of a session is handed to the writer, at the most."""

BATCH = 64 * 1024
"""Bytes that are handed to the writer without waiting for that."""


class AccessLog:
    """
    A `SessionObserver` that writes lines.

    :param reactor: calls later, and from the writer's thread.
    :param destination: makes what the lines go to.
    :param lines: makes the lines.
    :param observer: hears what goes wrong.
    :param now: seconds since 1970.
    """

    def __init__(
        self,
        reactor: Any,
        destination: Callable[[], Destination],
        lines: Format,
        observer: LogWriterObserver,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._reactor = reactor
        self._destination = destination
        self._format = lines
        self._observer = observer
        self._now = now
        self._writer: LineWriter | None = None
        self._records: list[SessionRecord] = []
        self._lines: list[bytes] = []
        self._count = self._size = 0
        self._timer: IDelayedCall | None = None

    def open(self) -> None:
        """
        Open the destination, and begin to write.

        :raises CannotOpenLog: if it cannot be opened.
        """
        destination = self._destination()
        writer = LineWriter(self._reactor, destination, self._observer, self._missing)
        try:
            writer.open()
        except OSError as error:
            raise CannotOpenLog(
                f"cannot write the access log to {destination.name}: {error.strerror or error}"
            ) from None
        self._writer = writer

    def reopen(self) -> None:
        """Go on in the file that has the name now."""
        if self._writer is not None:
            self._writer.reopen()

    def close(self) -> Deferred[None]:
        """Write what is left, within a bounded time; fires when that is over."""
        self._hand_over()
        writer, self._writer = self._writer, None
        return succeed(None) if writer is None else writer.close()

    def session_ended(self, record: SessionRecord) -> None:
        """Remember the record; every so often, make lines of those that came."""
        records = self._records
        records.append(record)
        if len(records) >= AT_ONCE:
            self._make()
        elif self._timer is None:
            self._timer = self._reactor.callLater(INTERVAL, self._hand_over)

    def _make(self) -> None:
        records, self._records = self._records, []
        if self._writer is not None and self._writer.full:
            self._writer.drop(len(records))
            return
        made = self._format.session
        # The reactor's clock may have begun anywhere.
        since = self._now() - self._reactor.seconds()
        lines = "".join(
            [made(since + record.started + record.duration, record) for record in records]
        ).encode()
        self._lines.append(lines)
        self._count += len(records)
        self._size += len(lines)
        if self._size >= BATCH:
            self._hand_over()

    def _hand_over(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._records:
            self._make()
        lines, count = self._lines, self._count
        self._lines, self._count, self._size = [], 0, 0
        if lines and self._writer is not None:
            self._writer.write(b"".join(lines), count)

    def _missing(self, lines: int) -> bytes:
        return self._format.dropped(self._now(), lines).encode()


def access_log_for(
    reactor: Any, settings: AccessLogSettings, observer: LogWriterObserver
) -> AccessLog | None:
    """The log that `settings` describe, if it is one of lines."""
    path = settings.path
    if path in ("auto", "off", "twisted:"):
        return None
    destinations: dict[str, Callable[[], Destination]] = {
        "-": StandardOutput,
        "syslog:": SystemLog,
    }
    return AccessLog(
        reactor,
        destinations.get(path) or partial(LogFile, path),
        FORMATS[settings.format](),
        observer,
    )
