"""
What the settings say about who may change a proxy: the token, and where it is required.
"""

from __future__ import annotations

import re
from importlib.util import find_spec

from evproxy.config.addresses import is_remote_listener
from evproxy.engine.files import UnusableFile, read_whole
from evproxy.errors import SettingsError
from evproxy.settings import AdminSettings

TOKEN_FILE_LIMIT = 4096
"""The most bytes of a token file."""

_TOKEN = re.compile(rb"[!-~]{16,1024}")


def metrics_can_be_read() -> bool:
    """Whether the library that makes the text of metrics is installed."""
    return find_spec("prometheus_client") is not None


def token_of(settings: AdminSettings) -> bytes:
    """
    Return the token that a request needs to change the proxy; empty if it needs none.

    Reads the file: call it where nothing waits.

    :raises SettingsError: if the file cannot be used, or if there is none and other machines can
        connect.
    """
    path = settings.token_file
    if not path:
        if settings.listen and is_remote_listener(settings.listen):
            raise SettingsError(
                "admin.token_file: required, because not only this machine may be able to connect "
                f"to {settings.listen!r}"
            )
        return b""
    if not settings.listen:
        raise SettingsError("admin.token_file: has no effect without admin.listen")
    try:
        token = read_whole(path, TOKEN_FILE_LIMIT).data.strip()
    except OSError as error:
        raise SettingsError(
            f"admin.token_file: {path!r} cannot be read: {error.strerror}"
        ) from None
    except UnusableFile as error:
        raise SettingsError(f"admin.token_file: {path!r} cannot be read: {error}") from None
    if not _TOKEN.fullmatch(token):
        raise SettingsError(
            f"admin.token_file: {path!r} has no token: expected 16 to 1024 printable ASCII "
            "characters without spaces"
        )
    return token
