"""
The connection of a replay: one that is accepted, or one that is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    clientFromString,
    connectProtocol,
    serverFromString,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol

from evproxy.errors import SettingsError
from evproxy.replay.player import Player
from evproxy.service.listener import shown_address
from evproxy.upstream.address import parse_upstream
from evproxy.upstream.dialers import TCPAddress


class _Once(Factory):
    """Gives the first client to the player, and refuses the others."""

    noisy = False

    def __init__(self, player: Player) -> None:
        self._player: Player | None = player
        self.taken: Deferred[None] = Deferred()

    def buildProtocol(self, addr: Any) -> Protocol | None:
        player, self._player = self._player, None
        if player is not None:
            player.factory = self
            self.taken.callback(None)
        return player


async def accepted(
    reactor: Any, description: str, player: Player, listens: Callable[[str], None]
) -> None:
    """
    Wait for one client, without end, and let `player` play for it.

    :param description: a server endpoint.
    :param listens: is called with the address.
    :raises SettingsError: if `description` is no server endpoint.
    :raises twisted.internet.error.CannotListenError: if it cannot be listened on.
    """
    try:
        endpoint = serverFromString(reactor, description)
    except Exception as error:
        # A parser of an endpoint plugin may raise any exception.
        raise SettingsError(f"--listen: {description!r}: {error}") from None
    factory = _Once(player)
    port = await endpoint.listen(factory)
    listens(shown_address(port.getHost()))
    await factory.taken
    await port.stopListening()


async def connected(reactor: Any, description: str, player: Player, timeout: float) -> None:
    """
    Connect to a server, and let `player` play for it.

    :param description: ``HOST:PORT``, ``[v6]:PORT`` or a client endpoint.
    :param timeout: seconds for the connect.
    :raises SettingsError: if `description` is neither.
    :raises twisted.internet.error.ConnectError: if there is no connection.
    :raises twisted.internet.error.DNSLookupError: if the host has no address.
    :raises TimeoutError: if there is no connection in time.
    """
    try:
        endpoint = _client_endpoint(reactor, description)
    except Exception as error:
        raise SettingsError(f"--connect: {description!r}: {error}") from None
    connecting: Deferred[Any] = connectProtocol(endpoint, player)

    def too_late(_: object, seconds: float) -> None:
        # Each endpoint has its own exception for a connect that is cancelled.
        raise TimeoutError(f"--connect: {description!r}: no connection after {seconds:g} s")

    await connecting.addTimeout(timeout, reactor, too_late)


def _client_endpoint(reactor: Any, description: str) -> IStreamClientEndpoint:
    address = parse_upstream(description)
    if isinstance(address, TCPAddress):
        return HostnameEndpoint(reactor, address.host, address.port)
    endpoint: IStreamClientEndpoint = clientFromString(reactor, description)
    return endpoint
