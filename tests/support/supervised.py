"""
``twistd evproxy --workers``: the supervisor, its workers, and clients of them.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.support.twistd import PATIENCE, Running, wait_until

LONG = 90.0
"""The seconds after which a test kills the supervisor: several Pythons start one by one."""


def runs(pid: int) -> bool:
    """Whether the process `pid` exists, and is more than an entry for its parent to read."""
    with suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"
    return False


def children(pid: int) -> list[int]:
    """
    The processes that `pid` has started and that still run, each with a command line of its own.

    Before that, between vfork(2) and execve(2), `pid` waits for the process.
    """
    with suppress(OSError):
        of_parent = Path(f"/proc/{pid}/cmdline").read_bytes()
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [
            int(each)
            for each in text.split()
            if runs(int(each)) and Path(f"/proc/{each}/cmdline").read_bytes() != of_parent
        ]
    return []


class Supervised(Running):
    """
    A ``twistd evproxy`` with workers.

    :param arguments: those of ``twistd evproxy``, without ``--workers``.
    :param workers: how many there are; ``None``: two, as the configuration file says.
    """

    def __init__(self, *arguments: str, workers: int | None = 2, **options: Any) -> None:
        option = [] if workers is None else [f"--workers={workers}"]
        super().__init__("evproxy", *arguments, *option, **{"patience": LONG, **options})
        self._count = workers or 2
        self._known: set[int] = set()

    def serves(self) -> int:
        """Wait until all workers serve; return the TCP port, if there is one."""
        where = self.says(r"listens on ([^,]*), .* in \d+ workers")[1]
        return 0 if where.startswith("unix:") else int(where.rpartition(":")[2])

    def workers(self) -> list[int]:
        """Wait until there are all workers; return their process numbers, in their order."""
        wait_until(lambda: len(children(self.pid)) == self._count)
        found = sorted(children(self.pid))
        self._known.update(found)
        return found

    def everyone(self) -> list[int]:
        """The supervisor, and every worker that `workers` has returned."""
        return [self.pid, *self._known]

    def __exit__(self, *error: object) -> None:
        found = {*self._known, *children(self.pid)}
        # The supervisor first, so that it replaces no worker.
        for pid in (self.pid, *found):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        super().__exit__(*error)


def all_end(pids: Sequence[int]) -> None:
    """Wait until none of `pids` runs any more."""
    wait_until(lambda: not any(map(runs, pids)))


def connected(port: int) -> socket.socket:
    """Return a client that is connected to `port`."""
    return socket.create_connection(("127.0.0.1", port), PATIENCE)


def owners(clients: Sequence[socket.socket], pids: Sequence[int]) -> list[int]:
    """Return which of the processes `pids` has accepted each of `clients`."""
    found: dict[tuple[str, str], int] = {}
    ports = [(each.getpeername()[1], each.getsockname()[1]) for each in clients]
    wanted = [(f"0100007F:{server:04X}", f"0100007F:{client:04X}") for server, client in ports]

    def look() -> bool:
        holders = _holders(pids)
        # The kernel's table may miss a line while connections come and go.
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in holders:
                found[fields[1], fields[2]] = holders[fields[9]]
        return all(each in found for each in wanted)

    wait_until(look)
    return [found[each] for each in wanted]


def listens(pid: int, port: int) -> bool:
    """Whether the process `pid` still runs, and has a socket that listens at the TCP `port`."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {each[9] for each in lines if each[1] == f"0100007F:{port:04X}" and each[3] == "0A"}
    return not inodes.isdisjoint(_holders([pid])) if runs(pid) else False


def _holders(pids: Sequence[int]) -> dict[str, int]:
    """The process of each socket, by the inode of the socket."""
    holders: dict[str, int] = {}
    for pid in pids:
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                kind, _, inode = os.readlink(each).partition(":")
                if kind == "socket":
                    holders[inode.strip("[]")] = pid
    return holders
