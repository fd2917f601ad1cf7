"""The processes of the study: models, the upstream server, the load; each is ended by its pid."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from benchmarks.network import is_listening, wait_until

from .catalogue import Model
from .worker import LOOPBACK

ROOT = Path(__file__).resolve().parents[1]
END_TIMEOUT = 10.0
PORTS = range(20_000, 32_768)
"""Ports for servers: below those that the kernel gives to connections (32768 and up)."""


class StartError(Exception):
    """A process ended, or did not listen in time; the message has its last lines."""


@frozen
class Server:
    """A process that listens on `port` of 127.0.0.1."""

    process: subprocess.Popen[bytes]
    port: int

    def quit(self) -> None:
        """Send SIGQUIT."""
        self.process.send_signal(signal.SIGQUIT)

    def wait(self, seconds: float = END_TIMEOUT) -> bool:
        """Whether the process ends within so many seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.process.poll() is not None


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens, at random: several studies may run at once.

    :raises StartError: if a thousand ports are taken.
    """
    for port in random.sample(PORTS, 1000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    raise StartError("no free port was found")


@contextmanager
def running_model(model: Model, upstream: int, *, computes: float = 0.0) -> Iterator[Server]:
    """A model in a process of its own; `computes`: seconds for which its hook computes; 0: none."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="study-") as directory:
        if model.command is None:
            command = [model.python, "-m", "study.worker", model.module, str(port), str(upstream)]
            command += [str(computes)] if computes else []
        else:
            command = list(model.command(port, upstream, Path(directory)))
        with serving(command, port) as server:
            yield server


@contextmanager
def running_upstream() -> Iterator[Server]:
    """The upstream server, on the cores of the load."""
    port = free_port()
    with serving(
        [sys.executable, "-m", "study.upstream_server", str(port)], port, load_cores()
    ) as server:
        yield server


@contextmanager
def serving(
    command: Sequence[str],
    port: int,
    cores: frozenset[int] | None = None,
    user: str | None = None,
) -> Iterator[Server]:
    """
    A program that listens on `port`, until the context is left; then its whole process group ends.

    :param cores: the only cores on which it may run; ``None``: all.
    :param user: the user who runs it; ``None``: the same.

    :raises StartError: if it does not listen within 15 seconds.
    """
    with tempfile.TemporaryDirectory(prefix="study-") as directory:
        log = Path(directory) / "output"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "TMPDIR": directory, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
                preexec_fn=None if cores is None else lambda: os.sched_setaffinity(0, cores),
            )
        try:

            def ready() -> bool:
                if process.poll() is not None:
                    raise StartError(f"{command[0]} ended: {_tail(log)}")
                return is_listening(port)

            try:
                wait_until(ready, f"{' '.join(command[:4])} listening")
            except TimeoutError as late:
                raise StartError(f"{late}: {_tail(log)}") from late
            yield Server(process, port)
        finally:
            end_group(process)


def end_group(process: subprocess.Popen[Any]) -> None:
    """End a process that leads a group, and every process of that group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(END_TIMEOUT)


def load_cores() -> frozenset[int]:
    """The cores of the load and the upstream server: the first half of those there are."""
    cores = sorted(os.sched_getaffinity(0))
    return frozenset(cores[: max(1, len(cores) // 2)])


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-800:].strip()
