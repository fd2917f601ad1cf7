"""One process of the benchmark: started on its cores, read, and ended by its own pid.

CPU time is user and system time of every thread of the process, from the kernel's
per-process CPU clock (clock_getcpuclockid(3)): what /proc/PID/stat has, but exact to
the nanosecond where that counts ticks of 10 ms. On loopback it holds the receiving
side's TCP work too, which the kernel does in the sender's system call.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from attrs import Factory, frozen

from .network import is_listening, wait_until

_CPUCLOCK_SCHED = 2  # include/linux/posix-timers.h: the whole process, scheduler precision


class StartError(Exception):
    """A process ended, or did not listen in time. The message has its last output."""


@frozen
class Cores:
    """The cores the proxy runs on, and the cores everything else runs on."""

    proxy: frozenset[int]
    load: frozenset[int]

    @classmethod
    def split(cls, available: set[int]) -> Cores:
        """The last core for the proxy and the others for the load; one core is shared."""
        last = max(available)
        return cls(frozenset({last}), frozenset(available - {last} or {last}))

    def busy_seconds(self) -> float:
        """How long the proxy's cores have not been idle, whoever used them (proc(5), stat)."""
        names = {f"cpu{core}" for core in self.proxy}
        ticks = 0
        for line in Path("/proc/stat").read_text().splitlines():
            name, *times = line.split()
            if name in names:
                user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, times[:8])
                ticks += user + nice + system + irq + softirq + steal
        return ticks / os.sysconf("SC_CLK_TCK")


@frozen
class Command:
    """How to start one program.

    Attributes:
        argv: the program and its arguments.
        environment: variables added to those of this process.
        has_worker: the work is done by the only child of the process that is started.
    """

    argv: Sequence[str]
    environment: Mapping[str, str] = Factory(dict)
    has_worker: bool = False


@frozen
class Running:
    """A process that runs: ``pid`` is the one that does the work."""

    pid: int

    def cpu_seconds(self) -> float:
        """User and system time used so far, in seconds."""
        return time.clock_gettime_ns((~self.pid << 3) | _CPUCLOCK_SCHED) / 1e9

    def pss_bytes(self) -> int:
        """Proportional set size of anonymous memory (proc(5), smaps_rollup), in bytes.

        File-backed pages are left out: no session has any, and their share changes with
        what other processes map and with what the kernel reclaims.
        """
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss_Anon:"):
                return int(line.split()[1]) * 1024
        raise ValueError("smaps_rollup has no Pss_Anon")

    def wait_quiet(self) -> None:
        """Wait until what was started has been done: under 1 % of a core for 0.1 s."""

        def quiet() -> bool:
            before = self.cpu_seconds()
            time.sleep(0.1)
            return self.cpu_seconds() - before < 0.001

        wait_until(quiet, "a process at rest")


@contextmanager
def spawned(
    command: Command, cores: frozenset[int], output: IO[bytes], *, background: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """A program on ``cores``, ended when the context is left.

    Args:
        command: what to start.
        cores: the only cores it may run on.
        output: where its standard output and standard error go.
        background: run it under SCHED_IDLE, so that the probe, which shares its core,
            never waits for it (sched(7)).
    """

    def place() -> None:
        os.sched_setaffinity(0, cores)
        if background:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

    process = subprocess.Popen(
        command.argv,
        env={**os.environ, **command.environment},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        preexec_fn=place,
    )
    try:
        yield process
    finally:
        _end(process)


@contextmanager
def server(
    command: Command,
    cores: frozenset[int],
    ports: Sequence[int],
    log: Path,
    *,
    background: bool = False,
) -> Iterator[Running]:
    """A program that listens on ``ports``, from when it does until the context is left.

    Raises:
        StartError: it ended or did not listen within 15 seconds.
    """
    with (
        log.open("wb") as output,
        spawned(command, cores, output, background=background) as process,
    ):

        def ready() -> bool:
            if process.poll() is not None:
                raise StartError(f"{command.argv[0]} ended: {_tail(log)}")
            return all(map(is_listening, ports))

        try:
            wait_until(ready, f"{command.argv[0]} listening")
            yield Running(_only_child(process.pid) if command.has_worker else process.pid)
        except TimeoutError as late:
            raise StartError(f"{late}: {_tail(log)}") from late


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-800:].strip()


def _only_child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    wait_until(lambda: bool(children.read_text().split()), "a worker process")
    (child,) = children.read_text().split()
    return int(child)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            continue
