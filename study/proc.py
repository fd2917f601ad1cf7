"""
What the kernel says of processes and of the machine: proc(5), read from outside.

A process is measured together with its descendants, so that a process for each connection counts
like a thread for each connection.
"""

from __future__ import annotations

import contextlib
import time
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from benchmarks.processes import Running

KIB = 1024


@frozen
class Memory:
    """
    Bytes of memory.

    `pss`: proportional set size of all processes; anonymous memory only, because the share of files
    changes with what other processes map.  `stacks`: the part of it that is stacks of threads.
    `kernel`: page tables, and a stack in the kernel for each thread.  `sockets`: what the kernel's
    unreclaimable slabs hold on the whole machine; sockets are the part that grows, so only a
    difference means something.
    """

    pss: int
    stacks: int
    kernel: int
    sockets: int

    def minus(self, before: Memory) -> Memory:
        """The growth since `before`."""
        return Memory(
            self.pss - before.pss,
            self.stacks - before.stacks,
            self.kernel - before.kernel,
            self.sockets - before.sockets,
        )

    def each(self, count: int) -> dict[str, float]:
        """The parts in KiB for each of `count`; ``pss`` here is without stacks of threads."""
        return {
            "pss": (self.pss - self.stacks) / count / KIB,
            "stacks": self.stacks / count / KIB,
            "kernel": self.kernel / count / KIB,
            "sockets": self.sockets / count / KIB,
            "total": (self.pss + self.kernel) / count / KIB,
        }


def tree(pid: int) -> list[int]:
    """The process and its descendants that live."""
    found = [pid]
    for each in found:
        for task in _entries(Path(f"/proc/{each}/task")):
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def memory(pid: int) -> Memory:
    """The memory of the process and its descendants, and of the kernel."""
    machine = _meminfo()
    kernel_stack = machine["KernelStack"] // _tasks()
    pss = stacks = kernel = 0
    for each in tree(pid):
        pss += _kib(Path(f"/proc/{each}/smaps_rollup"), "Pss_Anon:")
        kernel += _kib(Path(f"/proc/{each}/status"), "VmPTE:")
        kernel += len(_entries(Path(f"/proc/{each}/task"))) * kernel_stack
        stacks += _stacks(each)
    return Memory(pss, stacks, kernel, machine["SUnreclaim"])


def cpu_seconds(pid: int) -> float:
    """User and system time of the process and of its descendants that live."""
    used = 0.0
    for each in tree(pid):
        with contextlib.suppress(OSError):
            used += Running(each).cpu_seconds()
    return used


def switches(pid: int) -> int:
    """Context switches, voluntary or not, of every thread that lives."""
    return sum(
        int(line.split()[1])
        for each in tree(pid)
        for task in _entries(Path(f"/proc/{each}/task"))
        for line in _lines(task / "status")
        if "ctxt_switches" in line
    )


def threads(pid: int) -> int:
    """How many threads there are."""
    return sum(len(_entries(Path(f"/proc/{each}/task"))) for each in tree(pid))


def descriptors(pid: int) -> int:
    """How many descriptors are open."""
    return sum(len(_entries(Path(f"/proc/{each}/fd"))) for each in tree(pid))


def settle(pid: int, seconds: float = 3.0) -> None:
    """Wait, at most so long, until the processes use under a fifth of a core for 0.1 s."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before = cpu_seconds(pid)
        time.sleep(0.1)
        if cpu_seconds(pid) - before < 0.02:
            return


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _kib(path: Path, name: str) -> int:
    for line in _lines(path):
        if line.startswith(name):
            return int(line.split()[1]) * KIB
    return 0


def _tasks() -> int:
    """All threads of the machine (proc(5), loadavg): each has a stack in the kernel."""
    return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])


def _meminfo() -> dict[str, int]:
    rows = (line.split() for line in _lines(Path("/proc/meminfo")))
    return {row[0].rstrip(":"): int(row[1]) * KIB for row in rows}


def _stacks(pid: int) -> int:
    """The PSS of the mappings that hold the stack pointers of threads other than the first."""
    pointers = sorted(_pointers(pid))
    if not pointers:
        return 0
    found = inside = 0
    for line in _lines(Path(f"/proc/{pid}/smaps")):
        word, _, rest = line.partition(" ")
        if word == "Pss:":
            found += inside * int(rest.split()[0]) * KIB
        elif not word.endswith(":"):
            first, last = (int(part, 16) for part in word.split("-"))
            inside = bisect_right(pointers, first) < bisect_right(pointers, last)
    return found


def _pointers(pid: int) -> Iterator[int]:
    for task in _entries(Path(f"/proc/{pid}/task")):
        if int(task.name) != pid:
            for line in _lines(task / "syscall"):
                fields = line.split()
                if len(fields) == 9:
                    yield int(fields[7], 16)
