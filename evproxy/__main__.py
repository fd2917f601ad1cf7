"""
``python -m evproxy check FILE``: says what is wrong with a configuration file, and runs nothing.

The proxy itself runs under ``twistd evproxy``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from evproxy.config import ConfigErrors
from evproxy.config.problems import printable
from evproxy.reading import listen_fault, read_settings
from evproxy.settings import Settings

GOOD = 0
PROBLEMS = 1
"""Exit statuses; a wrong command line exits with argparse's own, 2."""


def main(arguments: Sequence[str]) -> int:
    """Run the command in `arguments` (without the program's name); gives the exit status."""
    options = _parser().parse_args(arguments)
    return check(options.file)


def check(path: str) -> int:
    """
    Tell everything that is wrong with the configuration file at `path`.

    One line for each problem on standard error, or one line on standard output if there
    is none.  Gives `PROBLEMS` or `GOOD`.
    """
    name = printable(path)
    try:
        settings = read_settings(path, _listen_fault)
    except ConfigErrors as errors:
        for problem in errors.problems:
            print(f"{name}: {problem}", file=sys.stderr)
        return PROBLEMS
    print(f"{name}: good: {_summary(settings)}")
    return GOOD


def _listen_fault(description: str) -> str | None:
    if description.startswith("systemd:"):
        return None  # its descriptors exist only when systemd starts the proxy
    return listen_fault(description)


def _summary(settings: Settings) -> str:
    servers = sum(len(pool.upstreams) for pool in settings.pools)
    discovered = sum(pool.discover is not None for pool in settings.pools)
    parts = [
        _count(len(settings.listeners), "listener"),
        _count(len(settings.pools), "pool"),
        _count(servers, "upstream server"),
    ]
    if discovered:
        parts.append(f"discovery for {_count(discovered, 'pool')}")
    return ", ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evproxy",
        description="Tools around evproxy, the TCP proxy that runs as: twistd -n evproxy",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "check",
        help="say what is wrong with a configuration file",
        description=(
            "Reads a configuration file and runs nothing. Prints one line on standard error for"
            " each problem, with the path of its key, and exits with 1; or one line on standard"
            " output if there is none, and exits with 0."
        ),
    )
    command.add_argument("file", metavar="FILE", help="the configuration file, TOML in UTF-8")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
