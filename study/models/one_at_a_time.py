"""
One connection at a time: accept, serve to the end, accept the next.

Teaches: what every other model has to improve on.  The code is a straight line, needs no lock,
and costs no memory for those who wait: the kernel's queue holds them.

Fails: one client that does nothing keeps everybody out.  If a session takes S seconds, at most
1/S sessions a second are possible, however idle the processor is.
"""

from __future__ import annotations

from .blocking import clients_of, serve_client, stop_on_sigquit
from .listening import Address, Hook, listen


def serve(address: Address, upstream: Address, hook: Hook | None) -> None:
    """Serve one client after the other; after SIGQUIT, the one that is served is the last."""
    with listen(address) as listener:
        stop_on_sigquit(listener)
        for client in clients_of(listener):
            serve_client(client, upstream, hook)
