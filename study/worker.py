"""
The process of one model: ``python -m study.worker MODULE PORT UPSTREAM_PORT [SECONDS]``.

It needs the standard library alone, unless the model needs more: any interpreter can run it.
"""

from __future__ import annotations

import resource
import sys
from importlib import import_module

from .computing import compute
from .models.listening import Serve

LOOPBACK = "127.0.0.1"
MOST_DESCRIPTORS = 20_000
"""The soft limit on open files, if the hard limit allows: the bound on connections."""


def raise_limit() -> int:
    """Raise the soft limit on open files, at most to `MOST_DESCRIPTORS`; return the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft > most:
        return most
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def main(module: str, port: str, upstream: str, *hooked: str) -> None:
    """Serve on 127.0.0.1 until SIGQUIT; with SECONDS, the hook computes for so long."""
    raise_limit()
    seconds = float(hooked[0]) if hooked else 0.0

    def hook(host: str) -> None:
        compute(host, seconds)

    serve: Serve = import_module(f"study.models.{module}").serve
    serve((LOOPBACK, int(port)), (LOOPBACK, int(upstream)), hook if hooked else None)


if __name__ == "__main__":
    main(*sys.argv[1:])
