"""
The recordings of a service: which sessions are recorded, and where.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from evproxy.errors import SettingsError
from evproxy.recording.file import RecordingFile
from evproxy.recording.room import SUFFIXES, Room
from evproxy.recording.stage import RecordingStage
from evproxy.recording.writer import RecordingWriter
from evproxy.records import SessionRecord, SessionStatus
from evproxy.relay.stages import Stage, StagesOfSession
from evproxy.settings.record import MAX_BYTES, MAX_FILES
from evproxy.wire.recording import LinesEncoder, PcapngEncoder, RecordedSession
from evproxy.wire.recording.events import Encoder

QUIET = 10.0
"""Seconds from a line about recordings that stopped to the next such line."""

ENCODERS: dict[str, Callable[[RecordedSession], Encoder]] = {
    "json": LinesEncoder,
    "pcapng": PcapngEncoder,
}
"""What makes the bytes of a recording, by the format."""

_log = Logger()


class Recordings:
    """
    Records sessions, and satisfies `evproxy.observers.SessionObserver`.

    Pass it as one of the `observers` of a `ProxyFactory`, and what `into` returns as one of its
    `stages`, the first of them: then a recording has what the client sent and what it got.

    :param reactor: the time, the timers, and calls from the thread of the writer.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._writer = RecordingWriter(reactor, self._stopped)
        self._stages: dict[int, RecordingStage] = {}
        self._said = -QUIET
        self._unsaid = 0

    def into(
        self,
        directory: str,
        format: str = "json",
        max_files: int = MAX_FILES,
        max_bytes: int = MAX_BYTES,
    ) -> StagesOfSession:
        """
        Return what records sessions in `directory`, each in a file of its own.

        Looks at the directory, which may block.

        :param format: ``json`` or ``pcapng``.
        :param max_files: how many recordings the directory may have; further sessions are not
            recorded.
        :param max_bytes: how many bytes they may have; the recordings stop there.
        :raises SettingsError: if `directory` cannot be written to.
        """
        check_directory(directory)
        return _Recorder(self._record, Room(directory, max_files, max_bytes), format)

    def session_ended(self, record: SessionRecord) -> None:
        """Write the end of the recording, if there is one."""
        stage = self._stages.pop(record.id, None)
        if stage is not None:
            stage.finish(record.reason)

    def close(self) -> Deferred[None]:
        """Return a Deferred that fires when all is written, or after two seconds."""
        return self._writer.close()

    def _record(self, room: Room, format: str, status: SessionStatus) -> Stage:
        session = RecordedSession(
            unique_id=status.unique_id,
            id=status.id,
            listener=status.listener,
            peer=status.peer,
            pool=status.pool,
            upstream=status.upstream,
            started=round(self._reactor.seconds(), 6),
        )
        name = status.unique_id + SUFFIXES[format]
        file = RecordingFile(status.id, name, room, ENCODERS[format](session))
        stage = RecordingStage(self._reactor, self._writer, file, self._stopped)
        self._stages[status.id] = stage
        return stage

    def _stopped(self, file: RecordingFile, why: str) -> None:
        stage = self._stages.get(file.session)
        if stage is not None:
            stage.stop()
        now = self._reactor.seconds()
        if now - self._said < QUIET:
            self._unsaid += 1
            return
        more = f", and {self._unsaid} before" if self._unsaid else ""
        self._said, self._unsaid = now, 0
        _log.warn(
            "The recording {path} of session {id}{more} has stopped: {why}",
            path=file.path,
            id=file.session,
            more=more,
            why=why,
        )


@frozen
class _Recorder:
    """Makes the stage of each session of one listener."""

    record: Callable[[Room, str, SessionStatus], Stage]
    room: Room
    format: str

    def __call__(self, status: SessionStatus) -> Sequence[Stage]:
        return (self.record(self.room, self.format, status),)


def check_directory(directory: str) -> None:
    """
    Check that recordings can be written to `directory`.

    :raises SettingsError: if not.
    """
    if not os.path.isdir(directory):
        raise SettingsError(f"record: {directory}: there is no such directory")
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise SettingsError(f"record: {directory}: evproxy may not write there")
