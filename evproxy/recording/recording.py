"""
One recording, in the reactor's thread: hands the events of a session to the thread of the writer.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from evproxy.model import Side
from evproxy.recording.file import RecordingFile
from evproxy.recording.writer import RecordingWriter
from evproxy.wire.recording import Event, Kind

TOO_SLOW = "the disk is too slow"
"""Why a recording stops if too many bytes wait for the thread of the writer."""


class Recording:
    """
    The recording of one session.

    :param clock: tells the time.
    :param writer: writes the events.
    :param file: of this session.
    :param stopped: is called if the recording stops here, with the reason.
    :param began: the time on `clock` from which the times of the events count; now by default.
    """

    def __init__(
        self,
        clock: IReactorTime,
        writer: RecordingWriter,
        file: RecordingFile,
        stopped: Callable[[RecordingFile, str], None],
        began: float | None = None,
    ) -> None:
        self._clock = clock
        self._writer = writer
        self._file = file
        self._stopped = stopped
        self._began = clock.seconds() if began is None else began
        self._running = True

    def now(self) -> float:
        """The time of an event that happens now."""
        # The clock of the reactor may be set back.
        return max(0.0, self._clock.seconds() - self._began)

    def add(self, kind: Kind, side: Side, data: bytes = b"", time: float | None = None) -> None:
        """Record what `side` did, at `time`, or now."""
        self.add_event(Event(self.now() if time is None else time, kind, side.value, data))

    def add_event(self, event: Event) -> None:
        """Record `event`; if there is no room for it, the recording stops."""
        if self._running and not self._writer.write(self._file, event):
            self.break_off(event.time, TOO_SLOW)

    def break_off(self, time: float, why: str) -> None:
        """The recording cannot go on: write so at `time`, and log it."""
        if self._running:
            self._running = False
            self._writer.write(self._file, Event(time, Kind.STOPPED, text=why))
            self._stopped(self._file, why)

    def stop(self) -> None:
        """Record nothing more: the file cannot be written any more."""
        self._running = False

    def close(self, reason: str) -> None:
        """The session is over; `reason` is the code of its `CloseReason`."""
        if self._running:
            self._writer.write(self._file, Event(self.now(), Kind.CLOSED, text=reason))
