"""
An event loop on ``epoll``: the kernel keeps the list, and reports only the sockets that are ready.

Teaches: what a turn costs depends on the connections that do something, not on those that wait.
An idle connection is two descriptors and two small objects.

Fails: one callback that computes, sleeps or reads a disk delays every connection for as long,
and one thread uses one core.  The order of the code is no longer the order of events.  SIGQUIT
ends the loop, and cuts every session off.
"""

from __future__ import annotations

import select

from .callbacks import Side, do_accept, errorcb, readcb, writecb
from .listening import Address, Hook, listen
from .wake_up import woken_by_sigquit


def serve(address: Address, upstream: Address, hook: Hook | None, shared: bool = False) -> None:
    """Turn the loop until SIGQUIT (``quit_cb``); `shared`: the port is shared with processes."""
    sides, epoll = dict[int, Side](), select.epoll()

    def watch(side: Side) -> None:
        reads, writes = side.wants()
        mask = reads * select.EPOLLIN | writes * select.EPOLLOUT
        epoll.modify(side.sock, mask or select.EPOLLET)  # else a hang-up would spin the loop

    with listen(address, shared=shared) as listener, woken_by_sigquit() as quit_cb, epoll:
        listener.setblocking(False)
        for watched in (listener, quit_cb):
            epoll.register(watched, select.EPOLLIN)
        while True:
            for number, event in epoll.poll():
                if number == quit_cb.fileno():
                    return
                if number == listener.fileno():
                    if client := do_accept(listener, upstream, hook):
                        for new in (client, client.other):
                            sides[new.sock.fileno()] = new
                            epoll.register(new.sock, 0)
                            watch(new)
                elif side := sides.get(number):
                    pair = (number, side.other.sock.fileno())
                    try:
                        (writecb if event & select.EPOLLOUT else readcb)(side)
                        over = side.shut and side.other.shut
                    except BlockingIOError:
                        continue
                    except OSError:
                        over = True
                    if over:
                        errorcb(side)
                        for closed in pair:
                            del sides[closed]
                    else:
                        watch(side)
                        watch(side.other)
