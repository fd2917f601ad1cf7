"""twisted.protocols.portforward under the epoll reactor, with a backlog of 4096.

Usage: portforward.py LISTEN:UPSTREAM ...
"""

from __future__ import annotations

import sys

from twisted.internet import epollreactor

epollreactor.install()

from twisted.internet import reactor  # noqa: E402
from twisted.protocols.portforward import ProxyFactory  # noqa: E402

for forward in sys.argv[1:]:
    listen, upstream = map(int, forward.split(":"))
    factory = ProxyFactory("127.0.0.1", upstream)
    factory.noisy = False
    reactor.listenTCP(listen, factory, 4096, "127.0.0.1")  # type: ignore[arg-type]
reactor.run()
