"""
The command line of ``evproxy ctl``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from evproxy.admin.conditions import CONDITIONS
from evproxy.admin.scopes import SCOPES
from evproxy.cli.ctl import commands, completion
from evproxy.cli.ctl.client import Failed, Unreachable
from evproxy.cli.ctl.completion import nothing, pools, server_names, session_ids
from evproxy.cli.ctl.reaching import (
    DEFAULT_PLACE,
    PLACE_VARIABLE,
    TOKEN_VARIABLE,
    client_of,
)
from evproxy.escape import printable
from evproxy.model import Phase
from evproxy.upstream.pool.status import STATES

UNREACHABLE = 3
"""The exit status if the admin interface cannot be reached; argparse exits with 2."""


def run(options: argparse.Namespace) -> int:
    """Run the command in `options`, and return the exit status; an error is one line."""
    if options.ctl_command == "completion":
        return completion.print_script(options.shell)
    try:
        client = client_of(options)
        with client.understanding():
            return int(options.run(client, options))
    except Failed as error:
        for problem in error.problems or (str(error),):
            _error(problem, commands.FAILED)
        return commands.FAILED
    except Unreachable as error:
        return _error(str(error), UNREACHABLE)


def _error(line: str, status: int) -> int:
    print(f"evproxy ctl: {printable(line)}", file=sys.stderr)
    return status


def add_to(subparsers: Any) -> None:
    """Add ``ctl`` to the commands of ``evproxy``."""
    ctl = subparsers.add_parser(
        "ctl",
        help="look at a running proxy, and change it",
        description=(
            "Asks the admin interface of a running proxy. Exits with 1 if evproxy refuses the"
            " request or a condition is not met in time, and with 3 if it cannot be reached. A"
            " server is POOL/SERVER, such as default/127.0.0.1:8000."
        ),
    )
    _completed(
        ctl.add_argument(
            "--admin",
            metavar="PLACE",
            default="",
            help=f"where the admin interface is: HOST:PORT, a URL, or unix:PATH"
            f" (${PLACE_VARIABLE}; {DEFAULT_PLACE})",
        ),
        nothing,
    )
    ctl.add_argument(
        "--token-file",
        metavar="FILE",
        default="",
        help=f"a file with the token for changes (${TOKEN_VARIABLE})",
    )
    ctl.add_argument(
        "--patience",
        metavar="SECONDS",
        type=_seconds,
        default=10.0,
        help="how long an answer may take (10)",
    )
    ctl.add_argument("--json", action="store_true", help="print JSON, for scripts")
    found = ctl.add_subparsers(metavar="COMMAND", dest="ctl_command", required=True)
    _add_looks(found)
    _add_changes(found)
    wait = _command(found, "wait", commands.wait, "wait for a condition")
    wait.add_argument("condition", choices=CONDITIONS, metavar="CONDITION", help=_one(CONDITIONS))
    _server(wait, nargs="?")
    wait.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, default=30.0, help="how long to wait (30)"
    )
    shell = found.add_parser(
        "completion",
        help="print the completion of evproxy for a shell",
        description='Prints a script; for bash: eval "$(evproxy ctl completion bash)".',
    )
    shell.add_argument("shell", choices=completion.SHELLS, metavar="SHELL", help="bash or zsh")


def _add_looks(found: Any) -> None:
    _command(found, "status", commands.status, "show the state of the proxy")
    sessions = _command(found, "sessions", commands.sessions, "list sessions, the oldest first")
    sessions.add_argument("--listener", default="", metavar="NAME", help="only of this listener")
    _completed(
        sessions.add_argument("--pool", default="", metavar="NAME", help="only of this pool"), pools
    )
    _completed(
        sessions.add_argument(
            "--server", default="", metavar="POOL/SERVER", help="only of this server"
        ),
        server_names,
    )
    sessions.add_argument("--peer", default="", metavar="HOST", help="only of this client")
    phases = [phase.value for phase in Phase]
    sessions.add_argument(
        "--phase", default="", choices=phases, metavar="PHASE", help=f"only in it: {_one(phases)}"
    )
    sessions.add_argument(
        "--longer-than",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="only those that have run for so long",
    )
    _limit(sessions)
    session = _command(found, "session", commands.session, "show one session")
    _id(session)
    servers = _command(found, "servers", commands.servers, "list upstream servers")
    _completed(
        servers.add_argument("--pool", default="", metavar="NAME", help="only of this pool"), pools
    )
    servers.add_argument(
        "--state", default="", choices=STATES, metavar="STATE", help=f"only in it: {_one(STATES)}"
    )
    _limit(servers)
    _server(_command(found, "server", commands.server, "show one upstream server"))
    _command(found, "settings", commands.settings, "show the settings in force")
    metrics = _command(found, "metrics", commands.metrics, "print the metrics")
    metrics.add_argument(
        "--scope",
        action="append",
        default=[],
        choices=SCOPES,
        metavar="SCOPE",
        help=f"only this part, repeatable: {_one(SCOPES)}",
    )


def _add_changes(found: Any) -> None:
    add = _command(found, "add", commands.add, "add an upstream server to a pool")
    add.add_argument("server", metavar="POOL/SERVER", help="such as web/10.0.0.3:80")
    add.add_argument("--weight", type=int, default=1, metavar="NUMBER", help="its share (1)")
    add.add_argument("--backup", action="store_true", help="only while no other is usable")
    add.add_argument(
        "--max-sessions", type=int, default=0, metavar="NUMBER", help="the most sessions (0: all)"
    )
    add.add_argument("--priority", type=int, default=0, metavar="NUMBER", help="its tier (0)")
    add.add_argument("--tag", action="append", default=[], metavar="TAG", help="a tag, repeatable")
    for verb, run_it, what in (
        ("remove", commands.remove, "remove a server; its sessions go on"),
        ("drain", commands.drain, "give a server no new sessions until it is resumed"),
        ("resume", commands.resume, "give a server new sessions again"),
    ):
        _server(_command(found, verb, run_it, what))
    weigh = _command(found, "weigh", commands.weigh, "give a server another weight")
    _server(weigh)
    weigh.add_argument("weight", metavar="WEIGHT", type=int, help="from 0 (no new sessions) to 256")
    _id(_command(found, "end", commands.end, "reset both sides of one session"))
    end_all = _command(found, "end-all", commands.end_all, "reset the sessions of a server")
    _server(end_all)
    end_all.add_argument(
        "--over", type=_seconds, default=0.0, metavar="SECONDS", help="evenly within (0: at once)"
    )
    _command(found, "reload", commands.reload, "read the configuration file again, and use it")
    drain_all = _command(
        found, "drain-all", commands.drain_all, "accept nothing new; the process does not end"
    )
    until = drain_all.add_mutually_exclusive_group()
    until.add_argument(
        "--deadline",
        type=_seconds,
        metavar="SECONDS",
        help="when the remaining sessions are reset (the drain timeout)",
    )
    until.add_argument("--forever", action="store_true", help="reset no session")


def _command(found: Any, name: str, run_it: commands.Run, what: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = found.add_parser(
        name, help=what, description=f"{what[0].upper()}{what[1:]}."
    )
    parser.set_defaults(run=run_it)
    return parser


def _server(parser: argparse.ArgumentParser, **more: Any) -> None:
    argument = parser.add_argument(
        "server", metavar="POOL/SERVER", help="such as web/10.0.0.1:80", default="", **more
    )
    _completed(argument, server_names)


def _id(parser: argparse.ArgumentParser) -> None:
    _completed(parser.add_argument("id", metavar="ID", type=int, help="its number"), session_ids)


def _limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit", type=_count, default=0, metavar="NUMBER", help="show at most so many (0: all)"
    )


def _completed(argument: Any, completer: Callable[..., list[str]]) -> None:
    argument.completer = completer


def _one(words: Any) -> str:
    return ", ".join(words)


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


_count.__name__ = "whole number from 0 on"


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 31536000:
        raise ValueError
    return number


_seconds.__name__ = "number of seconds"
