"""
evproxy, as ``twistd evproxy`` runs it: Twisted decides, and an epoll loop of its own moves bytes.

Teaches: what is left of the cost of an event loop in Python when each chunk is a few system calls,
and what a proxy adds for use: timeouts, limits, a drain.  It passes a reset on as a reset.  SIGQUIT
lets every session end.

Fails: as every loop, at one callback that computes; its watchdog then names the callback.  One
process uses one core, unless there are workers.  It is no answer to work that needs the processor.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from ..computing import HOOK_ROUTE
from .listening import Address, Hook

CONFIGURATION = """
access_log.path = "off"
[[listeners]]
listen = "tcp:{address[1]}:interface={address[0]}"
pool = "study"
{route}
[pools.study]
upstreams = ["{upstream[0]}:{upstream[1]}"]
"""


def serve(address: Address, upstream: Address, hook: Hook | None) -> None:
    """Become ``twistd -n evproxy``; a hook runs as the listener's route."""
    route = f'route = "{HOOK_ROUTE}"' if hook is not None else ""
    path = Path(tempfile.mkdtemp(prefix="evproxy-study-")) / "evproxy.toml"
    path.write_text(CONFIGURATION.format(address=address, upstream=upstream, route=route))
    twistd = "from twisted.scripts.twistd import run; run()"
    arguments = ["-n", "--pidfile=", "--no_save", f"--logfile={path.with_name('log')}"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", twistd, *arguments, "evproxy", f"--config={path}"]
    os.execve(sys.executable, command, environment)
