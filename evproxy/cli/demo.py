"""
The upstream server of ``--demo``: one page, which says that it came through the proxy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.application.service import Service
from twisted.internet.interfaces import IListeningPort
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from evproxy.model import UpstreamServer
from evproxy.service.service import ProxyService

if TYPE_CHECKING:
    from evproxy.workers.supervisor import Supervisor

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>evproxy works</title>
<style>body {{ font: 1.1em/1.6 sans-serif; max-width: 38em; margin: 4em auto }}</style>
<h1>This page came through evproxy</h1>
<p>Your browser is connected to evproxy.  evproxy is connected, from
<code>{peer}</code>, to a small web server that it runs for this page, and moves
the bytes both ways.</p>
<p>Put it in front of a server of yours:</p>
<pre>twistd -n evproxy --listen=tcp:8080 --upstream=127.0.0.1:8000</pre>
</html>
"""


class DemoPage(Resource):
    """The page, for every path."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        peer = request.getClientAddress()
        request.setHeader(b"content-type", b"text/html; charset=utf-8")
        return _PAGE.format(peer=f"{peer.host}:{peer.port}").encode()


class DemoService(Service):
    """
    Serves `DemoPage` on a port of 127.0.0.1 that the kernel chooses.

    :param reactor: Twisted's.
    :param listening: called with the port as soon as the kernel has chosen it.
    """

    def __init__(self, reactor: Any, listening: Callable[[int], None]) -> None:
        self._reactor = reactor
        self._listening = listening
        self._port: IListeningPort | None = None

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        if self._port is not None:
            return
        site = Site(DemoPage(), reactor=self._reactor)
        site.noisy = False
        port = self._reactor.listenTCP(0, site, interface="127.0.0.1")
        self._port = port
        self._listening(port.getHost().port)

    def startService(self) -> None:
        super().startService()
        self.privilegedStartService()

    def stopService(self) -> Any:
        super().stopService()
        port, self._port = self._port, None
        return None if port is None else port.stopListening()


def demo_behind(reactor: Any, proxy: ProxyService | Supervisor) -> DemoService:
    """
    Return the demo, as the only server of `proxy`; it has to start before `proxy`.

    With workers, it is in the process of the supervisor.

    :param reactor: Twisted's.
    """

    def listening(port: int) -> None:
        server = UpstreamServer(f"127.0.0.1:{port}")
        if isinstance(proxy, ProxyService):
            proxy.pools["default"].add(server)
        else:
            [pool] = proxy.settings.pools
            # No worker has started yet; each begins with these settings.
            proxy.settings = evolve(proxy.settings, pools=(evolve(pool, upstreams=(server,)),))

    return DemoService(reactor, listening)
