"""
The evproxy that the page shows: ``python -m study.live.watched PORT UPSTREAM_PORT``.

A `ProxyService` with a recorder under its loop.  A thread writes what happened, as lines of JSON on
standard output, so that there is news even while the loop is held.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import deque
from typing import Any

from .recording import Recorder

PERIOD = 0.05
"""Seconds between two lines."""

HELD = 0.02
"""Seconds from which on the watchdog reports a callback."""

MOST_REPORTS = 20


class Observer:
    """What evproxy tells its observers, as far as the page shows it."""

    def __init__(self) -> None:
        self.sessions = 0
        self.ended = 0
        self.reports: deque[dict[str, Any]] = deque(maxlen=MOST_REPORTS)

    def session_started(self, session: Any) -> None:
        self.sessions += 1

    def session_ended(self, record: Any) -> None:
        self.sessions -= 1
        self.ended += 1

    def loop_held(self, report: Any) -> None:
        self.reports.append({"text": report.text, "over": report.over})

    def loop_released(self, report: Any) -> None:
        self.loop_held(report)


def main(port: str, upstream: str) -> None:
    """Proxy until the process ends."""
    recorder = Recorder()
    recorder.install()
    # Only now may a reactor be made.
    from twisted.application.internet import StreamServerEndpointService
    from twisted.application.service import MultiService
    from twisted.internet import reactor as installed
    from twisted.internet.endpoints import TCP4ServerEndpoint

    from evproxy import Client, Pool, ProxyFactory, Watchdog

    from ..computing import LONG, compute
    from ..models.listening import BACKLOG
    from ..worker import LOOPBACK

    reactor: Any = installed
    observer = Observer()
    pool = Pool(reactor, [f"{LOOPBACK}:{upstream}"], name="study")

    def route(client: Client) -> Pool:
        compute(client.info.peer_host, LONG)
        return pool

    factory = ProxyFactory(route, reactor=reactor, observers=[observer])
    endpoint = TCP4ServerEndpoint(reactor, int(port), BACKLOG, LOOPBACK)
    services = MultiService()
    StreamServerEndpointService(endpoint, factory).setServiceParent(services)
    Watchdog(reactor, HELD, observer).setServiceParent(services)

    def tell() -> None:
        stop = threading.Event()
        while not stop.wait(PERIOD):
            reports = [observer.reports.popleft() for _ in range(len(observer.reports))]
            line = {
                **recorder.take(),
                "sessions": observer.sessions,
                "ended": observer.ended,
                "reports": reports,
            }
            print(json.dumps(line), flush=True)

    pool.start(services)
    services.startService()
    threading.Thread(target=tell, daemon=True).start()
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
