"""
How ``twistd evproxy`` starts its workers: how many, and the command of one.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

from twisted.application.reactors import getReactorTypes

from evproxy.cli import worker
from evproxy.config.rules import AUTO
from evproxy.settings import Settings
from evproxy.settings.proxy import MOST_WORKERS
from evproxy.workers.process import FIRST_INHERITED, Command

_OF_SUPERVISOR = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE")
"""The variables of systemd that only the supervisor uses (sd_notify(3))."""


def worker_count(settings: Settings) -> int:
    """How many workers `settings` ask for; ``auto``: the processors that this process may use."""
    if settings.workers == AUTO:
        return min(MOST_WORKERS, len(os.sched_getaffinity(0)))
    return int(settings.workers)


def worker_command(reactor: Any) -> Command:
    """
    The command of a worker, with the same Python, the same modules and the same kind of reactor.

    Call it before twistd changes to another process or directory.
    """
    paths = [os.path.abspath(path) for path in sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    for name in _OF_SUPERVISOR:
        environment.pop(name, None)
    # -P: the directory of the module `worker` is no place to import from.
    program = [sys.executable, "-P", worker.__file__, reactor_name(reactor)]
    return Command(program, environment, _inherited(environment))


def reactor_name(reactor: Any) -> str:
    """The name by which twistd knows the kind of `reactor`."""
    module = type(reactor).__module__
    kind: Any
    for kind in getReactorTypes():
        if kind.moduleName == module:
            name: str = kind.shortName
            return name
    return "default"


def _inherited(environment: MutableMapping[str, str]) -> list[int]:
    """
    The inodes of the sockets that systemd has handed over to this process (sd_listen_fds(3)).

    Passes them on in `environment`.
    """
    # Twisted has taken them if it has removed these two.
    taken = not {"LISTEN_PID", "LISTEN_FDS"} & environment.keys()
    names = environment.get("LISTEN_FDNAMES", "")
    if not names or not taken:
        for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
            environment.pop(name, None)
        return []
    count = names.count(":") + 1
    environment["LISTEN_FDS"] = str(count)
    return list(map(_socket_inode, range(FIRST_INHERITED, FIRST_INHERITED + count)))


def _socket_inode(descriptor: int) -> int:
    """The inode of a socket; 0: `descriptor` is none."""
    with suppress(OSError):
        found = os.fstat(descriptor)
        if stat.S_ISSOCK(found.st_mode):
            return found.st_ino
    return 0
