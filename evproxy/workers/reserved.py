"""
The listening sockets of all workers, which the supervisor keeps: through reloads, and while a
worker is replaced, whose clients wait in the accept queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.protocol import Factory

from evproxy.config.changes import listener_pairs
from evproxy.config.document import ConfigErrors
from evproxy.errors import SettingsError
from evproxy.service.listener import Listener, listener_permissions, server_endpoint
from evproxy.service.reload_plan import socket_of
from evproxy.settings import ListenerSettings
from evproxy.sockets.handed import HandedSockets, Place
from evproxy.workers.reserving import Reservation, ReservingReactor


@define(eq=False)
class ListenerSockets:
    """The sockets of one listener."""

    settings: ListenerSettings
    reservations: list[Reservation]


@define(eq=False)
class SocketPlan:
    """
    The sockets after a reload.

    `new` were made for it.  `gone` are needed no longer once it is applied.
    """

    listeners: list[ListenerSockets]
    new: list[Reservation] = field(factory=list)
    gone: list[Reservation] = field(factory=list)
    moved: list[tuple[Reservation, Place | None]] = field(factory=list)

    def discard(self) -> None:
        """The plan is not applied: all is as before."""
        for reservation in self.new:
            reservation.close()
        for reservation, place in self.moved:
            reservation.place = place
            reservation.permissions = None


class ReservedSockets:
    """
    The sockets of all listeners.

    :param reactor: Twisted's.
    :param workers: how many workers there are.

    `handed`: see `evproxy.service.listening_sockets.ListeningSockets`, whose methods are here, too.
    """

    def __init__(self, reactor: Any, workers: int) -> None:
        self._reactor = reactor
        self._workers = workers
        self._listeners: list[ListenerSockets] = []
        self.handed = HandedSockets()

    def descriptors(self) -> list[int]:
        """The descriptors of all sockets that are not inherited."""
        return [sock.fileno() for each in self.all() for sock in each.sockets]

    def own(self) -> None:
        """The process from which sockets came does not serve with them any more."""
        for each in self.all():
            if each.port is not None:
                each.port.own()

    def keep(self, paths: bool) -> list[int]:
        """See `evproxy.service.listening_sockets.ListeningSockets`."""
        kept = []
        for each in self.all():
            # Only the socket of a UNIX listener has a port.
            if each.port is None or paths:
                kept += [sock.fileno() for sock in each.sockets]
            if each.port is not None and paths:
                each.port.handed_over = True
        return kept

    def hand_over(self) -> None:
        """Another process has the sockets, too, and serves."""
        for each in self.all():
            if each.port is not None:
                each.port.hand_over()

    def plan(self, listeners: Sequence[ListenerSettings]) -> SocketPlan:
        """
        Make the sockets that `listeners` need and that are not there yet.

        :raises CannotListenError: if a listener cannot listen.
        :raises ConfigErrors: if a listener cannot listen in several processes.
        """
        before = {id(each.settings): each for each in self._listeners}
        pairs = listener_pairs([each.settings for each in self._listeners], listeners)
        kept: dict[int, ListenerSockets] = {}
        for number, pair in enumerate(pairs):
            if pair.before is None or pair.after is None:
                continue
            if socket_of(pair.before) == socket_of(pair.after):
                kept[number] = before[id(pair.before)]
        staying = [id(each) for each in kept.values()]
        free = [
            reservation
            for each in self._listeners
            if id(each) not in staying
            for reservation in each.reservations
        ]
        plan = SocketPlan([], moved=[(each, each.place) for each in free])
        offered = list(free)
        try:
            for number, settings in enumerate(listeners):
                if number in kept:
                    made = kept[number].reservations
                else:
                    made = self._reserve(number, settings, offered, plan.new)
                plan.listeners.append(ListenerSockets(settings, made))
        except BaseException:
            plan.discard()
            raise
        plan.gone = offered
        return plan

    def apply(self, plan: SocketPlan) -> None:
        """Have the sockets of `plan` from now on, and close those that are gone."""
        self._listeners = plan.listeners
        for reservation in self.all():
            reservation.permit()
        for reservation in plan.gone:
            if reservation.port is not None:
                # Also if systemd stores the socket.
                reservation.port.handed_over = False
            reservation.close()

    def all(self) -> list[Reservation]:
        """The sockets in the order in which the workers ask for them."""
        return [each for each in self._all() if each.place is not None]

    def inherited(self) -> dict[int, int]:
        """The descriptors of inherited sockets, by the numbers at which they were inherited."""
        return {
            each.inherited: each.sockets[0].fileno()
            for each in self._all()
            if each.inherited is not None
        }

    def _all(self) -> list[Reservation]:
        return [
            each for listener in self._listeners for each in listener.reservations if each.sockets
        ]

    def addresses(self) -> list[Any]:
        """Where the listeners listen: names of sockets, or Twisted's UNIX addresses."""
        return [each.address for listener in self._listeners for each in listener.reservations]

    def close(self) -> Deferred[Any]:
        """Keep no socket; the Deferred fires once all are closed."""
        closed = DeferredList([reservation.close() for reservation in self._all()])
        self._listeners = []
        return closed

    def _reserve(
        self,
        number: int,
        settings: ListenerSettings,
        offered: list[Reservation],
        new: list[Reservation],
    ) -> list[Reservation]:
        reactor = ReservingReactor(self._reactor, self._workers, offered, new, handed=self.handed)
        try:
            endpoint = server_endpoint(reactor, settings.listen, listener_permissions(settings))
            factory: Any = Factory()
            listener = Listener(settings.listen, endpoint, factory)
            listener.bind()
        except SettingsError as error:
            raise ConfigErrors([f"listeners[{number}].{error}"]) from None
        if not reactor.made or listener.port is None:
            listener.close()
            raise ConfigErrors(
                [f"listeners[{number}].listen: {settings.listen!r} cannot be shared by workers"]
            )
        return reactor.made
