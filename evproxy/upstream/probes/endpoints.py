"""
The client endpoints of health checks, which use the same addresses of host names as sessions.

The timeout of a check begins when an address is known.  The first look-up of a name has a
timeout of its own, `FIRST_ANSWER`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.errors import Shortage
from evproxy.policy.shortages import shortage_in
from evproxy.upstream.address import client_endpoint, parse_upstream
from evproxy.upstream.dialers import TCPAddress
from evproxy.upstream.names import Names
from evproxy.upstream.resolving import ResolvingReactor

FIRST_ANSWER = 5.0
"""
Seconds that a check waits for the first look-up of a name.  This is also the default timeout
of a resolver for one name server (``RES_TIMEOUT`` of ``resolv.h``).
"""


class LookUpListener(Protocol):
    """Is notified when a check waits for a look-up."""

    def look_up_began(self, longest: float) -> None:
        """A look-up of the address has begun, which takes `longest` seconds at the most."""

    def look_up_ended(self, shortage: Shortage | None) -> None:
        """The look-up has succeeded or failed; `shortage`: what evproxy lacked for it."""


@runtime_checkable
class LooksUp(Protocol):
    """A client endpoint that notifies a listener when its connect waits for a look-up."""

    def notify(self, listener: LookUpListener) -> None:
        """Notify `listener` from now on."""


class CheckNames:
    """The `evproxy.upstream.names.LookUps` of one check."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self.known = names.known
        self.in_order = names.in_order
        self.answered_at = names.answered_at
        self.held_up = names.held_up
        self.listener: LookUpListener | None = None
        self._waiting: Deferred[tuple[str, ...]] | None = None

    def resolve(self, name: str, timeout: float | None) -> Deferred[tuple[str, ...]]:
        """See `LookUps`.  The timeout is always `FIRST_ANSWER`."""
        if self.listener is not None:
            self.listener.look_up_began(FIRST_ANSWER)
        self._waiting = self._names.resolve_again(name, FIRST_ANSWER)
        return self._waiting.addBoth(self._ended)

    def _ended(self, result: Any) -> Any:
        self._waiting = None
        if self.listener is not None:
            # Of an endpoint that resolves the name itself, no more is heard than that it failed.
            failed = isinstance(result, Failure)
            self.listener.look_up_ended(shortage_in(result.value) if failed else None)
        return result

    def cancel(self) -> None:
        """Cancel the look-up, if there is one."""
        if self._waiting is not None:
            self._waiting.cancel()

    def time_left(self, timeout: float, began: float) -> float:
        """See `LookUps`.  The look-up does not count against the timeout."""
        return timeout


@implementer(IStreamClientEndpoint)
class _CheckEndpoint:
    """A client endpoint whose host names are resolved by `names`."""

    def __init__(self, names: CheckNames, endpoint: IStreamClientEndpoint) -> None:
        self._names = names
        self._endpoint = endpoint

    def notify(self, listener: LookUpListener) -> None:
        """See `LooksUp`."""
        self._names.listener = listener

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting: Deferred[IProtocol] = self._endpoint.connect(protocolFactory)
        return connecting.addBoth(self._ended)

    def _ended(self, result: Any) -> Any:
        # `HostnameEndpoint` does not cancel its look-up when it is cancelled itself.
        self._names.cancel()
        return result


def check_endpoints(
    reactor: Any, names: Names, timeout: float
) -> Callable[[str], IStreamClientEndpoint]:
    """
    Return a factory of the client endpoints of checks with a timeout of `timeout` seconds.

    An endpoint for a host and a port tries the addresses in turn within the timeout, as
    sessions do.
    """

    def endpoint_for(address: str) -> IStreamClientEndpoint:
        check_names = CheckNames(names)
        resolving = ResolvingReactor(reactor, check_names, timeout)
        parsed = parse_upstream(address)
        endpoint: IStreamClientEndpoint
        if isinstance(parsed, TCPAddress):
            endpoint = TCP4ClientEndpoint(resolving, parsed.host, parsed.port, timeout)
        else:
            endpoint = client_endpoint(resolving, address)
        return _CheckEndpoint(check_names, endpoint)

    return endpoint_for
