"""`LineWriter` with destinations that are slow, stuck, full, closed or renamed."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from evproxy.observe.destinations import Destination, LogFile, SystemLog
from evproxy.observe.line_writer import FLUSH_TIMEOUT, MOST_WAITING, LineWriter

pytestmark = [pytest.mark.oldest_twisted, pytest.mark.deadline(30)]

LINE = b"a line of this log, as good as any\n"


class Told:
    """A `LogWriterObserver` that records its calls, and lets a test wait for one."""

    def __init__(self) -> None:
        self.all: list[tuple[Any, ...]] = []
        self._waiting: list[tuple[str, Deferred[None]]] = []

    def _tell(self, *what: Any) -> None:
        self.all.append(what)
        done = [each for each in self._waiting if each[0] == what[0]]
        self._waiting = [each for each in self._waiting if each not in done]
        for _, deferred in done:
            deferred.callback(None)

    def log_failed(self, where: str, why: str) -> None:
        self._tell("failed", why)

    def log_lines_dropped(self, where: str) -> None:
        self._tell("dropping")

    def log_written_again(self, where: str, dropped: int) -> None:
        self._tell("again", dropped)

    def log_not_reopened(self, where: str, why: str) -> None:
        self._tell("not reopened", why)

    def log_lines_lost(self, where: str, lines: int) -> None:
        self._tell("lost", lines)

    def until(self, what: str) -> Deferred[None]:
        """Return a Deferred that fires at the next call of the method `what`."""
        deferred: Deferred[None] = Deferred()
        self._waiting.append((what, deferred))
        return deferred


def missing(lines: int) -> bytes:
    """Return the line in place of `lines` dropped lines."""
    return b"%d dropped\n" % lines


class Bench:
    """The writers under test, and their observer."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.told = Told()
        self.writers: list[LineWriter] = []

    def writer(self, destination: Destination) -> LineWriter:
        """Return an open writer."""
        writer = LineWriter(self.reactor, destination, self.told, missing)
        writer.open()
        self.writers.append(writer)
        return writer

    async def close(self, writer: LineWriter) -> None:
        self.writers.remove(writer)
        await writer.close()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until a condition holds that a thread makes true."""
        while not holds():
            await deferLater(self.reactor, 0.001)


@pytest.fixture
def bench(reactor: Any) -> Iterator[Bench]:
    """The base of the tests of writers."""
    bench = Bench(reactor)
    yield bench
    for writer in bench.writers:
        pytest_twisted.blockon(writer.close())


def reader(path: str) -> FileIO:
    """Return the reading end of the pipe at `path`."""
    file = FileIO(path, opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK))
    os.set_blocking(file.fileno(), True)
    return file


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[str, FileIO]]:
    """The path of a named pipe, and its reading end."""
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    with reader(path) as reading:
        yield path, reading


async def test_what_was_written_is_there_when_it_is_closed(bench: Bench, tmp_path: Path) -> None:
    """After `close`, each line is in the file once and in order; no thread is left."""
    path = tmp_path / "log"
    path.write_bytes(b"before\n")
    writer = bench.writer(LogFile(str(path)))
    lines = [b"%d\n" % number for number in range(5000)]
    for start in range(0, len(lines), 100):
        writer.write(b"".join(lines[start : start + 100]), 100)
    await bench.close(writer)
    assert path.read_bytes() == b"before\n" + b"".join(lines)
    assert bench.told.all == []


async def test_a_slow_reader_gets_everything(bench: Bench, pipe: tuple[str, FileIO]) -> None:
    """The writer waits for a full pipe, and cuts no line."""
    path, reading = pipe
    writer = bench.writer(LogFile(path))
    for _ in range(100):
        writer.write(100 * LINE, 100)
    received = deferToThread(reading.readall)
    await bench.close(writer)
    assert await received == 10_000 * LINE
    assert bench.told.all == []


async def test_lines_are_dropped_when_nobody_reads(bench: Bench, pipe: tuple[str, FileIO]) -> None:
    """Waiting lines are bounded; observers and a line in the log report the dropped lines once."""
    path, reading = pipe
    writer = bench.writer(LogFile(path))
    batch, count = 2000 * LINE, 2000
    handed = 0
    while not writer.full:
        writer.write(batch, count)
        handed += 1
        assert writer.waiting <= MOST_WAITING
    writer.write(batch, count)
    writer.drop(7)
    again = bench.told.until("again")
    received = deferToThread(reading.readall)
    await again
    writer.write(LINE, 1)
    await bench.close(writer)
    dropped = 2 * count + 7
    assert await received == (handed - 1) * batch + missing(dropped) + LINE
    assert bench.told.all == [("dropping",), ("again", dropped)]


async def test_a_reader_that_is_stuck_does_not_hold_up_the_end(
    bench: Bench, pipe: tuple[str, FileIO]
) -> None:
    """After a bounded time, `close` gives up the waiting lines, and reports their number."""
    path, reading = pipe
    writer = bench.writer(LogFile(path))
    for _ in range(100):
        writer.write(1000 * LINE, 1000)
    before = bench.reactor.seconds()
    await bench.close(writer)
    assert FLUSH_TIMEOUT <= bench.reactor.seconds() - before < FLUSH_TIMEOUT + 5
    [(what, lost)] = bench.told.all
    await bench.until(
        lambda: all(each.name != "evproxy access log" for each in threading.enumerate())
    )
    received = reading.readall()
    assert received == received.count(b"\n") * LINE
    assert (what, lost) == ("lost", 100_000 - received.count(b"\n"))


async def test_a_pipe_that_is_closed_is_told_once(bench: Bench, pipe: tuple[str, FileIO]) -> None:
    """While a pipe is closed, lines wait; the next reader of the pipe gets them."""
    path, reading = pipe
    writer = bench.writer(LogFile(path))
    reading.close()
    failed = bench.told.until("failed")
    writer.write(LINE, 1)
    await failed
    writer.reopen()
    await bench.until(lambda: ("not reopened", os.strerror(errno.ENXIO)) in bench.told.all)
    with reader(path) as anew:
        writer.write(LINE, 1)
        writer.reopen()
        await bench.until(lambda: not writer.waiting)
        await bench.close(writer)
        assert anew.readall() == 2 * LINE
    assert bench.told.all[0] == ("failed", os.strerror(errno.EPIPE))
    assert [what for what, *_ in bench.told.all].count("failed") == 1


async def test_a_disk_that_is_full_is_waited_for(bench: Bench, full_disk: Path) -> None:
    """Once a full disk has room again, all waiting lines are written, none cut or doubled."""
    filler, path = full_disk / "filler", full_disk / "log"
    filler.write_bytes(b"x" * 100_000)
    writer = bench.writer(LogFile(str(path)))
    failed = bench.told.until("failed")
    for _ in range(4):
        writer.write(1000 * LINE, 1000)
    await failed
    assert path.stat().st_size < 4000 * len(LINE)
    filler.unlink()
    await bench.until(lambda: not writer.waiting)
    await bench.close(writer)
    assert path.read_bytes() == 4000 * LINE
    assert bench.told.all == [("failed", os.strerror(errno.ENOSPC))]


async def test_a_disk_that_stays_full_does_not_hold_up_the_end(
    bench: Bench, full_disk: Path
) -> None:
    """At the end, the writer tries once more, and reports how many lines are lost."""
    path = full_disk / "log"
    (full_disk / "filler").write_bytes(b"x" * 150_000)
    writer = bench.writer(LogFile(str(path)))
    failed = bench.told.until("failed")
    for _ in range(4):
        writer.write(1000 * LINE, 1000)
    await failed
    before = bench.reactor.seconds()
    await bench.close(writer)
    assert bench.reactor.seconds() - before < FLUSH_TIMEOUT
    written = path.read_bytes().count(b"\n")
    assert bench.told.all[1:] == [("lost", 4000 - written)]


async def test_a_file_is_renamed_and_opened_again(bench: Bench, tmp_path: Path) -> None:
    """After a rename and a reopen, no line is lost, and no line is in both files."""
    path = tmp_path / "log"
    writer = bench.writer(LogFile(str(path)))
    lines = [b"%d\n" % number for number in range(6000)]
    for number in range(60):
        writer.write(b"".join(lines[100 * number : 100 * number + 100]), 100)
        if number % 20 == 10:
            path.rename(tmp_path / f"log.{number}")
            writer.reopen()
            await bench.until(path.exists)
    await bench.close(writer)
    files = [tmp_path / "log.10", tmp_path / "log.30", tmp_path / "log.50", path]
    assert b"".join(each.read_bytes() for each in files) == b"".join(lines)
    assert bench.told.all == []


@pytest.mark.parametrize("again", [False, True])
async def test_what_is_written_again_is_told(
    bench: Bench, pipe: tuple[str, FileIO], monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Once all lines are written, and no write has failed for a while; then the next failure is."""
    monkeypatch.setattr("evproxy.observe.line_writer.QUIET", 0.05)
    path, reading = pipe
    writer = bench.writer(LogFile(path))
    for _ in range(1 + again):
        reading.close()
        failed, over = bench.told.until("failed"), bench.told.until("again")
        writer.write(LINE, 1)
        await failed
        reading = reader(path)
        writer.reopen()
        await over
        assert reading.read(len(LINE)) == LINE
    assert [what for what, *_ in bench.told.all] == ["failed", "again"] * (1 + again)
    await bench.close(writer)
    reading.close()


