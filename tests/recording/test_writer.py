"""The writer of recordings: its bounds, and a disk that is slow, stuck or full."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from threading import Event as ThreadEvent
from typing import Any

from twisted.internet.task import Clock

from evproxy.model import Ending
from evproxy.recording.file import RecordingFile
from evproxy.recording.recording import Recording
from evproxy.recording.room import LOOK, Room
from evproxy.recording.stage import RecordingStage
from evproxy.recording.writer import FLUSH_TIMEOUT, RecordingWriter
from evproxy.wire.recording import Event, Kind, LinesEncoder, RecordedSession, event_of
from tests.support.leaks import LoggedErrors
from tests.support.logged import logged_lines
from tests.support.peers import turn

SESSION = RecordedSession("a1-7", 7, "web", "127.0.0.1:5", "default", "127.0.0.1:80", 1.0)
CHUNK = b"x" * 65536


class Stuck(LinesEncoder):
    """An encoder that waits in the thread, as a stuck disk does."""

    def __init__(self, session: RecordedSession) -> None:
        super().__init__(session)
        self.free = ThreadEvent()

    def begin(self) -> bytes:
        self.free.wait(20)
        return super().begin()


class Sink:
    """An `Outlet` that counts bytes."""

    def __init__(self) -> None:
        self.count = 0

    def pass_on(self, data: bytes) -> None:
        self.count += len(data)

    def end(self) -> None:
        """The test ends no stream."""

    def close(self, how: Ending, reset: bool) -> None:
        """The test ends no session."""

    def reveal(self) -> None:
        """Nothing is hidden."""

    def recount(self) -> None:
        """Nothing is held."""


async def test_a_stuck_disk_stops_the_recording_whole(reactor: Any, tmp_path: Path) -> None:
    """The session goes on; the file has every byte up to where it says that it stops."""
    stopped: list[tuple[RecordingFile, str]] = []
    most = 1024 * 1024
    writer = RecordingWriter(reactor, lambda file, why: stopped.append((file, why)), most)
    encoder = Stuck(SESSION)
    file = RecordingFile(7, "one.jsonl", Room(str(tmp_path), 10, 10**9), encoder)
    stage = RecordingStage(
        Recording(reactor, writer, file, lambda file, why: stopped.append((file, why)))
    )
    sink = Sink()
    stage.start(sink, sink)
    chunks = 2 * most // len(CHUNK)
    for _ in range(chunks):
        stage.upload(CHUNK)
        assert writer.waiting <= most + 1024
    assert sink.count == chunks * len(CHUNK)
    assert stopped == [(file, "the disk is too slow")]
    encoder.free.set()
    await writer.close()
    events = [event_of(line) for line in (tmp_path / "one.jsonl").read_bytes().splitlines()[1:]]
    assert {event.kind for event in events[:-1]} == {Kind.DATA}
    assert len(events) - 1 == most // (len(CHUNK) + 256)
    assert events[-1].kind is Kind.STOPPED
    assert writer.waiting == 0


async def test_the_end_does_not_wait_for_a_stuck_disk(reactor: Any, tmp_path: Path) -> None:
    """After two seconds, the service ends without the rest, and the log says so."""
    clock = Clock()
    clock.callFromThread = reactor.callFromThread  # type: ignore[attr-defined]
    writer = RecordingWriter(clock, lambda file, why: None)
    encoder = Stuck(SESSION)
    file = RecordingFile(7, "one.jsonl", Room(str(tmp_path), 10, 10**9), encoder)
    writer.write(file, Event(0.0, Kind.END, "upstream"))
    with logged_lines() as lines:
        closings = [writer.close(), writer.close()]
        clock.advance(FLUSH_TIMEOUT - 0.1)
        assert [closing.called for closing in closings] == [False, False]
        clock.advance(0.1)
        assert [closing.called for closing in closings] == [True, True]
    assert lines == ["The recordings of the last sessions are not whole: the disk is too slow"]
    encoder.free.set()
    await writer.close()


async def test_a_broken_writer_leaves_no_holes(
    reactor: Any, tmp_path: Path, logged_errors: LoggedErrors
) -> None:
    """Recordings whose events the thread has taken stop, as those whose events wait."""

    class Broken(LinesEncoder):
        def encode(self, event: Event) -> bytes:
            raise ValueError("no such event")

    stopped: list[tuple[RecordingFile, str]] = []
    writer = RecordingWriter(reactor, lambda file, why: stopped.append((file, why)))
    room = Room(str(tmp_path), 10, 10**9)
    encoder = Stuck(SESSION)
    stuck = RecordingFile(1, "stuck.jsonl", room, encoder)
    broken = RecordingFile(2, "broken.jsonl", room, Broken(SESSION))
    other = RecordingFile(3, "other.jsonl", room, LinesEncoder(SESSION))
    for file in (stuck, broken, other):
        # The thread takes the first event, and the other two together.
        writer.write(file, Event(0.0, Kind.END, "upstream"))
    encoder.free.set()
    await writer.close()
    assert len(logged_errors.flush(ValueError)) == 1
    assert {file.session for file, _ in stopped} == {2, 3}
    assert {why for _, why in stopped} == {"no such event"}
    writer.write(other, Event(1.0, Kind.END, "downstream"))
    await writer.close()
    assert not (tmp_path / "other.jsonl").exists()
    assert writer.waiting == 0


async def test_a_full_disk(reactor: Any, full_disk: Path) -> None:
    """A recording stops with the words of the system, and every line of the file is whole."""
    stopped: list[str] = []
    writer = RecordingWriter(reactor, lambda file, why: stopped.append(why))
    file = RecordingFile(7, "one.jsonl", Room(str(full_disk), 10, 10**9), LinesEncoder(SESSION))
    for number in range(4):
        writer.write(file, Event(float(number), Kind.DATA, "upstream", CHUNK))
        await writer.close()
    await turn(reactor)
    assert stopped == [os.strerror(errno.ENOSPC)]
    events = [event_of(line) for line in (full_disk / "one.jsonl").read_bytes().splitlines()[1:]]
    assert [event.kind for event in events] == [Kind.DATA, Kind.DATA, Kind.STOPPED]
    assert events[-1].text == os.strerror(errno.ENOSPC)


async def test_a_disk_that_is_full_from_the_beginning(reactor: Any, full_disk: Path) -> None:
    """A recording that cannot begin leaves no file behind."""
    stopped: list[str] = []
    writer = RecordingWriter(reactor, lambda file, why: stopped.append(why))
    file = RecordingFile(7, "one.jsonl", Room(str(full_disk), 10, 10**9), LinesEncoder(SESSION))
    writer.write(file, Event(0.0, Kind.DATA, "upstream", bytes(300_000)))
    await writer.close()
    await turn(reactor)
    assert stopped == [os.strerror(errno.ENOSPC)]
    assert list(full_disk.iterdir()) == []


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    """Who may write to the directory cannot have the rest of a recording written elsewhere."""
    file = RecordingFile(7, "one.jsonl", Room(str(tmp_path), 10, 10**9), LinesEncoder(SESSION))
    assert file.write([Event(0.0, Kind.END, "upstream")]) == ""
    (tmp_path / "one.jsonl").unlink()
    other = tmp_path / "other"
    other.write_bytes(b"")
    (tmp_path / "one.jsonl").symlink_to(other)
    assert file.write([Event(0.0, Kind.END, "downstream")]) == os.strerror(errno.ELOOP)
    assert file.stopped
    assert other.read_bytes() == b""


def test_room(tmp_path: Path) -> None:
    """Room counts what others write and delete, once a second; and only recordings."""
    (tmp_path / "a.jsonl").write_bytes(b"1234")
    (tmp_path / "other").write_bytes(b"x" * 1000)
    now = [0.0]
    room = Room(str(tmp_path), 2, 10, clock=lambda: now[0])
    assert room.take(3, True) == ""
    assert room.take(1, True) == "record_max_files: there are 2 recordings"
    assert room.take(4, False) == "record_max_bytes: the recordings have 7 bytes"
    (tmp_path / "a.jsonl").unlink()
    assert room.take(4, False) != ""
    now[0] = LOOK
    assert room.take(4, True) == ""
