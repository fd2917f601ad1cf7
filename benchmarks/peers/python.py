"""The proxies in Python: evproxy with either relay, portforward, asyncio and uvloop."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ..processes import Command
from .contract import Forward, Starter

_HERE = Path(__file__).parent
_ROOT = _HERE.parent.parent
_TWISTD = (str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "--no_save")


def evproxy(relay: str) -> Starter:
    """evproxy from its command line; with several forwards, from evproxy.tac.

    The command line takes one list of upstreams for all its listeners, so two services
    in one process need an application file.
    """

    def command(forwards: Sequence[Forward], directory: Path) -> Command:
        environment = {"PYTHONPATH": str(_ROOT)}
        if len(forwards) > 1:
            environment["BENCHMARK_FORWARDS"] = " ".join(map(str, forwards))
            environment["BENCHMARK_RELAY"] = relay
            return Command([*_TWISTD, "-y", str(_HERE / "evproxy.tac")], environment)
        (forward,) = forwards
        options = [
            f"--listen=tcp:{forward.listen}:interface=127.0.0.1",
            f"--upstream=127.0.0.1:{forward.upstream}",
            f"--relay={relay}",
            "--access-log=off",
        ]
        return Command([*_TWISTD, "evproxy", *options], environment)

    return command


def evproxy_from(path: Path) -> Command:
    """evproxy from a configuration file."""
    options = [f"--config={path}", "--access-log=off"]
    return Command([*_TWISTD, "evproxy", *options], {"PYTHONPATH": str(_ROOT)})


def portforward(forwards: Sequence[Forward], directory: Path) -> Command:
    """Twisted's own port forwarder."""
    return Command([sys.executable, str(_HERE / "portforward.py"), *map(str, forwards)])


def asyncio_streams(loop: str) -> Starter:
    """A proxy on asyncio's streams, on the loop of that name."""

    def command(forwards: Sequence[Forward], directory: Path) -> Command:
        script = str(_HERE / "asyncio_streams.py")
        return Command([sys.executable, script, loop, *map(str, forwards)])

    return command
