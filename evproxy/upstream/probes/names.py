"""
Host names as health checks ask for them: the same answers as sessions have.

A check's own time begins when an address is known; a first look-up has `FIRST_ANSWER`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from evproxy.upstream.address import client_endpoint, parse_upstream
from evproxy.upstream.dialers import TCPAddress
from evproxy.upstream.names import Names
from evproxy.upstream.resolving import ResolvingReactor

FIRST_ANSWER = 5.0
"""
Seconds that a check waits for the address of a name that has never been resolved (so long
does a resolver wait for one name server by default: ``RES_TIMEOUT`` of ``resolv.h``).
"""


class LookUpListener(Protocol):
    """Hears when a check waits for a look-up."""

    def look_up_began(self, longest: float) -> None:
        """The address has to be looked up first, which takes `longest` seconds at the most."""

    def look_up_ended(self) -> None:
        """It is over, well or not."""


@runtime_checkable
class LooksUp(Protocol):
    """A client endpoint that tells when its connect waits for a look-up."""

    def tell(self, listener: LookUpListener) -> None:
        """Tell `listener` from now on."""


class CheckNames:
    """The `evproxy.upstream.names.LookUps` of one check."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self.known = names.known
        self.in_order = names.in_order
        self.answered_at = names.answered_at
        self.listener: LookUpListener | None = None
        self._waiting: Deferred[tuple[str, ...]] | None = None

    def resolve(self, name: str, timeout: float | None) -> Deferred[tuple[str, ...]]:
        """See `LookUps`: within `FIRST_ANSWER`, whatever time the connect has."""
        if self.listener is not None:
            self.listener.look_up_began(FIRST_ANSWER)
        self._waiting = self._names.resolve_again(name, FIRST_ANSWER)
        return self._waiting.addBoth(self._over)

    def _over(self, result: Any) -> Any:
        self._waiting = None
        if self.listener is not None:
            self.listener.look_up_ended()
        return result

    def give_up(self) -> None:
        """Nobody waits any more, as may be where an endpoint was cancelled."""
        if self._waiting is not None:
            self._waiting.cancel()

    def time_left(self, timeout: float, began: float) -> float:
        """See `LookUps`: the look-up takes nothing of it."""
        return timeout


@implementer(IStreamClientEndpoint)
class _CheckEndpoint:
    """A client endpoint whose host names are looked up by `names`."""

    def __init__(self, names: CheckNames, endpoint: IStreamClientEndpoint) -> None:
        self._names = names
        self._endpoint = endpoint

    def tell(self, listener: LookUpListener) -> None:
        """See `LooksUp`."""
        self._names.listener = listener

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting: Deferred[IProtocol] = self._endpoint.connect(protocolFactory)
        return connecting.addBoth(self._over)

    def _over(self, result: Any) -> Any:
        # `HostnameEndpoint` leaves a look-up under way where it is cancelled.
        self._names.give_up()
        return result


def check_endpoints(
    reactor: Any, names: Names, timeout: float
) -> Callable[[str], IStreamClientEndpoint]:
    """
    Makes the client endpoints of checks that have `timeout` seconds each.

    Those of a host and a port try its addresses in turn within that time, as sessions do.
    """

    def endpoint_for(address: str) -> IStreamClientEndpoint:
        asking = CheckNames(names)
        resolving = ResolvingReactor(reactor, asking, timeout)
        parsed = parse_upstream(address)
        endpoint: IStreamClientEndpoint
        if isinstance(parsed, TCPAddress):
            endpoint = TCP4ClientEndpoint(resolving, parsed.host, parsed.port, timeout)
        else:
            endpoint = client_endpoint(resolving, address)
        return _CheckEndpoint(asking, endpoint)

    return endpoint_for
