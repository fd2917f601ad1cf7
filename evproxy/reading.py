"""
From the path of a configuration file to settings, or to everything that is wrong with it.

`evproxy.config` judges the text; here the file is read, once, and the endpoints in it are
looked at as closely as the proxy looks at them when it starts.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from evproxy import config
from evproxy.errors import SettingsError
from evproxy.service import server_endpoint
from evproxy.settings import Settings
from evproxy.upstream.connect import check_upstream


def upstream_fault(description: str) -> str | None:
    """Why no session can be connected to `description`, ``None`` if it may be possible."""
    return _fault(check_upstream, description)


def listen_fault(description: str) -> str | None:
    """Why `description` cannot be listened on, ``None`` if it may be possible."""
    return _fault(server_endpoint, description)


def read_settings(path: str, validate_listen: config.Validate = listen_fault) -> Settings:
    """
    The settings in the file at `path`.  Paths in it are relative to its directory.

    `validate_listen` looks closer at a listener's endpoint.

    :raises ConfigErrors: with every problem, if it cannot be read or is not right.
    """
    directory = os.path.dirname(os.path.abspath(path))
    return config.parse(_text(path), directory, upstream_fault, validate_listen)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except OSError as error:
        raise config.ConfigErrors([f"cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise config.ConfigErrors([f"not UTF-8 at byte {error.start + 1}"]) from None


def _fault(attempt: Callable[[Any, str], object], description: str) -> str | None:
    from twisted.internet import reactor

    try:
        attempt(reactor, description)
    except SettingsError as error:
        return str(error)
    return None
