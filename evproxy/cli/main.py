"""
The command ``evproxy``: tools around the proxy, which itself runs under ``twistd evproxy``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from evproxy.cli.check import check_files
from evproxy.config.schema import file_schema

UNREAD = 1
"""Exit status where nobody read what was said to the end."""

GOOD = 0
"""Exit status where nothing is wrong; a wrong command line exits with argparse's own, 2."""


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run one command.

    :param arguments: those of the shell, without the program's name; ``None``: this process's.
    :return: the exit status.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return GOOD
    try:
        status = _run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads has seen enough (`| head`).  What is left in the buffer goes nowhere at the
        # exit, as the documentation of Python's `signal` has it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    return status


def _run(options: argparse.Namespace) -> int:
    if options.command == "schema":
        print(json.dumps(file_schema(), indent=2, ensure_ascii=False))
        return GOOD
    return check_files(options.files, sys.stdout, sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evproxy",
        description="Tools around evproxy, the TCP proxy that runs as: twistd -n evproxy",
    )
    parser.add_argument("--version", action="version", version=f"evproxy {version('evproxy')}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command")
    check = commands.add_parser(
        "check",
        help="say what is wrong with configuration files",
        description=(
            "Reads configuration files and runs nothing. Prints one line on standard error for"
            " each problem, with the path of its key, and exits with 1; or one line a file on"
            " standard output if there is none, and exits with 0."
        ),
    )
    check.add_argument(
        "files", metavar="FILE", nargs="+", help="a configuration file, TOML in UTF-8"
    )
    commands.add_parser(
        "schema",
        help="print a JSON Schema of the configuration file",
        description=(
            "Prints a JSON Schema (draft 2020-12) of the configuration file, with which an editor"
            " completes and checks it."
        ),
    )
    return parser
