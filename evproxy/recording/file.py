"""
The file of one recording, which the writer's thread writes.

The file is open only while something is written, so that recordings need no descriptors.  A
recording is whole up to where it stops: what was written in part is cut off again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from evproxy.recording.room import Room
from evproxy.wire.recording import Event, Kind
from evproxy.wire.recording.events import Encoder

MODE = 0o600
"""The file mode of a recording, which may have secrets in it."""


class RecordingFile:
    """
    One file; all methods run in the writer's thread.

    :param session: the number of the session, for the log.
    :param name: its name in the directory of `room`.
    :param room: says whether there is room.
    :param encoder: makes the bytes.

    `stopped`: nothing is written any more.
    """

    def __init__(self, session: int, name: str, room: Room, encoder: Encoder) -> None:
        self.session = session
        self.path = os.path.join(room.directory, name)
        self._room = room
        self._encoder = encoder
        self._size = 0
        self.stopped = False

    def write(self, events: Sequence[Event]) -> str:
        """Write `events`; return why the recording stops, or nothing."""
        if self.stopped:
            return ""
        new = not self._size
        undo = self._encoder.mark()
        data = self._encoder.begin() if new else b""
        data += b"".join(map(self._encoder.encode, events))
        try:
            why = self._room.take(len(data), new)
            if not why:
                self._append(data, new)
        except OSError as error:
            why = error.strerror or str(error)
        if why:
            undo()
            self._stop(events[0].time, why)
        elif events[-1].kind is Kind.STOPPED:
            self.stopped = True
        return why

    def _append(self, data: bytes, new: bool) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        # Whoever deletes a recording does not get the rest of it as a new one.
        file = os.open(self.path, flags | (os.O_CREAT | os.O_EXCL if new else 0), MODE)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file, rest) :]
            self._size += len(data)
        except OSError:
            with suppress(OSError):
                os.ftruncate(file, self._size)
            if new:
                with suppress(OSError):
                    os.unlink(self.path)
            raise
        finally:
            os.close(file)

    def _stop(self, time: float, why: str) -> None:
        self.stopped = True
        if self._size:
            # A full disk may still have room for this.  If not, the log alone says it.
            with suppress(OSError):
                self._append(self._encoder.encode(Event(time, Kind.STOPPED, text=why)), False)
