"""
Completion in bash and zsh: argcomplete knows the shells, and the running proxy the names.
"""

from __future__ import annotations

import sys
from argparse import Namespace
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
    found = _asked(parsed_args, "servers", "servers", "offset")
    return [f"{each['pool']}/{each['name']}" for each in found]


def pools(parsed_args: Namespace, **_: Any) -> list[str]:
    """The pools of the running proxy."""
    client = _client(parsed_args)
    try:
        return [] if client is None else [each["name"] for each in client.get("status")["pools"]]
    except (Failed, Unreachable):
        return []


def session_ids(parsed_args: Namespace, **_: Any) -> list[str]:
    """The numbers of the oldest sessions of the running proxy."""
    return [str(each["id"]) for each in _asked(parsed_args, "sessions", "sessions", "after")]


def _asked(parsed_args: Namespace, part: str, key: str, cursor: str) -> list[Any]:
    client = _client(parsed_args)
    try:
        return [] if client is None else list(client.pages(part, key, cursor, MOST))
    except (Failed, Unreachable):
        return []


def _client(parsed_args: Namespace) -> AdminClient | None:
    options = Namespace(admin=getattr(parsed_args, "admin", ""), token_file="", patience=PATIENCE)
    try:
        return client_of(options)
    except Failed:
        return None
