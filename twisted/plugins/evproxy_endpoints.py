"""Makes ``evproxy:`` known in endpoint strings.  Lazy: a parser imports evproxy when it is used."""

from typing import Any

from twisted.internet.interfaces import (
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(IPlugin, IStreamServerEndpointStringParser)
class _ServerParser:
    prefix = "evproxy"

    def parseStreamServer(self, reactor: Any, *args: str, **kwargs: str) -> Any:
        from evproxy.endpoints.server import server_endpoint

        return server_endpoint(reactor, *args, **kwargs)


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class _ClientParser:
    prefix = "evproxy"

    def parseStreamClient(self, reactor: Any, *args: str, **kwargs: str) -> Any:
        from evproxy.endpoints.client import client_endpoint

        return client_endpoint(reactor, *args, **kwargs)


server_parser = _ServerParser()
client_parser = _ClientParser()
