"""
The arguments of ``evproxy top``, and its two ways to show a proxy: once, or live.
"""

from __future__ import annotations

import argparse
import importlib.util
from typing import Any, TextIO

from evproxy.admin.live.orders import MOST_SHOWN, SORTS
from evproxy.cli.ctl.client import AdminClient, Failed, Unreachable
from evproxy.cli.ctl.reaching import DEFAULT_PLACE, PLACE_VARIABLE, TOKEN_VARIABLE, client_of
from evproxy.escape import printable

REFUSED = 1
"""The exit status if the proxy refuses, or if something on this side is missing."""

UNREACHABLE = 3
"""The exit status if the admin interface cannot be reached, as of ``evproxy ctl``."""

PATIENCE = 10.0
"""Seconds that the first answer may take."""

PLAIN_WIDTH = 132
"""The characters of a line of ``--once``, where the output is no terminal."""


def add_to(subparsers: Any) -> None:
    """Add ``top`` to the commands of ``evproxy``."""
    top = subparsers.add_parser(
        "top",
        help="show a running proxy live in the terminal",
        description=(
            "Shows the servers and sessions of a running proxy in the terminal, live. Asks the"
            " admin interface of the proxy, and needs the extra top: pip install 'evproxy[top]'."
            " Exits with 1 if evproxy refuses, and with 3 if it cannot be reached."
        ),
    )
    top.add_argument(
        "--admin",
        metavar="PLACE",
        default="",
        help=f"where the admin interface is: HOST:PORT, a URL, or unix:PATH"
        f" (${PLACE_VARIABLE}; {DEFAULT_PLACE})",
    )
    top.add_argument(
        "--token-file",
        metavar="FILE",
        default="",
        help=f"a file with the token (${TOKEN_VARIABLE})",
    )
    top.add_argument("--once", action="store_true", help="print one look as plain text, and exit")
    top.add_argument(
        "--sort", choices=tuple(SORTS), default="rate", help="the order of sessions (rate)"
    )
    top.add_argument(
        "--filter",
        metavar="WORDS",
        default="",
        help="only servers and sessions with all of these words",
    )
    top.add_argument(
        "--limit",
        metavar="NUMBER",
        type=_limit,
        default=20,
        help=f"how many servers and sessions --once prints, at most {MOST_SHOWN} (20)",
    )
    top.set_defaults(patience=PATIENCE)


def _limit(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= MOST_SHOWN:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a number from 1 to {MOST_SHOWN}, got {text!r}")


def run(options: argparse.Namespace, keyboard: TextIO, out: TextIO, err: TextIO) -> int:
    """Run the command; return the exit status."""
    try:
        if importlib.util.find_spec("rich") is None:
            raise Failed("needs the library rich: pip install 'evproxy[top]'")
        client = client_of(options)
        with client.understanding():
            if options.once:
                _print_once(client, options, out)
            else:
                _show_live(client, options, keyboard, out)
    except (Failed, Unreachable) as error:
        print(f"evproxy top: {printable(str(error))}", file=err)
        return REFUSED if isinstance(error, Failed) else UNREACHABLE
    return 0


def _print_once(client: AdminClient, options: argparse.Namespace, out: TextIO) -> None:
    # rich is an extra.
    from rich.console import Console

    from evproxy.cli.top.screen import View, report

    view = View(options.sort, filter=options.filter)
    question = {"sort": options.sort, "filter": options.filter, "limit": options.limit}
    for name, value in client.watch(events=1, **question):
        if name == "history":
            view.samples = value["samples"]
        else:
            view.look = value
    if view.look is None:
        raise Unreachable("the stream has ended")
    console = Console(file=out, highlight=False, width=None if out.isatty() else PLAIN_WIDTH)
    console.print(report(view, console.width))


def _show_live(
    client: AdminClient, options: argparse.Namespace, keyboard: TextIO, out: TextIO
) -> None:
    if not (keyboard.isatty() and out.isatty()):
        raise Failed("input and output must be a terminal; --once prints plain text")
    from rich.console import Console

    from evproxy.cli.top.screen import View
    from evproxy.cli.top.terminal import Terminal

    view = View(options.sort, filter=options.filter)
    console = Console(file=out, highlight=False)
    Terminal(client, view, console, keyboard.fileno()).run()
