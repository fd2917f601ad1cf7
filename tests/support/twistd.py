"""
``twistd`` as it is run from a shell: to its end, or as a process to talk to.
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
"""Seconds for anything that a test waits for."""


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for what another process does and tells nobody: a file, a socket, its end."""
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.005)


@frozen
class Outcome:
    """How a run ended: its exit status, and all that it wrote."""

    status: int
    out: str
    err: str


def environment() -> dict[str, str]:
    """The environment of a run: the tests can be imported, and output is not held back."""
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
    """Run ``twistd`` to its end with each of `commands`, importing what it needs only once."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING],
        cwd=cwd,
        env=environment(),
        input=json.dumps(commands),
        stdout=subprocess.PIPE,
        text=True,
        # One after the other: a second for each where others use the machine too.
        timeout=PATIENCE + len(commands),
        check=True,
    )
    return [Outcome(*outcome) for outcome in json.loads(done.stdout)]


def json_log() -> Any:
    """What ``--logger`` is told: every event as JSON on standard output."""
    return jsonFileLogObserver(sys.stdout)


WORDS = ("listener", "peer", "upstream", "reason_by", "reason_how", "reason_phase")
"""The words of a line of the access log that have no name, after its time."""

NUMBERED = ("bytes_to_upstream", "bytes_to_downstream", "attempts")
TIMED = ("connect_time", "first_byte_time", "duration")


def session_event(line: str) -> LogEvent:
    """What a line of the access log, as text, says: as the event that it stands for."""
    words, _, error = line.removesuffix('"').partition(' error="')
    time, *rest = words.split(" ")
    event: LogEvent = {
        "time": time,
        "log_time": datetime.fromisoformat(time).timestamp(),
        "error": error,
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
    A ``twistd`` that runs in the foreground, its log events as they come; killed after `PATIENCE`.

    A line of the access log counts as the event that it stands for.

    :param arguments: what follows ``twistd -n``.
    :param command: what comes before `arguments`, in place of ``twistd -n``.
    :param descriptors: the file descriptors that the process inherits.
    """

    def __init__(
        self,
        *arguments: str,
        command: Sequence[str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        before = [TWISTD, "-n", "--pidfile=", JSON_LOG]
        self._process = subprocess.Popen(
            [*(before if command is None else command), *arguments],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=descriptors,
        )
        self.events: list[LogEvent] = []
        self._end_of_patience = threading.Timer(PATIENCE, self._process.kill)
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
        """The first event that is `wanted`, once it has come."""
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
        """The first event whose message the pattern `text` matches, once it has come."""
        event = self.event(lambda event: re.search(text, formatEvent(event)) is not None)
        found = re.search(text, formatEvent(event))
        assert found is not None
        return found

    def port(self) -> int:
        """The port of 127.0.0.1 that it listens on, once it does."""
        return int(self.says(r"ProxyFactory starting on (\d+)")[1])

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def ended(self) -> int:
        """Its exit status, once it has ended; its last events are among `events` then."""
        while line := self._line():
            self.events.append(_event(line))
        return self._process.wait(PATIENCE)

    def sessions(self, count: int = 0) -> list[LogEvent]:
        """The events of sessions' ends, once at least `count` have come."""

        def ended() -> list[LogEvent]:
            return [each for each in self.events if each["log_namespace"] == "evproxy.session"]

        if len(ended()) < count:
            self.event(lambda _: len(ended()) >= count)
        return ended()

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def _event(line: bytes) -> LogEvent:
    """The event that a line of standard output is."""
    text = line.decode().removesuffix("\n")
    # What is written without a record separator before it is no event of twistd's.
    return eventFromJSON(text[1:]) if text.startswith("\x1e") else session_event(text)