async def test_a_line_that_was_cut_is_whole_in_the_next_file(
    bench: Bench, full_disk: Path, tmp_path: Path
) -> None:
    """If a full disk cuts a line, the file after a reopen has the whole line."""
    link = tmp_path / "log"
    link.symlink_to(full_disk / "log")
    writer = bench.writer(LogFile(str(link)))
    failed = bench.told.until("failed")
    writer.write(8000 * LINE, 8000)
    await failed
    link.unlink()
    writer.reopen()
    await bench.close(writer)
    cut, rest = (full_disk / "log").read_bytes(), link.read_bytes()
    whole = cut[: cut.rindex(b"\n") + 1]
    assert len(cut) > len(whole)
    assert whole + rest == 8000 * LINE
    assert [what for what, *_ in bench.told.all] == ["failed"]


async def test_a_file_that_cannot_be_opened_again_is_kept(bench: Bench, tmp_path: Path) -> None:
    """If a reopen fails, the writer keeps the old file, and notifies the observer."""
    directory = tmp_path / "logs"
    directory.mkdir()
    writer = bench.writer(LogFile(str(directory / "log")))
    directory.rename(tmp_path / "moved")
    told = bench.told.until("not reopened")
    writer.reopen()
    await told
    writer.write(LINE, 1)
    await bench.close(writer)
    assert (tmp_path / "moved" / "log").read_bytes() == LINE
    assert bench.told.all == [("not reopened", os.strerror(errno.ENOENT))]


