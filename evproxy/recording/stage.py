"""
The stage that records one session.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from evproxy.model import CloseReason, Ending, Side
from evproxy.recording.file import RecordingFile
from evproxy.recording.writer import RecordingWriter
from evproxy.relay.stages import PassThrough
from evproxy.wire.recording import Event, Kind

TOO_SLOW = "the disk is too slow"
"""Why a recording stops if too many bytes wait for the thread of the writer."""


class RecordingStage(PassThrough):
    """
    A `Stage` that changes nothing, and records what passes.

    :param clock: tells the time.
    :param writer: writes the events.
    :param file: of this session.
    :param stopped: is called if the recording stops here, with the reason.
    """

    def __init__(
        self,
        clock: IReactorTime,
        writer: RecordingWriter,
        file: RecordingFile,
        stopped: Callable[[RecordingFile, str], None],
    ) -> None:
        self._clock = clock
        self._writer = writer
        self._file = file
        self._stopped = stopped
        self._began = clock.seconds()
        self._recording = True
        self._ended: set[Side] = set()
        self._over: dict[Side, float] = {}

    def upload(self, data: bytes) -> None:
        self._record(Kind.DATA, Side.DOWNSTREAM, data)
        super().upload(data)

    def download(self, data: bytes) -> None:
        self._record(Kind.DATA, Side.UPSTREAM, data)
        super().download(data)

    def ended(self, side: Side) -> None:
        self._ended.add(side)
        self._record(Kind.END, side)
        super().ended(side)

    def flush(self, side: Side) -> None:
        # Whether this is a reset, the reason of the session's end says.
        self._over.setdefault(side, self._now())

    def stop(self) -> None:
        """Record nothing more."""
        self._recording = False

    def finish(self, reason: CloseReason) -> None:
        """The session is over, because of `reason`."""
        for side in (Side.DOWNSTREAM, Side.UPSTREAM):
            if side in self._over and side not in self._ended:
                if reason.how is Ending.FINISHED:
                    # Twisted's own TLS ends both streams at once.
                    self._record(Kind.END, side, time=self._over[side])
                elif reason.how is Ending.RESET and reason.by is side:
                    self._record(Kind.RESET, side, time=self._over[side])
        if self._recording:
            self._writer.write(self._file, Event(self._now(), Kind.CLOSED, text=reason.code))

    def _now(self) -> float:
        # The clock of the reactor may be set back.
        return max(0.0, self._clock.seconds() - self._began)

    def _record(self, kind: Kind, side: Side, data: bytes = b"", time: float | None = None) -> None:
        if not self._recording:
            return
        at = self._now() if time is None else time
        if not self._writer.write(self._file, Event(at, kind, side.value, data)):
            self._recording = False
            self._writer.write(self._file, Event(at, Kind.STOPPED, text=TOO_SLOW))
            self._stopped(self._file, TOO_SLOW)
