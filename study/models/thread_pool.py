"""
A bounded pool of threads, each of which accepts and serves, as in Apache's worker MPM.

Teaches: a bound.  Memory is fixed from the start, no session pays for a new thread, and those who
find every thread busy wait in the kernel's queue.

Fails: Little's law (L = rate x time).  T threads carry at most T/S sessions a second of S seconds
each, however idle the processor is.  Clients that do nothing keep threads busy as well as clients
that work: T slow clients stop the service for everybody.
"""

from __future__ import annotations

import threading

from .blocking import clients_of, serve_client, stop_on_sigquit
from .listening import Address, Hook, listen

THREADS = 16


def serve(address: Address, upstream: Address, hook: Hook | None) -> None:
    """Serve with `THREADS` threads; after SIGQUIT, each serves its client to the end."""
    with listen(address) as listener:

        def work() -> None:
            for client in clients_of(listener):
                serve_client(client, upstream, hook)

        stop_on_sigquit(listener)
        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