def test_what_cannot_be_opened_is_an_error(bench: Bench, tmp_path: Path) -> None:
    """If the destination cannot be opened at the start, `open` raises at once."""
    writer = LineWriter(bench.reactor, LogFile(str(tmp_path)), bench.told, missing)
    with pytest.raises(IsADirectoryError):
        writer.open()


@pytest.fixture
def system_log(tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """The path of a datagram socket, and the socket."""
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(20)
        yield path, sock


async def test_each_line_is_a_datagram_of_the_system_log(
    bench: Bench, system_log: tuple[str, socket.socket]
) -> None:
    """A datagram has facility, severity, time, name and process, then the line, no newline."""
    path, sock = system_log
    writer = bench.writer(SystemLog(path))
    writer.write(b"one\ntwo\n", 2)
    await bench.close(writer)
    for line in (b"one", b"two"):
        header, _, text = sock.recv(2048).partition(b": ")
        assert text == line
        assert header.startswith(b"<30>")
        assert header.endswith(b" evproxy[%d]" % os.getpid())
        assert len(header) == len(b"<30>Nov 24 07:03:11 evproxy[]") + len(str(os.getpid()))


async def test_a_system_log_that_is_started_anew_gets_the_rest(
    bench: Bench, system_log: tuple[str, socket.socket]
) -> None:
    """While the system's log restarts, lines wait; then the new log gets them."""
    path, sock = system_log
    writer = bench.writer(SystemLog(path))
    sock.close()
    os.unlink(path)
    failed = bench.told.until("failed")
    writer.write(b"one\n", 1)
    await failed
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as anew:
        anew.bind(path)
        anew.settimeout(20)
        writer.write(b"two\n", 1)
        await bench.close(writer)
        assert [anew.recv(2048).rpartition(b": ")[2] for _ in range(2)] == [b"one", b"two"]
    assert [what for what, *_ in bench.told.all] == ["failed"]


async def test_a_system_log_that_is_stuck_is_waited_for(
    bench: Bench, system_log: tuple[str, socket.socket]
) -> None:
    """If the queue of the system's log is full, the thread waits until there is room."""
    path, sock = system_log
    writer = bench.writer(SystemLog(path))
    lines = [b"%d" % number for number in range(1000)]
    writer.write(b"".join(each + b"\n" for each in lines), len(lines))
    received = await deferToThread(
        lambda: [sock.recv(2048).rpartition(b": ")[2] for _ in range(len(lines))]
    )
    await bench.close(writer)
    assert received == lines
    assert bench.told.all == []
