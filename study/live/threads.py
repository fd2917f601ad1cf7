"""What the threads of a process do right now, as the kernel says (proc(5), syscall)."""

from __future__ import annotations

import platform
from pathlib import Path

_CALLS = {
    "x86_64": {"288": "free", "43": "free", "202": "lock"},
    "aarch64": {"242": "free", "202": "free", "98": "lock"},
}
"""accept4 and accept: the thread is free.  futex: it waits for the interpreter lock, or a join."""

_LISTEN = "0A"


def states(pid: int) -> list[str]:
    """
    The state of each thread but the first, in a stable order.

    ``free``: it waits for a client.  ``client``: it waits for its client or its server.  ``lock``:
    it waits for a lock.  ``runs``: it uses the processor.
    """
    calls = _CALLS.get(platform.machine(), {})
    found = []
    for task in sorted(Path(f"/proc/{pid}/task").iterdir(), key=lambda each: int(each.name)):
        if int(task.name) == pid:
            continue
        try:
            call = task.joinpath("syscall").read_text().split()[0]
        except OSError:
            continue
        found.append("runs" if call == "running" else calls.get(call, "client"))
    return found


def queue(port: int) -> int:
    """Clients in the queue of the listener at `port`: connected, and not accepted yet."""
    ending = f":{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == _LISTEN and fields[1].endswith(ending):
            return int(fields[4].partition(":")[2], 16)
    return 0
