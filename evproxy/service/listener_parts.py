"""
The parts of a listener: the factory of its sessions, and what the factory needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, frozen

from evproxy.errors import SettingsError
from evproxy.hub import Hub
from evproxy.interfaces import Pool
from evproxy.policy.access import Access
from evproxy.service.certificates import Certificates
from evproxy.service.network_files import AccessOfListener
from evproxy.session.admission import Admission
from evproxy.session.entry import Entry, EntryLimits, limits_of
from evproxy.session.factory import ProxyFactory
from evproxy.session.postgres import CancelKeys, PostgresRouter
from evproxy.session.refusals import Refusals
from evproxy.session.routes import ByName, Routes, function_named
from evproxy.settings import ListenerSettings, Timeouts
from evproxy.sockets.makers import EngineSockets
from evproxy.sockets.plane import DataPlane
from evproxy.sockets.tls_server import ServerTLS


@frozen
class Guard:
    """What decides who gets a session of one listener, and keeps its lists up to date."""

    entry: Entry
    files: AccessOfListener
    refusals: Refusals

    def start(self) -> None:
        """Watch the files with lists of networks."""
        self.files.start()

    def close(self) -> None:
        """Watch the files no more, and report the refusals that are left."""
        self.files.close()
        self.refusals.close()


@frozen
class ListenerParts:
    """
    What a listener is made of.

    `guard` is ``None`` if everyone gets a session.
    """

    settings: ListenerSettings
    factory: ProxyFactory
    guard: Guard | None

    def start(self) -> None:
        """Watch the files of the listener."""
        if self.guard is not None:
            self.guard.start()

    def close(self) -> None:
        """Watch the files no more; no timer is left."""
        if self.guard is not None:
            self.guard.close()


class PartsMaker:
    """
    Makes the parts of listeners.

    :param reactor: Twisted's.
    :param hub: calls the observers.
    :param admission: counts the sessions of all listeners.
    :param plane: makes sockets and joins them.
    :param pools: the pools by name.
    :param certificates: keeps the certificates up to date.
    """

    def __init__(
        self,
        reactor: Any,
        hub: Hub,
        admission: Admission,
        plane: DataPlane,
        pools: Mapping[str, Pool],
        certificates: Certificates,
    ) -> None:
        self._reactor = reactor
        self._hub = hub
        self._admission = admission
        self._plane = plane
        self._pools = pools
        self._certificates = certificates
        self._cancel_keys = CancelKeys()

    def make(self, listener: ListenerSettings, timeouts: Timeouts) -> ListenerParts:
        """
        Make the parts of `listener`.  Reads files.

        :raises SettingsError: if a setting is wrong, or a file cannot be used.
        """
        guard = self._guard(listener)
        factory = ProxyFactory(
            self._router(listener),
            reactor=self._reactor,
            listener=name_of(listener),
            timeouts=timeouts,
            accept_proxy_protocol_from=listener.accept_proxy_protocol_from,
            tls=self._tls(listener),
            tls_by_router=bool(listener.preread),
            inside_tls=listener.inside_tls,
            admission=self._admission,
            plane=self._plane,
            hub=self._hub,
            entry=None if guard is None else guard.entry,
        )
        return ListenerParts(listener, factory, guard)

    def _tls(self, listener: ListenerSettings) -> ServerTLS | None:
        if listener.tls is None:
            return None
        if not isinstance(self._plane.sockets, EngineSockets):
            raise SettingsError("tls: it needs epoll, which this system has not")
        tls = listener.tls
        if listener.preread and not tls.alpn:
            # Clients that begin with TLS at once require it (PostgreSQL manual, "SSL Session
            # Encryption").
            tls = evolve(tls, alpn=("postgresql",))
        return self._certificates.add(name_of(listener), tls)

    def _guard(self, listener: ListenerSettings) -> Guard | None:
        limits = limits_of(listener)
        lists = (listener.allow, listener.deny, listener.allow_files, listener.deny_files)
        if limits == EntryLimits() and not any(lists):
            return None
        refusals = Refusals(self._reactor, name_of(listener), self._hub)
        entry = Entry(self._reactor, Access(), limits, refusals)

        def changed(access: Access) -> None:
            entry.access = access

        files = AccessOfListener(self._reactor, listener, changed)
        entry.access = files.access()
        return Guard(entry, files, refusals)

    def _router(self, listener: ListenerSettings) -> Any:
        """What chooses the pool of a session of `listener`, or its only pool."""
        router = self._declared(listener)
        return PostgresRouter(router, self._cancel_keys) if listener.preread else router

    def _declared(self, listener: ListenerSettings) -> Any:
        if listener.route:
            return ByName(function_named(listener.route), self._pools)
        if listener.routes:
            return Routes(listener.routes, self._pools, self._pools[listener.pool])
        return self._pools[listener.pool]


def name_of(listener: ListenerSettings) -> str:
    """The name of `listener` in logs."""
    return listener.name or listener.listen
