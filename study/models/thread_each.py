"""
A thread for each connection: the model that most people write first.

Teaches: a thread is cheaper than a process, and the code of a session stays a straight line.
The 8 MiB of a stack are addresses, not memory: only the pages that a thread has touched count.

Fails: each connection holds a stack in the process and one in the kernel, and each event switches
threads.  In CPython one thread runs at a time, so a thread that computes makes the others wait
for the interpreter lock, 5 ms each time (``sys.getswitchinterval``); a free-threaded interpreter
has no such lock.  Nothing bounds the number of threads but the system itself.
"""

from __future__ import annotations

import threading

from .blocking import clients_of, serve_client, stop_on_sigquit
from .listening import Address, Hook, listen


def serve(address: Address, upstream: Address, hook: Hook | None) -> None:
    """Start a thread for each client; after SIGQUIT, the process ends with the last thread."""
    with listen(address) as listener:
        stop_on_sigquit(listener)
        for client in clients_of(listener):
            threading.Thread(target=serve_client, args=(client, upstream, hook)).start()
