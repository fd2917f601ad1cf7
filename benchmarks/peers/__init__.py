"""The proxies that are compared, and how each is started as one single-threaded process.

Every peer takes the same forwards (a port it listens on, a port it connects to), keeps
no log (``evproxy-logged`` is the exception), has a listen backlog of 4096 and timeouts
that no measure reaches.
"""

from __future__ import annotations

from . import native, python
from .contract import Forward, Peer

__all__ = ["ALL", "OPERATED", "Forward", "Peer"]

_TUNED_FOR = frozenset({"bulk-1", "bulk-4", "bulk-both", "mixed"})
"""What the peers that are tuned for bulk are measured in."""

_MAIN = _TUNED_FOR | {"requests-1", "requests-50", "requests-500", "connections", "memory"}
"""What asyncio's streams are measured in: in the others its protocols stand for them."""

_FLOOR = frozenset({"requests-1", "requests-50", "connections"})
"""What the bare loop is measured in: where each send is whole."""

OPERATED = frozenset({"bulk-1", "requests-1", "requests-50", "connections"})
"""What evproxy is measured in with its admin interface, to compare with evproxy without."""

ALL: tuple[Peer, ...] = (
    Peer("evproxy", "evproxy, relay=auto", python.evproxy("auto")),
    Peer("evproxy-stream", "evproxy, relay=stream", python.evproxy("stream")),
    Peer(
        "evproxy-logged",
        "evproxy, relay=auto, its access log in a file",
        python.evproxy("auto", logged=True),
        frozenset({"connections"}),
    ),
    Peer(
        "evproxy-admin",
        "evproxy, relay=auto, with its admin interface",
        python.evproxy("auto", admin=True),
        OPERATED,
    ),
    Peer("haproxy", "HAProxy, option splice-auto", native.haproxy(native.SPLICE_AUTO)),
    Peer(
        "haproxy-64k",
        "HAProxy, option splice-auto, buffers of 64 KiB",
        native.haproxy(native.BUFFERS_64K),
        _TUNED_FOR,
    ),
    Peer(
        "haproxy-splice",
        "HAProxy, always splicing",
        native.haproxy(native.SPLICE_ALWAYS),
        _TUNED_FOR,
    ),
    Peer("nginx", "nginx stream, one worker", native.nginx_stream("16k")),
    Peer("nginx-64k", "nginx stream, buffers of 64 KiB", native.nginx_stream("64k"), _TUNED_FOR),
    Peer("portforward", "twisted.protocols.portforward, epoll reactor", python.portforward),
    Peer("asyncio", "asyncio streams", python.asyncio_streams("asyncio"), _MAIN),
    Peer("uvloop", "asyncio streams on uvloop", python.asyncio_streams("uvloop"), _MAIN),
    Peer("uvloop-protocol", "asyncio protocols on uvloop", python.asyncio_protocol),
    Peer("bare-loop", "the system calls alone, in a Python loop", python.bare_loop, _FLOOR),
)
