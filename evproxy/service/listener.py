"""
One listener of a service: its endpoint, its port, and the factory of its sessions.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import StandardIOEndpoint, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.config.addresses import STDIO, is_unix_listener, listen_fault, permission_fault
from evproxy.config.canonical import host_and_port
from evproxy.errors import SettingsError
from evproxy.escape import escaped
from evproxy.session.factory import ProxyFactory
from evproxy.settings import (
    DEFAULT_BACKLOG,
    PERMISSIONS,
    AdminSettings,
    ListenerSettings,
)
from evproxy.sockets.inherited import InheritedSocket
from evproxy.sockets.listening import TWISTED_BACKLOG, ListeningReactor
from evproxy.sockets.ports import PlainPort
from evproxy.sockets.unix_path import AS_DESCRIBED, Permissions, permissions
from evproxy.upstream.reasons import description_fault

_log = Logger()


@frozen(kw_only=True)
class ListenerStatus:
    """
    A snapshot of a listener.

    `name` is the listener's name in logs.  `address` is where the listener listens now, as in the
    log, or empty.  `refused` is how many clients were refused so far, by the reason.
    """

    name: str
    address: str
    refused: Mapping[str, int]


class Listener:
    """
    One listener of a service.

    `port` is the listener's port while it listens, else ``None``.

    :param listen: the name of the endpoint in errors and logs.
    :param endpoint: where the listener listens.
    :param factory: makes the sessions.
    """

    def __init__(self, listen: str, endpoint: IStreamServerEndpoint, factory: ProxyFactory) -> None:
        self.listen = listen
        self.factory = factory
        self.port: IListeningPort | None = None
        self._waiting: list[Deferred[None]] = []
        self._asking: list[Deferred[None]] = []
        self._endpoint = endpoint
        # A token of the last call of `bind`; ``None`` if the listener should not listen.
        self._wanted: object | None = None

    def bind(self) -> None:
        """
        Begin to listen.

        If the endpoint's Deferred fires later, this method does not wait for it.  The listener
        serves once the endpoint listens, and a late error is logged.

        :raises twisted.internet.error.CannotListenError: if the endpoint cannot listen.
        """
        self._wanted = wanted = object()
        failures: list[Failure] = []
        listening: Deferred[Any] = maybeDeferred(self._endpoint.listen, self.factory)
        listening.addCallback(self._bound, wanted)
        if listening.called:
            listening.addErrback(failures.append)
        else:
            listening.addErrback(self._failed)
        if failures:
            self._wanted = None
            _raise(self.listen, failures[0])

    def when_listening(self) -> Deferred[None]:
        """Return a Deferred that fires when the listener listens."""
        if self.port is not None:
            return succeed(None)
        listening: Deferred[None] = Deferred()
        self._waiting.append(listening)
        return listening

    def outcome(self) -> Deferred[None]:
        """
        Return a Deferred that fires when the listener listens, or fails if its endpoint does.

        Then the error is not logged.
        """
        listening = self.when_listening()
        if not listening.called:
            self._asking.append(listening)
        return listening

    def _bound(self, port: IListeningPort, wanted: object) -> None:
        if self._wanted is wanted:
            self.port = port
            waiting, self._waiting, self._asking = self._waiting, [], []
            for deferred in waiting:
                deferred.callback(None)
        else:
            # The service stopped before the endpoint listened.
            _close(port)

    def _failed(self, failure: Failure) -> None:
        asking, self._asking = self._asking, []
        for deferred in asking:
            self._waiting.remove(deferred)
            deferred.errback(failure)
        if asking:
            return
        _log.failure("Cannot listen on {description}", failure, description=self.listen)

    @property
    def socket(self) -> socket.socket | None:
        """The listening socket; ``None`` if there is none, or if it is not evproxy's own."""
        port: Any = self.port
        own = isinstance(port, PlainPort) and not isinstance(port.socket, InheritedSocket)
        return port.socket if own else None

    def keep_socket(self) -> None:
        """Another process has the socket, too: it goes on listening when this listener closes."""
        if self.socket is not None:
            port: Any = self.port
            port.handed_over = True

    def own_socket(self) -> None:
        """The process from which the socket came does not serve with it any more."""
        if self.socket is not None:
            port: Any = self.port
            port.own()

    def hand_over(self) -> None:
        """Another process owns the socket from now on."""
        if self.socket is not None:
            port: Any = self.port
            port.hand_over()

    def close(self) -> Deferred[Any]:
        """Stop listening.  The Deferred fires when the port is closed; an error is logged."""
        self._wanted = None
        port, self.port = self.port, None
        return succeed(None) if port is None else _close(port)

    def status(self) -> ListenerStatus:
        """Return a snapshot of the listener."""
        address = "" if self.port is None else shown_address(self.port.getHost())
        context = self.factory.context
        entry = context.arrival.entry
        refused = {} if entry is None else entry.refused
        return ListenerStatus(name=context.listener, address=address, refused=refused)


