"""
A discovery of your own: every UNIX socket in a directory is a server.

    python examples/own_discovery.py /run/workers tcp:8080

A worker that listens on ``/run/workers/NAME.sock`` gets sessions.  If you remove the socket, the
worker keeps its sessions and gets no new ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, react
from twisted.logger import globalLogBeginner, textFileLogObserver

from evproxy import Pool, ProxyService, UpstreamServer


class Directory:
    """An `evproxy.Discovery`."""

    def __init__(self, reactor: Any, path: str, interval: float = 1.0) -> None:
        self._path = Path(path)
        self._interval = interval
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def start(
        self,
        changed: Callable[[Sequence[UpstreamServer]], None],
        failed: Callable[[str], None],
    ) -> None:
        """Call `changed` with each new complete set, or `failed` with a reason."""
        self._changed, self._failed = changed, failed
        self._looking.start(self._interval)

    def stop(self) -> None:
        """Leave no delayed call behind."""
        self._looking.stop()

    def _look(self) -> None:
        try:
            sockets = sorted(path for path in self._path.iterdir() if path.suffix == ".sock")
        except OSError as error:
            self._failed(f"{self._path}: {error.strerror}")
        else:
            self._changed([UpstreamServer(f"unix:{path}") for path in sockets])


def main(reactor: Any, directory: str, listen: str) -> Deferred[None]:
    proxy = ProxyService(
        reactor, [listen], pool=Pool(reactor, discover=Directory(reactor, directory))
    )
    proxy.startService()
    reactor.addSystemEventTrigger("before", "shutdown", proxy.stopService)
    return Deferred()


if __name__ == "__main__":
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    react(main, sys.argv[1:])
