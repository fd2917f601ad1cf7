# Two pools, and a router that chooses one by the network of the client:
#
#     twistd -noy examples/route_by_network.py
#
# Clients connect to port 8080.  Those in INSIDE go to STAGING, all others to PUBLIC.  These three,
# and LISTEN, are variables of the environment.

from __future__ import annotations

import os
from ipaddress import ip_address, ip_network

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application, Service
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString

from evproxy import Client, Pool, ProxyFactory, SessionLog, TroubleLog


class ByNetwork(Service):
    """A `Router`, and the service that starts and stops its pools."""

    def __init__(self, network: str, inside: Pool, others: Pool) -> None:
        self._network = ip_network(network)
        self._inside = inside
        self._others = others

    def route(self, client: Client) -> Pool:
        inside = ip_address(client.info.peer_host) in self._network
        return self._inside if inside else self._others

    def startService(self) -> None:
        super().startService()
        for pool in (self._inside, self._others):
            pool.start(self)

    def stopService(self) -> None:
        super().stopService()
        for pool in (self._inside, self._others):
            pool.stop(self)


def pool(name: str, server: str) -> Pool:
    """The pool `name`; the environment may name another server than `server`."""
    return Pool(reactor, [os.environ.get(name, server)], name=name, observer=TroubleLog())


application = Application("route by network")
router = ByNetwork(
    os.environ.get("INSIDE", "10.0.0.0/8"),
    pool("STAGING", "127.0.0.1:8001"),
    pool("PUBLIC", "127.0.0.1:8000"),
)
router.setServiceParent(application)
factory = ProxyFactory(
    router, reactor=reactor, listener="web", observers=[SessionLog()], troubles=[TroubleLog()]
)
listen = os.environ.get("LISTEN", "tcp:8080:interface=127.0.0.1")
StreamServerEndpointService(serverFromString(reactor, listen), factory).setServiceParent(
    application
)
