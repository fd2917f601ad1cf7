"""
The access log: one line for the end of each session.

At the end of a session, the log only appends the record to a list.  It formats `AT_ONCE` records
at a time, because repeated calls of one function cost a fraction of single calls.  It passes the
lines to the writer at most `INTERVAL` seconds later; see ``docs/notes/0016``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from evproxy.errors import CannotOpenLog
from evproxy.observe.destinations import Destination, LogFile, StandardOutput, SystemLog
from evproxy.observe.formats import FORMATS, Format
from evproxy.observe.line_writer import LineWriter
from evproxy.observers import LogWriterObserver
from evproxy.records import SessionRecord, SessionStatus
from evproxy.settings import AccessLogSettings

AT_ONCE = 16
"""How many lines are formatted at a time: more records do not fit into the first CPU cache."""

INTERVAL = 0.1
"""The most seconds from the end of a session until the writer gets its line."""

BATCH = 64 * 1024
"""The writer gets this many bytes at once, before `INTERVAL` has passed."""


class AccessLog:
    """
    A `SessionObserver` that writes a line for each session.

    :param reactor: the timers, and calls from the writer's thread.
    :param destination: makes the destination of the lines.
    :param lines: formats the lines.
    :param observer: is notified of problems.
    :param now: returns the time, in seconds since 1970.

    `wants_counts`: see `evproxy.observers.SessionObserver`.
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
        self.wants_counts = lines.wants_counts
        self._observer = observer
        self._now = now
        self._writer: LineWriter | None = None
        self._opened: Destination | None = None
        self._records: list[SessionRecord] = []
        self._lines: list[bytes] = []
        self._count = self._size = 0
        self._dropped = 0
        self._timer: IDelayedCall | None = None

    @property
    def dropped(self) -> int:
        """How many lines were dropped, from the beginning."""
        return self._dropped + (0 if self._writer is None else self._writer.dropped)

    def prepare(self) -> None:
        """
        Open the destination, for `open` or `abandon` later.  May block, and may run in a thread.

        :raises CannotOpenLog: if the destination cannot be opened.
        """
        destination = self._destination()
        try:
            destination.open()
        except OSError as error:
            raise CannotOpenLog(
                f"cannot write the access log to {destination.name}: {error.strerror or error}"
            ) from None
        self._opened = destination

    def abandon(self) -> None:
        """Close what `prepare` has opened, and write nothing."""
        destination, self._opened = self._opened, None
        if destination is not None:
            destination.close()

    def open(self) -> None:
        """
        Begin to write; open the destination if `prepare` has not.

        :raises CannotOpenLog: if the destination cannot be opened.
        """
        if self._opened is None:
            self.prepare()
        destination, self._opened = self._opened, None
        assert destination is not None
        self._writer = LineWriter(self._reactor, destination, self._observer, self._missing)
        self._writer.start()

    def reopen(self) -> None:
        """Open the path again, and write to the file that is there now."""
        if self._writer is not None:
            self._writer.reopen()

    def close(self) -> Deferred[None]:
        """Write the remaining lines, within `FLUSH_TIMEOUT`; the Deferred fires after that."""
        self._hand_over()
        writer, self._writer = self._writer, None
        self._dropped += 0 if writer is None else writer.dropped
        return succeed(None) if writer is None else writer.close()

    def session_ended(self, record: SessionRecord) -> None:
        """Keep the record; after `AT_ONCE` records or `INTERVAL` seconds, format their lines."""
        records = self._records
        records.append(record)
        if len(records) >= AT_ONCE:
            self._make()
        elif self._timer is None:
            self._timer = self._reactor.callLater(INTERVAL, self._hand_over)

    def under_way(self, event: str, status: SessionStatus) -> None:
        """Keep the line of a session that is not over; `event` is ``start`` or ``interval``."""
        if self._writer is not None and self._writer.full:
            self._writer.drop(1)
            return
        self._keep(self._format.under_way(self._now(), event, status).encode(), 1)
        if self._timer is None:
            self._timer = self._reactor.callLater(INTERVAL, self._hand_over)

    def _make(self) -> None:
        records, self._records = self._records, []
        if self._writer is not None and self._writer.full:
            self._writer.drop(len(records))
            return
        made = self._format.session
        # The reactor's clock may start at any value.
        since = self._now() - self._reactor.seconds()
        lines = "".join(
            [made(since + record.started + record.duration, record) for record in records]
        ).encode()
        self._keep(lines, len(records))

    def _keep(self, lines: bytes, count: int) -> None:
        self._lines.append(lines)
        self._count += count
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
    """Return the log that `settings` describe; ``None`` if it writes no lines."""
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
