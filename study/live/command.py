"""The command ``python -m study live``."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from ..processes import StartError
from ..worker import LOOPBACK
from .page import Viewers, site
from .stage import staged

LOOK = 0.1
"""Seconds between two looks at the threads of the pool."""


def main(argv: Sequence[str]) -> int:
    """Serve the page until Ctrl-C; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m study live",
        description="Watch the event loop of a real evproxy turn, in a browser.",
    )
    parser.add_argument(
        "--port", type=int, default=0, help="of 127.0.0.1 (default: the kernel chooses one)"
    )
    asked = parser.parse_args(argv)
    from twisted.internet import reactor as installed

    reactor: Any = installed
    viewers = Viewers(reactor)
    try:
        listener = socket.create_server((LOOPBACK, asked.port))
    except OSError as error:
        # Python adds the address to the text.
        said = os.strerror(error.errno or 0)
        print(f"python -m study live: --port: {said}", file=sys.stderr)
        return 1
    except OverflowError:
        print(f"python -m study live: --port: there is no port {asked.port}", file=sys.stderr)
        return 1
    try:
        return _serve(reactor, listener, viewers)
    except (StartError, TimeoutError, StageError) as error:
        print(f"python -m study live: {error}", file=sys.stderr)
        return 1


class StageError(Exception):
    """What the page shows is gone."""


def _serve(reactor: Any, listener: socket.socket, viewers: Viewers) -> int:
    gone: list[Failure] = []

    def end(failure: Failure) -> None:
        gone.append(failure)
        reactor.stop()

    with listener, staged(viewers.tell) as stage:
        listener.setblocking(False)
        reactor.adoptStreamPort(listener.fileno(), socket.AF_INET, site(stage, viewers))
        print(f"http://{LOOPBACK}:{listener.getsockname()[1]}/ (Ctrl-C ends it)", flush=True)
        look = LoopingCall(stage.look)
        look.clock = reactor
        look.start(LOOK, now=False).addErrback(end)
        reactor.addSystemEventTrigger("before", "shutdown", viewers.close)
        reactor.run()
    if gone:
        raise StageError(f"the threads of the pool: {gone[0].getErrorMessage()}")
    return 0
