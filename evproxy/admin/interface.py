"""
The admin interface of one proxy: its port, its start and its stop.

It has a port and clients of its own.  They do not count as sessions, and are served until the proxy
has stopped, so also while it drains or is at its bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Protocol, cast

from attrs import evolve
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError

from evproxy.admin import servers, sessions, waits, whole
from evproxy.admin.access import metrics_can_be_read, token_of
from evproxy.admin.api import Api
from evproxy.admin.contract import Administered
from evproxy.admin.errors import AdminCannotListen
from evproxy.admin.guard import Guard
from evproxy.admin.live.feed import Feed
from evproxy.admin.live.one_process import OneProcess
from evproxy.admin.live.operation import live_view
from evproxy.admin.operations import Context, Operation
from evproxy.admin.page.files import page_operations
from evproxy.admin.site import MOST_CONNECTIONS, AdminSite
from evproxy.config.addresses import permission_fault
from evproxy.engine.options import AT_ONCE
from evproxy.hub import Hub
from evproxy.service.listener import Listener, listener_permissions, server_endpoint
from evproxy.session.admission import Admission
from evproxy.settings import AdminSettings
from evproxy.sockets.handed import HandedSockets
from evproxy.sockets.listening import ListeningReactor
from evproxy.sockets.makers import TwistedSockets

UNIX_MODE = "600"
"""The mode of the path of a UNIX socket, if nothing else says one: who may connect may change the
proxy."""

OPERATIONS: tuple[Operation, ...] = (
    *whole.OPERATIONS,
    *servers.OPERATIONS,
    *sessions.OPERATIONS,
    *waits.OPERATIONS,
)


class Runs(Protocol):
    """Something that runs while an admin interface listens."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class AdminPort:
    """
    Serves operations over HTTP.

    :param context: what the operations work on.
    :param settings: where to listen, and who may change the proxy.
    :param operations: every operation.
    :param feed: runs while the interface listens.
    :param handed: listening sockets that may be taken over; ``None``: none.
    :raises SettingsError: if a setting is wrong.

    `listener` has the port.
    """

    def __init__(
        self,
        context: Context,
        settings: AdminSettings,
        operations: Sequence[Operation],
        feed: Runs,
        handed: HandedSockets | None = None,
    ) -> None:
        reactor = context.reactor
        guard = Guard(token_of(settings), frozenset(name.lower() for name in settings.hosts))
        self._feed = feed
        self._site = AdminSite(Api(context, guard, operations), reactor)
        # It pauses accepting while descriptors are missing; its sessions are none of the proxy's.
        self._gate = Admission(reactor, MOST_CONNECTIONS, Hub())
        sockets = TwistedSockets(reactor, self._gate, None)
        listening = ListeningReactor(reactor, sockets, sockets, AT_ONCE, handed=handed)
        endpoint = server_endpoint(listening, settings.listen, _permissions(settings))
        self.listener = Listener(settings.listen, endpoint, cast(Any, self._site))

    @property
    def address(self) -> IPv4Address | IPv6Address | UNIXAddress | None:
        """Where it listens; ``None``: nowhere."""
        port = self.listener.port
        host: Any = None if port is None else port.getHost()
        return cast("IPv4Address | IPv6Address | UNIXAddress | None", host)

    def bind(self) -> None:
        """
        Begin to listen, unless it listens already.

        :raises AdminCannotListen: if it cannot listen.
        """
        if self.listener.port is None:
            try:
                self.listener.bind()
                self._feed.start()
            except CannotListenError as error:
                raise AdminCannotListen(error.interface, error.port, error.socketError) from error

    def stop_listening(self) -> None:
        """Take no more clients; those that are connected are served on."""
        self.listener.close()

    def close(self) -> Deferred[Any]:
        """Stop listening, and let clients have their answers; fires when all of them are gone."""
        closed = self.listener.close()
        closed.addCallback(lambda _: self._feed.stop())
        closed.addCallback(lambda _: self._site.disconnect())
        return closed.addCallback(lambda _: self._gate.close())


class AdminInterface(AdminPort):
    """
    Serves the operations on `proxy` over HTTP.

    :param reactor: Twisted's.
    :param proxy: what the operations work on.
    :param settings: where to listen, and who may change the proxy.
    :param more: further operations.
    :param handed: listening sockets that may be taken over; ``None``: none.
    :raises SettingsError: if a setting is wrong.
    """

    def __init__(
        self,
        reactor: Any,
        proxy: Administered,
        settings: AdminSettings,
        more: Sequence[Operation] = (),
        handed: HandedSockets | None = None,
    ) -> None:
        # Read now: the files may be out of reach later (twistd --chroot).
        context = Context(reactor, proxy, version("evproxy"))
        feed = Feed(reactor, OneProcess(context))
        live = (live_view(feed), *page_operations())
        operations = (*OPERATIONS, *_metrics(context, settings), *live, *more)
        super().__init__(context, settings, operations, feed, handed)


def _metrics(context: Context, settings: AdminSettings) -> tuple[Operation, ...]:
    if context.proxy.tally is None or not (settings.metrics and metrics_can_be_read()):
        return ()
    # It is an extra, and takes a while to load.
    from evproxy.admin.metrics import metrics_of

    return (metrics_of(context),)


def _permissions(settings: AdminSettings) -> Any:
    given: Any = settings
    described = permission_fault("unix_mode", settings.listen) is not None
    if not settings.unix_mode and not described:
        given = evolve(settings, unix_mode=UNIX_MODE)
    return listener_permissions(given)
