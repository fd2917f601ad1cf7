"""
A process for each connection: ``fork`` after ``accept``, as inetd and the first web servers did.

Teaches: isolation.  A session that crashes or computes harms no other, every core is used, and the
kernel shares the processor fairly.  The code of a session is still a straight line.

Fails: each connection pays for a fork, and holds a whole process: page tables, a kernel stack, and
every page that it writes to, which an interpreter that counts references does all the time.
Nothing bounds the number of processes but the system itself.
"""

from __future__ import annotations

import contextlib
import os
import signal

from .blocking import clients_of, serve_client, stop_on_sigquit
from .listening import Address, Hook, listen


def serve(address: Address, upstream: Address, hook: Hook | None) -> None:
    """Fork for each client; after SIGQUIT, wait for the children."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel then reaps children itself
    with listen(address) as listener:
        stop_on_sigquit(listener)
        for client in clients_of(listener):
            if os.fork() == 0:
                listener.close()
                serve_client(client, upstream, hook)
                os._exit(0)
            client.close()
    with contextlib.suppress(ChildProcessError):
        os.wait()  # returns, with this error, when the last child has ended (wait(2))
