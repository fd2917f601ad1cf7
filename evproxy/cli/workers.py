"""
How ``twistd evproxy`` starts its workers: how many, and the command of one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from typing import Any

from twisted.application.reactors import getReactorTypes

from evproxy.cli import worker
from evproxy.config.rules import AUTO
from evproxy.settings import Settings
from evproxy.settings.proxy import MOST_WORKERS
from evproxy.workers.process import Command

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


def _inherited(environment: MutableMapping[str, str]) -> int:
    """
    How many sockets systemd has handed over to this process (sd_listen_fds(3)).

    Passes them on in `environment`.
    """
    # Twisted has taken them if it has removed these two.
    taken = not {"LISTEN_PID", "LISTEN_FDS"} & environment.keys()
    names = environment.get("LISTEN_FDNAMES", "")
    if not names or not taken:
        for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
            environment.pop(name, None)
        return 0
    count = names.count(":") + 1
    environment["LISTEN_FDS"] = str(count)
    return count
