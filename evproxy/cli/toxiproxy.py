"""
The command ``evproxy toxiproxy``: Toxiproxy's API in a process of its own.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, TextIO

from evproxy.config.rules import HIGHEST_PORT

CANNOT_LISTEN = 1
"""The exit status if the API cannot listen, or if the file with proxies cannot be used."""


def add_to(subparsers: Any) -> None:
    """Add ``toxiproxy`` to the commands of ``evproxy``."""
    toxiproxy = subparsers.add_parser(
        "toxiproxy",
        help="serve Toxiproxy's HTTP API",
        description=(
            "Serves the HTTP API of Toxiproxy, so that its clients make proxies with toxics. Runs"
            " until SIGTERM or SIGINT. Exits with 1 if it cannot listen."
        ),
    )
    toxiproxy.add_argument(
        "--host", default="127.0.0.1", help="the IP address to listen on (127.0.0.1)"
    )
    toxiproxy.add_argument(
        "--port", type=_port, default=8474, help="the port to listen on (8474); 0: any free one"
    )
    toxiproxy.add_argument(
        "--config", metavar="FILE", help="make the proxies of this JSON file first, as /populate"
    )
    toxiproxy.add_argument(
        "--seed", type=int, default=None, help="the seed of the toxics (a new one)"
    )


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to {HIGHEST_PORT}, got {text!r}")
    return int(text)


def run(options: argparse.Namespace, output: TextIO, errors: TextIO) -> int:
    """
    Serve until a signal comes.

    :return: the exit status.
    """
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred
    from twisted.internet.error import CannotListenError
    from twisted.logger import globalLogBeginner, textFileLogObserver

    from evproxy.service.listener import cannot_listen
    from evproxy.toxiproxy.service import MOST_BODY, ToxiproxyService

    given: Any = reactor
    content = b""
    if options.config is not None:
        try:
            with open(options.config, "rb") as file:
                content = file.read(MOST_BODY + 1)
        except OSError as error:
            print(f"evproxy toxiproxy: {options.config}: {error.strerror}", file=errors)
            return CANNOT_LISTEN
        if len(content) > MOST_BODY:
            why = f"it has more than {MOST_BODY} bytes"
            print(f"evproxy toxiproxy: {options.config}: {why}", file=errors)
            return CANNOT_LISTEN
    globalLogBeginner.beginLoggingTo([textFileLogObserver(errors)], redirectStandardIO=False)
    service = ToxiproxyService(given, options.host, options.port, seed=options.seed)
    status = [0]

    async def start() -> None:
        why = await service.populate(content)
        if why:
            why = f"{options.config}: {why}"
        else:
            try:
                service.startService()
            except CannotListenError as error:
                why = str(cannot_listen(error))
        if why:
            print(f"evproxy toxiproxy: {why}", file=errors)
            status[0] = CANNOT_LISTEN
            given.stop()
            return
        print(f"Toxiproxy's API listens on {service.address}", file=output, flush=True)

    given.callWhenRunning(lambda: Deferred.fromCoroutine(start()))
    given.addSystemEventTrigger("before", "shutdown", service.stopService)
    given.run()
    return status[0]


def main(options: argparse.Namespace) -> int:
    """Run the command on the standard streams."""
    return run(options, sys.stdout, sys.stderr)
