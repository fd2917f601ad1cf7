"""
``twistd`` as run from a shell: until it ends, or as a process to interact with.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from attrs import frozen
from twisted.logger import LogEvent, eventFromJSON, formatEvent, jsonFileLogObserver

JSON_LOG = "--logger=tests.support.twistd.json_log"
"""The option of twistd that logs events as JSON."""

ROOT = Path(__file__).resolve().parents[2]
TWISTD = str(Path(sys.executable).with_name("twistd"))
TWIST = str(Path(sys.executable).with_name("twist"))
PATIENCE = 30.0
"""The timeout, in seconds, of each wait in a test."""


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for an action of another process that has no event: a file, a socket, its end."""
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.005)


@frozen
class Outcome:
    """The outcome of a run: its exit status and its output."""

    status: int
    out: str
    err: str


def environment() -> dict[str, str]:
    """Return the environment of a run: the tests are importable, and output is unbuffered."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "COLUMNS": "100"}


def run(*arguments: str, cwd: Path | str = ROOT, program: str = TWISTD) -> Outcome:
    """Run ``twistd`` to its end."""
    done = subprocess.run(
        [program, *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


FORKING = """
import json, os, sys, tempfile
import evproxy.cli.tap
from twisted.scripts.twistd import run

outcomes = []
for arguments in json.load(sys.stdin):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if not child:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.argv = ["twistd", *arguments]
            run()
            sys.exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        outcomes.append([status])
        for file in (out, err):
            file.seek(0)
            outcomes[-1].append(file.read().decode())
json.dump(outcomes, sys.stdout)
"""


def run_each(commands: Sequence[Sequence[str]], cwd: Path) -> list[Outcome]:
    """Run ``twistd`` to its end with each of `commands`, with a single import of its modules."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING],
        cwd=cwd,
        env=environment(),
        input=json.dumps(commands),
        stdout=subprocess.PIPE,
        text=True,
        # The runs are sequential; each may take a second on a busy machine.
        timeout=PATIENCE + len(commands),
        check=True,
    )
    return [Outcome(*outcome) for outcome in json.loads(done.stdout)]


def json_log() -> Any:
    """The function for ``--logger``: prints every event as JSON on standard output."""
    return jsonFileLogObserver(sys.stdout)


WORDS = ("listener", "peer", "upstream", "reason_by", "reason_how", "reason_phase")
"""The fields without names in a line of the access log, after the time."""

NUMBERED = ("bytes_to_upstream", "bytes_to_downstream", "attempts", "id")
TIMED = ("connect_time", "first_byte_time", "duration")


def session_event(line: str) -> LogEvent:
    """Parse a line of the access log, in the format text, into the equivalent event."""
    words, _, texts = line.removesuffix('"').partition(' route="')
    route, _, error = texts.partition('" error="')
    time, *rest = words.split(" ")
    event: LogEvent = {
        "time": time,
        "log_time": datetime.fromisoformat(time).timestamp(),
        "error": error,
        "route": route,
        "log_namespace": "evproxy.session",
    }
    event |= zip(WORDS, rest, strict=False)
    for name, _, value in (each.partition("=") for each in rest[len(WORDS) :]):
        event[name] = None if value == "-" else value
    for name in NUMBERED:
        event[name] = int(event[name])
    for name in TIMED:
        event[name] = None if event[name] is None else float(event[name])
    return event


class Running:
    """
    A ``twistd`` in the foreground, with its log events; killed after `patience` seconds.

    A line of the access log counts as the equivalent event.

    :param arguments: the arguments after ``twistd -n``.
    :param command: the beginning of the command line, in place of ``twistd -n``.
    :param descriptors: the file descriptors that the process inherits.
    :param cwd: the directory in which it starts.
    :param patience: the seconds after which it is killed.
    """

    def __init__(
        self,
        *arguments: str,
        command: Sequence[str] | None = None,
        descriptors: Sequence[int] = (),
        cwd: Path | str = ROOT,
        patience: float = PATIENCE,
    ) -> None:
        before = [TWISTD, "-n", "--pidfile=", JSON_LOG]
        self._process = subprocess.Popen(
            [*(before if command is None else command), *arguments],
            cwd=cwd,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=descriptors,
        )
        self.events: list[LogEvent] = []
        self._end_of_patience = threading.Timer(patience, self._process.kill)
        self._end_of_patience.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._end_of_patience.cancel()
        self._process.kill()
        self._process.communicate()

    def event(self, wanted: Callable[[LogEvent], bool]) -> LogEvent:
        """Wait for the first event that is `wanted`, and return it."""
        for event in self.events:
            if wanted(event):
                return event
        while line := self._line():
            event = _event(line)
            self.events.append(event)
            if wanted(event):
                return event
        last = [formatEvent(event) for event in self.events[-5:]]
        raise EOFError(
            f"it ended after {last}, and said: {self._process.communicate()[1].decode()}"
        )

    def says(self, text: str) -> re.Match[str]:
        """Wait for the first event whose message matches the pattern `text`; return it."""
        event = self.event(lambda event: re.search(text, formatEvent(event)) is not None)
        found = re.search(text, formatEvent(event))
        assert found is not None
        return found

    def says_again(self, text: str, count: int) -> None:
        """Wait until `count` events have a message that matches the pattern `text`."""
        seen = 0

        def counted(event: LogEvent) -> bool:
            nonlocal seen
            seen += re.search(text, formatEvent(event)) is not None
            return seen >= count

        self.event(counted)

    def port(self) -> int:
        """Wait until the proxy listens on 127.0.0.1, and return its port."""
        return int(self.says(r"ProxyFactory starting on (\d+)")[1])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self._process.send_signal(number)

    def runs(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def ended(self) -> int:
        """Wait for the end, and return the exit status; `events` then has the last events."""
        while line := self._line():
            self.events.append(_event(line))
        return self._process.wait(PATIENCE)

    def errors(self) -> str:
        """Return what it wrote to standard error; call this after its end."""
        assert self._process.stderr is not None
        return self._process.stderr.read().decode()

    def sessions(self, count: int = 0) -> list[LogEvent]:
        """Wait for the ends of at least `count` sessions, and return their events."""

        number = 0

        def enough(event: LogEvent) -> bool:
            nonlocal number
            number += _is_session(event)
            return number >= count

        if count:
            # Each event is looked at once: under load, there are tens of thousands.
            self.event(enough)
        return [each for each in self.events if _is_session(each)]

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def _is_session(event: LogEvent) -> bool:
    """Whether it is the end of a session."""
    return bool(event["log_namespace"] == "evproxy.session")


def _event(line: bytes) -> LogEvent:
    """Return the event in a line of standard output."""
    text = line.decode().removesuffix("\n")
    # Output without a record separator in front is not an event from twistd.
    return eventFromJSON(text[1:]) if text.startswith("\x1e") else session_event(text)
