"""
Toxiproxy's API as a service of Twisted.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from evproxy.admin.site import AdminSite
from evproxy.config.canonical import host_and_port
from evproxy.toxiproxy.api import answer
from evproxy.toxiproxy.proxies import Proxies
from evproxy.toxiproxy.resource import ToxiproxyResource

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8474
"""Where Toxiproxy listens."""

MOST_BODY = 1024 * 1024
"""The most bytes of the body of a request: ``/populate`` describes up to `MOST_PROXIES` proxies."""

_log = Logger()


class ToxiproxyService(Service):
    """
    Serves Toxiproxy's HTTP API, and the proxies that its clients make.

    :param reactor: Twisted's.
    :param host: the IP address to listen on.
    :param port: the port to listen on; 0: any free one.
    :param seed: the seed of the toxics; ``None``: a new one.

    `address` is where it listens, as ``HOST:PORT``; empty before and afterwards.
    """

    def __init__(
        self,
        reactor: Any,
        host: str = DEFAULT_HOST,
        port: int = DEFAULT_PORT,
        *,
        seed: int | None = None,
    ) -> None:
        self._reactor = reactor
        self._host, self._port_number = host, port
        self.proxies = Proxies(reactor, seed)
        self._site = AdminSite(ToxiproxyResource(self.proxies), reactor, MOST_BODY)
        self._port: IListeningPort | None = None
        self.address = ""

    def startService(self) -> None:
        """
        Listen.

        :raises CannotListenError: if the address cannot be bound.
        """
        self._port = self._reactor.listenTCP(self._port_number, self._site, interface=self._host)
        self.proxies.stopped = False
        super().startService()
        where: Any = self._port.getHost()
        self.address = host_and_port(where.host, where.port)
        _log.info("Toxiproxy's API listens on {address}", address=self.address)

    async def populate(self, content: bytes) -> str:
        """
        Make the proxies that `content`, the body of ``POST /populate``, describes.

        :return: what is wrong, in one line; empty if nothing is.
        """
        if not content:
            return ""
        found = await answer(self.proxies, "POST", "/populate", "", content)
        return str(found.body.get("error", ""))

    def stopService(self) -> Deferred[None]:
        """Close everything; the Deferred fires when nothing is left."""
        super().stopService()
        self.address = ""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
        # A client that changes the proxies has its answer first, or is reset.
        await self._site.disconnect()
        await self.proxies.stop()
