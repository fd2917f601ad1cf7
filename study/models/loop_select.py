"""
An event loop on ``select``: one thread waits for all sockets at once, and runs a callback for each.

Teaches: the idea.  A connection is no longer a thread that waits, but two descriptors in a list
and a few bytes of state.

Fails: the kernel looks at the whole list for each call, and the loop builds that list each time, so
an idle connection costs time in every turn.  Descriptors stop at 1,023 (FD_SETSIZE): this loop
refuses clients beyond.  As in every loop, a callback that takes long delays everybody.
"""

from __future__ import annotations

import select
from typing import Any

from .callbacks import Side, do_accept, errorcb, readcb, writecb
from .listening import Address, Hook, listen
from .wake_up import woken_by_sigquit

MOST = 1000


def serve(address: Address, upstream: Address, hook: Hook | None) -> None:
    """Turn the loop until SIGQUIT (``quit_cb``), which cuts every session off."""
    sides: dict[int, Side] = {}
    with listen(address) as listener, woken_by_sigquit() as quit_cb:
        listener.setblocking(False)
        while True:
            reads = [number for number, side in sides.items() if side.wants()[0]]
            writes = [number for number, side in sides.items() if side.wants()[1]]
            waits: list[Any] = [listener, quit_cb, *reads]
            readable, writable, _ = select.select(waits, writes, [])
            if quit_cb in readable:
                return
            if listener in readable and (client := do_accept(listener, upstream, hook)):
                if max(client.sock.fileno(), client.other.sock.fileno()) > MOST:
                    errorcb(client)
                else:
                    for new in (client, client.other):
                        sides[new.sock.fileno()] = new
            for callback, numbers in ((readcb, readable), (writecb, writable)):
                for number in numbers:
                    if not isinstance(number, int) or (side := sides.get(number)) is None:
                        continue
                    pair = (number, side.other.sock.fileno())
                    try:
                        callback(side)
                        over = side.shut and side.other.shut
                    except BlockingIOError:
                        continue
                    except OSError:
                        over = True
                    if over:
                        errorcb(side)
                        for closed in pair:
                            del sides[closed]
