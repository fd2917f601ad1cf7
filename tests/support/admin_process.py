"""The admin interface of a proxy in another process, asked with blocking calls."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from tests.support.twistd import PATIENCE, Running

ADMIN = "--admin=tcp:0:interface=127.0.0.1"
LISTEN = "--listen=tcp:0:interface=127.0.0.1"


def port_of(running: Running) -> int:
    """Wait until the admin interface listens on 127.0.0.1, and return its port."""
    return int(running.says(r"The admin interface listens on 127\.0\.0\.1:(\d+)")[1])


def ask(port: int, path: str, method: str = "GET") -> Any:
    """Return the JSON of an answer."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    with urllib.request.urlopen(request, timeout=PATIENCE) as found:
        return json.load(found)
