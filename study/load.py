"""The load of the study, seen by the one who starts it: commands, and what came of them."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from attrs import asdict, frozen

from .processes import ROOT, end_group, load_cores
from .stream import Stream

PERCENTILES = (50.0, 99.0, 99.9)


@frozen
class Seen:
    """What the clients of one stream saw: how requests ended, and latencies in seconds."""

    outcomes: dict[str, int]
    latencies: Sequence[float]

    @property
    def sent(self) -> int:
        """How many requests were due."""
        return sum(self.outcomes.values())

    @property
    def whole(self) -> int:
        """How many were answered in full."""
        return self.outcomes.get("whole", 0)

    def milliseconds(self, percent: float) -> float | None:
        """A percentile of the latencies, of all requests: ``None`` if that one was not answered."""
        place = math.ceil(self.sent * percent / 100) - 1
        return self.latencies[place] * 1000 if 0 <= place < len(self.latencies) else None

    def numbers(self) -> dict[str, float | None]:
        """The percentiles, and the share of requests that were not answered in full."""
        found: dict[str, float | None] = {
            f"p{percent:g}": self.milliseconds(percent) for percent in PERCENTILES
        }
        found["unanswered"] = 100 * (1 - self.whole / self.sent) if self.sent else 0.0
        return found


class LoadError(Exception):
    """The load generator is gone."""


@frozen
class Load:
    """The process of the load."""

    process: subprocess.Popen[str]

    def ask(self, **command: Any) -> None:
        """Send a command, and do not wait for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to a command."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise LoadError("the load generator ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def do(self, **command: Any) -> dict[str, Any]:
        """Send a command, and wait for its answer."""
        self.ask(**command)
        return self.answer()

    def open(self, count: int, timeout: float) -> int:
        """Open connections that stay; return how many were served."""
        found: int = self.do(do="open", count=count, timeout=timeout)["answered"]
        return found

    def run(self, *streams: Stream, grace: float = 1.0) -> dict[str, Seen]:
        """Run streams of requests together."""
        self.start(*streams, grace=grace)
        return self.seen()

    def start(self, *streams: Stream, grace: float = 1.0) -> None:
        """Start streams of requests, and do not wait."""
        self.ask(do="run", streams=[asdict(each) for each in streams], grace=grace)

    def seen(self) -> dict[str, Seen]:
        """Wait for the end of what `start` has started."""
        streams = self.answer()["streams"]
        return {name: Seen(**each) for name, each in streams.items()}


@contextmanager
def running_load(port: int) -> Iterator[Load]:
    """Clients of the server at `port`, on the cores of the load."""
    process = subprocess.Popen(
        [sys.executable, "-m", "study.load_generator", str(port)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, load_cores()),
    )
    try:
        yield Load(process)
    finally:
        end_group(process)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
