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

from evproxy.config.canonical import host_and_port
from evproxy.errors import SettingsError
from evproxy.policy.seldom import Seldom
from evproxy.recording.file import RecordingFile
from evproxy.recording.recording import Recording
from evproxy.recording.room import SUFFIXES, Room
from evproxy.recording.stage import RecordingStage
from evproxy.recording.tap import RecordingTap
from evproxy.recording.writer import RecordingWriter
from evproxy.records import SessionRecord, SessionStatus
from evproxy.relay.stages import Stage
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
        self._recorded: dict[int, RecordingStage | RecordingTap] = {}
        # Of clients whose session has no server yet, too.
        self._taps: dict[int, RecordingTap] = {}
        self._idle: list[Callable[[], None]] = []
        self._lines = Seldom(QUIET)

    def into(
        self,
        directory: str,
        format: str = "json",
        max_files: int = MAX_FILES,
        max_bytes: int = MAX_BYTES,
    ) -> Recorder:
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
        return Recorder(self, Room(directory, max_files, max_bytes), format)

    def session_ended(self, record: SessionRecord) -> None:
        """Write the end of the recording, if there is one."""
        self._taps.pop(record.id, None)
        recorded = self._recorded.pop(record.id, None)
        if recorded is not None:
            recorded.finish(record.reason)
        self._look_whether_idle()

    def when_idle(self, idle: Callable[[], None]) -> None:
        """Call `idle` once no session is recorded: now, or when the last recording ends."""
        self._idle.append(idle)
        self._look_whether_idle()

    def _look_whether_idle(self) -> None:
        if self._idle and not self._recorded and not self._taps:
            waiting, self._idle = self._idle, []
            for idle in waiting:
                idle()

    def close(self) -> Deferred[None]:
        """Return a Deferred that fires when all is written, or after two seconds."""
        return self._writer.close()

    def tap(self, session: int, host: Any) -> RecordingTap:
        """
        Return what the TLS of a client tells what passes, for a recording as pcapng.

        :param session: the number of its session.
        :param host: the address of evproxy to which it has connected.
        """
        address = host_and_port(host.host, host.port) if hasattr(host, "host") else ""
        tap = self._taps[session] = RecordingTap(self._reactor, address)
        return tap

    def record(self, room: Room, format: str, status: SessionStatus) -> Sequence[Stage]:
        """Begin the recording of a session that has got its server; return its stages."""
        tap = self._taps.pop(status.id, None)
        session = RecordedSession(
            unique_id=status.unique_id,
            id=status.id,
            listener=status.listener,
            peer=status.peer,
            pool=status.pool,
            upstream=status.upstream,
            started=round(self._reactor.seconds() if tap is None else tap.began, 6),
        )
        encoder = ENCODERS[format](session) if tap is None else PcapngEncoder(session, tap.host)
        file = RecordingFile(status.id, status.unique_id + SUFFIXES[format], room, encoder)
        began = None if tap is None else tap.began
        recording = Recording(self._reactor, self._writer, file, self._stopped, began)
        if tap is not None:
            self._recorded[status.id] = tap
            tap.begin(recording)
            return ()
        stage = self._recorded[status.id] = RecordingStage(recording)
        return (stage,)

    def _stopped(self, file: RecordingFile, why: str) -> None:
        recorded = self._recorded.get(file.session)
        if recorded is not None:
            recorded.stop()
        left_out = self._lines.left_out(self._reactor.seconds())
        if left_out is None:
            return
        more = f", and {left_out} before" if left_out else ""
        _log.warn(
            "The recording {path} of session {id}{more} has stopped: {why}",
            path=file.path,
            id=file.session,
            more=more,
            why=why,
        )


@frozen
class Recorder:
    """
    Records the sessions of one listener.

    Called with a session that has got its server, it returns the stage that records it.
    """

    recordings: Recordings
    room: Room
    format: str

    def __call__(self, status: SessionStatus) -> Sequence[Stage]:
        return self.recordings.record(self.room, self.format, status)

    @property
    def tap(self) -> Callable[[int, Any], RecordingTap] | None:
        """
        Makes what records TLS as the network has it, where evproxy ends it.

        ``None``: the recordings have what is inside of TLS.
        """
        return self.recordings.tap if self.format == "pcapng" else None


def check_directory(directory: str) -> None:
    """
    Check that recordings can be written to `directory`.

    :raises SettingsError: if not.
    """
    if not os.path.isdir(directory):
        raise SettingsError(f"record: {directory}: there is no such directory")
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise SettingsError(f"record: {directory}: evproxy may not write there")
