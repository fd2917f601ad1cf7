"""
The command ``evproxy``: the tools around the proxy; the proxy itself is ``twistd evproxy``.

What only one command needs is imported by that command, so that the others start at once: a shell
that completes a command line runs this program at each press of a key.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from evproxy.cli import replay, toxiproxy
from evproxy.cli.ctl import command_line
from evproxy.cli.ctl.completion import complete
from evproxy.cli.top import command as top

UNREAD = 1
"""The exit status if the reader of standard output closed the pipe before the end."""

INTERRUPTED = 130
"""The exit status after Ctrl-C: that of a shell for a command that SIGINT has ended."""

GOOD = 0
"""The exit status of success."""

WRONG_COMMAND = 2
"""The exit status of argparse for a wrong command line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run one command.

    :param arguments: the arguments without the name of the program; ``None``: ``sys.argv``.
    :return: the exit status.
    """
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:
        # A shell asks how the command line may go on.
        complete(parser)
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return GOOD
    try:
        status = _run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe (`| head`).  Discard the rest of the buffer at the exit,
        # as the documentation of Python's `signal` recommends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def _run(options: argparse.Namespace) -> int:
    if options.command == "schema":
        from evproxy.config.schema import file_schema

        print(json.dumps(file_schema(), indent=2, ensure_ascii=False))
        return GOOD
    if options.command == "ctl":
        return command_line.run(options)
    if options.command == "top":
        return top.run(options, sys.stdin, sys.stdout, sys.stderr)
    if options.command == "toxiproxy":
        return toxiproxy.main(options)
    if options.command == "replay":
        return replay.main(options)
    return _check(options)


def _check(options: argparse.Namespace) -> int:
    from evproxy.cli.check import check_files, check_reload

    if options.against is None:
        return check_files(options.files, sys.stdout, sys.stderr)
    if len(options.files) > 1:
        print("evproxy check: --against: expected one FILE", file=sys.stderr)
        return WRONG_COMMAND
    return check_reload(options.against, options.files[0], sys.stdout, sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evproxy",
        description="Tools around evproxy, the TCP proxy that runs as: twistd -n evproxy",
    )
    parser.add_argument("--version", action="version", version=f"evproxy {version('evproxy')}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command")
    check = commands.add_parser(
        "check",
        help="report the problems of configuration files",
        description=(
            "Reads configuration files and runs nothing. Prints one line to standard error for"
            " each problem, with the path of its key, and exits with 1. If there is no problem,"
            " prints one line to standard output for each file, and exits with 0."
        ),
    )
    check.add_argument(
        "files", metavar="FILE", nargs="+", help="a configuration file, TOML in UTF-8"
    )
    check.add_argument(
        "--against",
        metavar="RUNNING",
        help="print what a reload from the configuration file RUNNING to FILE would change",
    )
    command_line.add_to(commands)
    top.add_to(commands)
    toxiproxy.add_to(commands)
    replay.add_to(commands)
    commands.add_parser(
        "schema",
        help="print a JSON Schema of the configuration file",
        description=(
            "Prints a JSON Schema (draft 2020-12) of the configuration file, so that an editor can"
            " complete and check the file."
        ),
    )
    return parser
