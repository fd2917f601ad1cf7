"""Without epoll, evproxy proxies with Twisted's own transports."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import select
for name in [name for name in vars(select) if "epoll" in name.lower()]:
    delattr(select, name)
from twisted.internet import pollreactor
pollreactor.install()
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.wire import Echo
from evproxy import ProxyService, SettingsError

try:
    ProxyService(reactor, ["tcp:0:interface=127.0.0.1"], ["127.0.0.1:1"], relay="socket")
except SettingsError as error:
    print(error)

class Asking(Protocol):
    def connectionMade(self):
        self.transport.write(b"question")
    def dataReceived(self, data):
        print(data.decode(), type(self.transport).__name__)
        self.transport.loseConnection()
    def connectionLost(self, reason):
        proxy.stopService().addCallback(lambda _: reactor.stop())

echo = reactor.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1")
proxy = ProxyService(
    reactor, ["tcp:0:interface=127.0.0.1"], [f"127.0.0.1:{echo.getHost().port}"]
)
proxy.startService()
port = proxy.addresses[0].port
connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Asking())
reactor.callLater(20, reactor.stop)
reactor.run()
"""


def test_it_proxies_without_epoll() -> None:
    """Without epoll, evproxy uses the stream relay, and refuses ``socket`` in one line."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines() == [
        "relay: there is no socket relay on this system, which has no epoll",
        "question Client",
    ], done.stderr
