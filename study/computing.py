"""The hook of the study: code of a user that computes, for clients from one address."""

from __future__ import annotations

import time
from typing import Any

COMPUTING_HOST = "127.0.0.66"
"""Clients from this address make the hook compute; from any other, the hook returns at once."""

SECONDS = 0.05
"""Processor time of one call in the scenarios."""

LONG = 0.4
"""Processor time of one call on the live page, where a reader must see it."""

HOOK_ROUTE = "study.computing:route"
"""The hook as the route of a listener of evproxy."""


def compute(host: str, seconds: float = SECONDS) -> None:
    """Use so many seconds of processor time for a client from `COMPUTING_HOST`."""
    if host == COMPUTING_HOST:
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass


def route(client: Any) -> str:
    """A router of evproxy that calls the hook; `client` is an `evproxy.Client`."""
    compute(client.info.peer_host)
    return "study"
