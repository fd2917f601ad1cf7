"""
Where the admin interface is and which token it wants: from options and the environment.
"""

from __future__ import annotations

import argparse
import os

from evproxy.cli.ctl.client import AdminClient, Failed, Place, WrongPlace, token_in

DEFAULT_PLACE = "127.0.0.1:8081"
PLACE_VARIABLE = "EVPROXY_ADMIN"
TOKEN_VARIABLE = "EVPROXY_ADMIN_TOKEN_FILE"


def client_of(options: argparse.Namespace) -> AdminClient:
    """
    Return the client that `options` describe.

    :raises Failed: if the token cannot be read.
    """
    path = options.token_file or os.environ.get(TOKEN_VARIABLE, "")
    try:
        token = token_in(path) if path else ""
    except OSError as error:
        raise Failed(f"--token-file: {path!r} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise Failed(f"--token-file: {path!r} cannot be used: {error}") from None
    given = options.admin or os.environ.get(PLACE_VARIABLE, "") or DEFAULT_PLACE
    try:
        place = Place.of(given)
    except WrongPlace as error:
        raise Failed(f"--admin: {given!r}: {error}") from None
    return AdminClient(place, token, options.patience)
