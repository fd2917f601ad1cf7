"""
The process of one worker of ``twistd evproxy --workers``: the supervisor starts it.

Its arguments are the name of the reactor and the descriptor of the channel to the supervisor.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

IGNORED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""The signals that concern the supervisor: a terminal, or systemd, sends them to workers too."""


def main(reactor_name: str, descriptor: str) -> None:
    """Run the worker until the supervisor has ended it, or has gone."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # The supervisor has handed over the sockets of systemd at the same numbers; Twisted looks for
    # them when `twisted.internet.endpoints` is imported.
    if "LISTEN_FDS" in os.environ:
        os.environ["LISTEN_PID"] = str(os.getpid())

    from twisted.application.reactors import installReactor

    installReactor(reactor_name)

    import socket

    from twisted.internet import reactor
    from twisted.logger import globalLogBeginner

    from evproxy.cli.process import raise_open_file_limit, settle
    from evproxy.workers.log_relay import EventSender
    from evproxy.workers.worker import Worker

    events = EventSender(reactor)
    globalLogBeginner.beginLoggingTo([events], redirectStandardIO=False)
    raise_open_file_limit()
    adopt: Any = reactor
    os.set_blocking(int(descriptor), False)
    adopt.adoptStreamConnection(int(descriptor), socket.AF_UNIX, Worker(reactor, events, settle))
    os.close(int(descriptor))
    adopt.run(installSignalHandlers=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
