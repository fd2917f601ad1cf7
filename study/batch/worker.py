"""
The process of one way: ``python -m study.batch.worker WAY KIND``, the names on standard input.

Prints what it took, as JSON.  WAY may also be ``client``: then it opens the connections one after
the other, and prints the memory for each of them.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import proc
from .ways import WAYS


class Peak(threading.Thread):
    """Looks at the threads and the memory of this process and its children, again and again."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._over = threading.Event()
        self.threads = 0
        self.pss = 0

    def run(self) -> None:
        while not self._over.wait(0.05):
            self.threads = max(self.threads, proc.threads(self._pid))
            self.pss = max(self.pss, proc.memory(self._pid).pss)

    def stop(self) -> None:
        """Stop looking."""
        self._over.set()
        self.join()


def clients(kind: str, names: Sequence[str]) -> dict[str, Any]:
    """RSS of this process with the connections open, less without, for each connection."""
    if kind == "sqlite":
        import sqlite3 as client
    else:
        import psycopg as client  # type: ignore[no-redef]
    first = client.connect(names[0])
    before = _rss()
    connections = [client.connect(name) for name in names]
    for connection in connections:
        connection.execute("SELECT sum(value) FROM records").fetchone()
    grown = _rss() - before
    for connection in (first, *connections):
        connection.close()
    return {"client": grown / len(names) / proc.KIB}


def _rss() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize()


def main(way: str, kind: str) -> None:
    """Do the job, and print what it took."""
    names = json.load(sys.stdin)
    if way == "client":
        print(json.dumps(clients(kind, names)))
        return
    if kind == "postgresql":
        # Imports are no part of the job.
        import psycopg  # noqa: F401

    if way == "loop":
        from twisted.internet import asyncioreactor, threads  # noqa: F401
    peak = Peak(os.getpid())
    before = proc.memory(os.getpid()).pss
    peak.start()
    began = time.monotonic()
    total = WAYS[way](kind, names)
    took = time.monotonic() - began
    peak.stop()
    used = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = sum(each.ru_utime + each.ru_stime for each in used)
    found = {
        "total": total,
        "time": took * 1000,
        "cpu": cpu * 1000,
        "threads": peak.threads - 1,  # without the one that looks
        "memory": (peak.pss - before) / proc.KIB,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
