"""
Completion in bash and zsh: argcomplete knows the shells, and the running proxy the names.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from evproxy.cli.ctl.client import AdminClient, Failed, Unreachable
from evproxy.cli.ctl.reaching import client_of

SHELLS = ("bash", "zsh")

PATIENCE = 1.0
"""Seconds that a proxy may take to answer while a user waits for a completion."""

MOST = 500
"""The most names that are offered."""


def print_script(shell: str) -> int:
    """Print the script that makes `shell` complete the command ``evproxy``."""
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError:
        print(
            "evproxy ctl: completion needs argcomplete: pip install 'evproxy[completion]'",
            file=sys.stderr,
        )
        return 1
    print(shellcode(["evproxy"], shell=shell))
    return 0


def complete(parser: Any) -> None:
    """Answer the question of a shell about `parser`, and end the process."""
    from argcomplete import autocomplete
    from argcomplete.completers import FilesCompleter

    autocomplete(parser, always_complete_options="long", default_completer=FilesCompleter())


def nothing(**_: Any) -> list[str]:
    """No completion: only the user knows."""
    return []


def server_names(parsed_args: Namespace, **_: Any) -> list[str]:
    """The servers of the running proxy, as POOL/SERVER; none if it cannot be asked."""

    def found(client: AdminClient) -> Iterator[str]:
        for each in client.pages("servers", "servers", "offset", MOST):
            yield f"{each['pool']}/{each['name']}"

    return _names(parsed_args, found)


def pools(parsed_args: Namespace, **_: Any) -> list[str]:
    """The pools of the running proxy."""

    def found(client: AdminClient) -> Iterator[str]:
        for each in client.get("status")["pools"]:
            yield each["name"]

    return _names(parsed_args, found)


def session_ids(parsed_args: Namespace, **_: Any) -> list[str]:
    """The numbers of the oldest sessions of the running proxy."""

    def found(client: AdminClient) -> Iterator[str]:
        for each in client.pages("sessions", "sessions", "after", MOST):
            yield str(each["id"])

    return _names(parsed_args, found)


def _names(parsed_args: Namespace, ask: Callable[[AdminClient], Iterable[str]]) -> list[str]:
    """What `ask` finds; nothing if the proxy cannot be asked, or if another program answers."""
    options = Namespace(admin=getattr(parsed_args, "admin", ""), token_file="", patience=PATIENCE)
    try:
        client = client_of(options)
        with client.understanding():
            return list(ask(client))
    except (Failed, Unreachable):
        return []