def _close(port: IListeningPort) -> Deferred[Any]:
    closing: Deferred[Any] = maybeDeferred(port.stopListening)
    return closing.addErrback(lambda failure: _log.failure("A listener cannot be closed", failure))


def _raise(description: str, failure: Failure) -> None:
    """
    Raise `failure` as `CannotListenError`.

    Twisted raises this error itself, except in some cases (a lock file, a port too high).
    """
    error = failure.value
    if isinstance(error, OSError | OverflowError | ValueError) and not isinstance(
        error, CannotListenError
    ):
        raise CannotListenError(None, description, error)
    failure.raiseException()


def cannot_listen(error: CannotListenError) -> str:
    """Return in one line where a port cannot listen, and why."""
    port: Any = error.port
    if isinstance(port, bytes):
        port = escaped(os.fsdecode(port))
    where = port if error.interface is None else host_and_port(error.interface or "*", port)
    reason = getattr(error.socketError, "strerror", None) or error.socketError
    return f"cannot listen on {where}: {reason}"


def shown_address(address: Any) -> str:
    """Return the address of a port in the form of options and logs."""
    if hasattr(address, "host"):
        return host_and_port(address.host, address.port)
    return f"unix:{escaped(os.fsdecode(address.name or b''))}"


def server_endpoint(
    reactor: Any, description: str, permissions: Permissions = AS_DESCRIBED
) -> IStreamServerEndpoint:
    """
    Return the endpoint for `description`, with a backlog of `DEFAULT_BACKLOG` if it names none.

    :param reactor: a `ListeningReactor`; any other one if the endpoint will never listen.
    :param permissions: who may connect to the path of a UNIX listener.
    :raises SettingsError: if there is no such endpoint.
    """
    fault = listen_fault(description)
    if fault is not None:
        raise SettingsError(f"{description!r} cannot be listened on: {fault}")
    if isinstance(reactor, ListeningReactor):
        backlog = TWISTED_BACKLOG if ":backlog=" in description else DEFAULT_BACKLOG
        reactor = reactor.for_listener(backlog, permissions)
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    except Exception as error:
        # A parser of an endpoint plugin may raise any exception.
        why = description_fault(error)
        if description.startswith("systemd:") and isinstance(error, LookupError):
            why = "systemd has handed over no such socket"
        raise SettingsError(f"{description!r} cannot be listened on: {why}") from None
    return endpoint


def listener_permissions(listener: ListenerSettings | AdminSettings) -> Permissions:
    """
    Return the permissions of the path of `listener`.

    :raises SettingsError: if `listener` has permissions but no path, or if there is no such user
        or group.
    """
    given = {key: getattr(listener, key) for key in PERMISSIONS}
    for key in filter(given.get, PERMISSIONS):
        fault = permission_fault(key, listener.listen)
        if fault is not None:
            raise SettingsError(f"{key}: {fault}")
    return permissions(*given.values())


def listeners_for(
    listen: Sequence[str], unix_mode: str, unix_user: str, unix_group: str
) -> tuple[ListenerSettings, ...]:
    """
    Return a listener for each description in `listen`; UNIX listeners get the permissions.

    :raises SettingsError: if there are permissions, but no UNIX listener.
    """
    given: dict[str, Any] = dict(zip(PERMISSIONS, (unix_mode, unix_user, unix_group), strict=True))
    for key, value in given.items():
        if value and not any(map(is_unix_listener, listen)):
            raise SettingsError(f"{key}: it is for UNIX listeners only, and there is none")
    return tuple(
        evolve(ListenerSettings(each), **(given if is_unix_listener(each) else {}))
        for each in listen
    )


def described(endpoint: object) -> str:
    """Return the name in logs of a listener that is an endpoint object."""
    if not IStreamServerEndpoint.providedBy(endpoint):
        raise SettingsError(
            "listen: expected a server endpoint description or an IStreamServerEndpoint, "
            f"got {endpoint!r}"
        )
    if isinstance(endpoint, StandardIOEndpoint):
        raise SettingsError(f"listen: {STDIO}")
    return type(endpoint).__name__
