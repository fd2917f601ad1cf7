"""
The listening sockets of a proxy: those of the process before, and those for the process after.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from evproxy.service.listener import Listener
from evproxy.sockets.handed import HandedSockets

if TYPE_CHECKING:
    from evproxy.admin.interface import AdminPort


class ListeningSockets(Protocol):
    """The listening sockets that evproxy has bound, or taken over."""

    @property
    def handed(self) -> HandedSockets:
        """The sockets that listeners take over in place of new ones."""

    def descriptors(self) -> list[int]:
        """The descriptors of all sockets."""

    def own(self) -> None:
        """The process from which sockets came does not serve with them any more."""

    def keep(self, paths: bool) -> list[int]:
        """
        Return the descriptors of the sockets that go on listening when this process ends.

        :param paths: whether the sockets of UNIX listeners, and their paths, are among them.
        """

    def hand_over(self) -> None:
        """
        Another process has the sockets, too, and serves.

        They go on listening when this process stops.
        """


class ServiceSockets:
    """
    The `ListeningSockets` of a service.

    :param handed: see `ListeningSockets`.
    :param listeners: returns those that there are now.
    :param admin: returns the admin interface; another process has it after `hand_over`.
    """

    def __init__(
        self,
        handed: HandedSockets,
        listeners: Callable[[], Sequence[Listener]],
        admin: Callable[[], AdminPort | None],
    ) -> None:
        self.handed = handed
        self._listeners = listeners
        self._admin = admin

    def _all(self) -> list[tuple[Listener, socket.socket]]:
        admin = self._admin()
        more = [] if admin is None else [admin.listener]
        return [
            (listener, listener.socket)
            for listener in (*self._listeners(), *more)
            if listener.socket is not None
        ]

    def descriptors(self) -> list[int]:
        return [sock.fileno() for _, sock in self._all()]

    def own(self) -> None:
        for listener, _ in self._all():
            listener.own_socket()

    def keep(self, paths: bool) -> list[int]:
        kept = []
        for listener, sock in self._all():
            if paths or sock.family != socket.AF_UNIX:
                listener.keep_socket()
                kept.append(sock.fileno())
        return kept

    def hand_over(self) -> None:
        for listener, _ in self._all():
            listener.hand_over()
        admin = self._admin()
        if admin is not None:
            admin.stop_listening()


class JoinedSockets:
    """
    Several `ListeningSockets` as one; they take over from the same `handed`.

    :param parts: the sockets, at least one.
    """

    def __init__(self, *parts: ListeningSockets) -> None:
        self._parts = parts
        self.handed = parts[0].handed

    def descriptors(self) -> list[int]:
        return [each for part in self._parts for each in part.descriptors()]

    def own(self) -> None:
        for part in self._parts:
            part.own()

    def keep(self, paths: bool) -> list[int]:
        return [each for part in self._parts for each in part.keep(paths)]

    def hand_over(self) -> None:
        for part in self._parts:
            part.hand_over()
