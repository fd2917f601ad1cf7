"""
Makes listening sockets for several processes, in place of ports that accept.

For TCP, each worker has a socket of its own with SO_REUSEPORT: the kernel spreads connections
evenly over them (socket(7)), and wakes only the worker that gets the connection.  A UNIX socket,
and a socket from systemd, is shared.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any

from attrs import define
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from zope.interface import implementer

from evproxy.service.listener import shown_address
from evproxy.sockets.handed import HandedSockets, Place, place_of, tcp_place
from evproxy.sockets.listening import TWISTED_BACKLOG, ListeningReactor
from evproxy.sockets.unix_path import AS_DESCRIBED, Permissions, give, in_file_system
from evproxy.sockets.unix_port import UNIXPort

_log = Logger(namespace="evproxy")


class _NeverAccepts:
    """The acceptor and the gate of a port that only keeps its socket."""

    def __init__(self) -> None:
        self.gate = self

    def watch(self, port: object) -> None: ...

    def forget(self, port: object) -> None: ...

    def exhausted(self, error: OSError) -> None: ...

    def short(self, shortage: object) -> None: ...

    def start_accepting(self, port: object) -> None: ...

    def stop_accepting(self, port: object) -> None: ...

    def accepted(self, sock: object, peer: object, factory: object) -> None: ...


@implementer(IListeningPort)
@define(eq=False)
class Reservation:
    """
    One place, and the sockets that listen there.

    `place` is what the endpoint asks for: its port may be 0.  `sockets`: one for each worker, or
    one for all.  `port` closes them, if there is one.  `inherited`: the descriptor at which the
    workers inherit the socket, in place of asking for a place.
    `permissions`: the mode and the owner that its path gets when a reload is applied.
    """

    place: Place | None
    address: Any
    sockets: Sequence[socket.socket] = ()
    port: Any = None
    permissions: tuple[int, Permissions] | None = None
    inherited: int | None = None

    def of_worker(self, worker: int) -> int:
        """The descriptor of the socket that `worker` gets, always the same one."""
        return self.sockets[worker % len(self.sockets)].fileno()

    @property
    def actual_place(self) -> Place | None:
        """Where the sockets listen."""
        return place_of(self.sockets[0]) if self.sockets else None

    def close(self) -> Deferred[Any]:
        """
        Listen no longer, once no worker has the sockets either.

        :return: fires once the path of a UNIX socket is gone, too.
        """
        port, self.port = self.port, None
        sockets, self.sockets = self.sockets, ()
        if port is not None:
            return maybeDeferred(port.stopListening)
        for sock in sockets:
            sock.close()
        return succeed(None)

    def permit(self) -> None:
        """Give the path the permissions that have changed."""
        if self.permissions is None:
            return
        (mode, owner), self.permissions = self.permissions, None
        path = self.port.getHost().name
        try:
            if in_file_system(path):
                os.chmod(path, mode)
                give(path, owner)
        except OSError as error:
            _log.warn(
                "the permissions of {path} cannot be changed: {why}",
                path=shown_address(self.address),
                why=error.strerror or error,
            )

    # As a listening port.

    def getHost(self) -> Any:
        return self.address

    def startListening(self) -> None:
        """Nothing to do: the sockets listen."""

    def stopListening(self) -> Deferred[Any]:
        return self.close()


class ReservingReactor(ListeningReactor):
    """
    Stands in for the reactor when server endpoints listen: makes the sockets, and accepts nothing.

    :param workers: how many sockets a TCP port has.
    :param offered: what a port may have in place of new sockets.
    :param new: gets what had to be made.
    :param handed: sockets of another process, which are taken over in place of new ones.
    """

    def __init__(
        self,
        reactor: Any,
        workers: int,
        offered: list[Reservation],
        new: list[Reservation],
        backlog: int = TWISTED_BACKLOG,
        permissions: Permissions = AS_DESCRIBED,
        handed: HandedSockets | None = None,
    ) -> None:
        acceptor: Any = _NeverAccepts()
        super().__init__(reactor, acceptor, acceptor, (), backlog, permissions, handed)
        self._workers = workers
        self._offered = offered
        self._new = new
        self.made: list[Reservation] = []
        """What endpoints have got, in order."""

    def for_listener(self, backlog: int, permissions: Permissions) -> ReservingReactor:
        made = ReservingReactor(
            self._reactor,
            self._workers,
            self._offered,
            self._new,
            backlog,
            permissions,
            self.handed,
        )
        made.made = self.made
        return made

    def _listen_unix(self, port: UNIXPort, place: Place) -> IListeningPort:
        taken = self._taken(place)
        if taken is None:
            port.take_over(self.handed.take(place))
            port.startListening()
            taken = self._is_new(Reservation(place, port.getHost(), [port.socket], port))
        else:
            taken.permissions = (port.mode, self._permissions)
        return self._made(taken)

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: Factory
    ) -> IListeningPort:
        # The endpoint closes the descriptor.
        sock = socket.socket(fileno=os.dup(fileDescriptor))
        made = Reservation(None, address_of(sock), [sock], inherited=fileDescriptor)
        return self._made(self._is_new(made))

    def _listen_tcp(
        self, acceptor: Any, port: int, factory: Any, backlog: int, interface: str
    ) -> IListeningPort:
        place = tcp_place(interface, port)
        taken = self._taken(place)
        if taken is None:
            try:
                sockets = reuseport_sockets(
                    place, self._workers, self._queue(backlog), self._handed_at(place)
                )
            except OSError as error:
                raise CannotListenError(interface, port, error) from error
            taken = self._is_new(Reservation(place, address_of(sockets[0]), sockets))
        return self._made(taken)

    def _handed_at(self, place: Place) -> list[socket.socket]:
        """The sockets of another process at `place`, at most one for each worker."""
        taken = [self.handed.take(place) for _ in range(self._workers)]
        return [sock for sock in taken if sock is not None]

    def _taken(self, place: Place) -> Reservation | None:
        for offered in self._offered:
            if offered.actual_place == place:
                self._offered.remove(offered)
                offered.place = place
                return offered
        return None

    def _is_new(self, reservation: Reservation) -> Reservation:
        self._new.append(reservation)
        return reservation

    def _made(self, reservation: Reservation) -> Reservation:
        self.made.append(reservation)
        return reservation


def address_of(sock: socket.socket) -> Any:
    """Twisted's address of a listening socket."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return UNIXAddress(name)
    kind = IPv6Address if sock.family == socket.AF_INET6 else IPv4Address
    return kind("TCP", *name[:2])


def reuseport_sockets(
    place: Place, count: int, backlog: int, taken: Sequence[socket.socket] = ()
) -> list[socket.socket]:
    """
    Return `count` sockets that listen at `place`, with SO_REUSEPORT; `taken` are the first ones.

    The first one is bound without this option, so that an address that is in use is noticed, even
    if it is in use by sockets with the option.
    """
    family, (host, port) = place
    sockets = list(taken)
    try:
        for sock in sockets:
            # The only socket of a process without workers lacks it.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        while len(sockets) < count:
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if len(sockets) == 1:
                sock.bind(socket.getaddrinfo(host, port, family, flags=socket.AI_NUMERICHOST)[0][4])
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            else:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                sock.bind(sockets[0].getsockname())
        for sock in sockets:
            sock.setblocking(False)
            sock.listen(backlog)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets
