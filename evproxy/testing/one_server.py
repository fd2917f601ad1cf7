"""
A proxy in front of one server, with a port that opens and closes, and with faults.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from evproxy.config.declare import check_value
from evproxy.config.rules import Whole
from evproxy.faults.faults import Faults
from evproxy.observers import Observer
from evproxy.relay.stages import StagesOfSession
from evproxy.session.factory import ProxyFactory
from evproxy.testing.door import Door
from evproxy.upstream.pool.pool import Pool


class OneServerProxy:
    """
    Proxies what one port accepts to one server; begins at once.

    :param reactor: Twisted's.
    :param upstream: ``HOST:PORT``, or any Twisted client endpoint description.
    :param host: the IP address to listen on.
    :param port: the port to listen on; 0: any free one.
    :param faults: the faults of the sessions.
    :param stages: what else the bytes of the client pass, before the faults.
    :param observers: are notified of sessions.
    :raises SettingsError: if `upstream` is no address, or `port` no port number.
    :raises CannotListenError: if the address cannot be bound.

    `door` is the port.
    """

    def __init__(
        self,
        reactor: Any,
        upstream: str,
        host: str,
        port: int,
        faults: Faults,
        stages: Sequence[StagesOfSession] = (),
        observers: Sequence[Observer] = (),
    ) -> None:
        check_value(Whole(0, 65535), port, ("port",))
        self._pool = Pool(reactor, [upstream])
        self._factory = ProxyFactory(
            self._pool,
            reactor=reactor,
            listener=upstream,
            observers=observers,
            stages=[*stages, faults],
        )
        self.door = Door(reactor, self._factory, host, port)
        self._pool.start()
        listening = self.door.listen()
        failures: list[Failure] = []
        listening.addErrback(failures.append)
        if failures:
            self.door.close()
            self._pool.stop()
            failures[0].raiseException()

    def stop(self, grace: float = 0.0) -> Deferred[None]:
        """
        Stop; the Deferred fires when nothing is left.

        :param grace: seconds until the sessions that are left are reset.
        """
        closed = self.door.close()
        closed.addCallback(lambda _: self._factory.drain(grace))
        return closed.addCallback(lambda _: self._pool.stop())
