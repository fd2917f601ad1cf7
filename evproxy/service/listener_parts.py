"""
The parts of a listener: the factory of its sessions, and what the factory needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve, frozen

from evproxy.errors import SettingsError
from evproxy.escape import printable
from evproxy.faults.faults import Faults
from evproxy.hub import Hub
from evproxy.interfaces import Pool
from evproxy.mirror.mirrors import Mirrors
from evproxy.observe.metrics.tally import Tally
from evproxy.policy.access import Access
from evproxy.recording.recordings import Recorder, Recordings, check_directory
from evproxy.relay.stages import StagesOfSession
from evproxy.service.certificates import Certificates, Loaded, load
from evproxy.service.network_files import (
    AccessOfListener,
    NetworkFile,
    access_of,
    read_files,
)
from evproxy.session.admission import Admission
from evproxy.session.entry import Entry, EntryLimits, limits_of
from evproxy.session.factory import ProxyFactory
from evproxy.session.postgres import CancelKeys, PostgresRouter
from evproxy.session.refusals import Refusals
from evproxy.session.routes import ByName, Routes, function_named
from evproxy.settings import ListenerSettings, ListenerTLS, Timeouts
from evproxy.sockets.makers import EngineSockets
from evproxy.sockets.plane import DataPlane
from evproxy.sockets.tls_server import ServerTLS
from evproxy.stages.filters import filters_named


@frozen
class ListenerFiles:
    """
    What the files of one listener have.

    `certificates` is ``None`` if there are none, or if they are the same as before.
    """

    certificates: Loaded | None
    networks: Mapping[str, NetworkFile]
    access: Access


@frozen
class Guard:
    """What decides who gets a session of one listener, and keeps its lists up to date."""

    name: str
    limits: EntryLimits
    access: Access
    entry: Entry
    files: AccessOfListener
    refusals: Refusals

    def apply(self) -> None:
        """Decide by these limits and lists from now on."""
        self.entry.limit(self.limits)
        self.entry.access = self.access
        self.refusals.listener = self.name


@frozen
class ListenerParts:
    """
    What a listener is made of.

    `guard` is ``None`` if everyone gets a session, `tls` if evproxy ends no TLS.
    """

    settings: ListenerSettings
    factory: ProxyFactory
    guard: Guard | None
    tls: ServerTLS | None

    @property
    def name(self) -> str:
        """The name of the listener in logs."""
        return name_of(self.settings)

    def apply(self) -> None:
        """Serve clients by these settings from now on."""
        if self.guard is not None:
            self.guard.apply()

    def start(self) -> None:
        """Watch the files with lists of networks."""
        if self.guard is not None:
            self.guard.files.start()

    def stop(self) -> None:
        """Watch the files no more."""
        if self.guard is not None:
            self.guard.files.close()

    def close(self) -> None:
        """Watch the files no more, and report the refusals that are left; no timer is left."""
        self.stop()
        if self.guard is not None:
            self.guard.refusals.close()


class PartsMaker:
    """
    Makes the parts of listeners.

    :param reactor: Twisted's.
    :param hub: calls the observers.
    :param admission: counts the sessions of all listeners.
    :param plane: makes sockets and joins them.
    :param pools: the pools by name.
    :param certificates: keeps the certificates up to date.
    :param tally: counts sessions that have ended, for metrics; ``None``: nothing does.
    :param stages: make stages of the sessions of all listeners.
    :param recordings: records sessions.
    :param mirrors: copies sessions.
    """

    def __init__(
        self,
        reactor: Any,
        hub: Hub,
        admission: Admission,
        plane: DataPlane,
        pools: Mapping[str, Pool],
        certificates: Certificates,
        tally: Tally | None = None,
        stages: Sequence[StagesOfSession] = (),
        *,
        recordings: Recordings,
        mirrors: Mirrors,
    ) -> None:
        self._mirrors = mirrors
        self._stages = stages
        self._recordings = recordings
        self._reactor = reactor
        self._hub = hub
        self._admission = admission
        self._plane = plane
        self._pools = pools
        self._certificates = certificates
        self._tally = tally
        self._cancel_keys = CancelKeys()

    def read(
        self, listener: ListenerSettings, before: ListenerParts | None = None
    ) -> ListenerFiles:
        """
        Read the files of `listener`.  Blocks; may run in a thread.

        :param before: the parts that the listener has; what is known of its files is not read.
        :raises SettingsError: if a file cannot be used.
        """
        if listener.record:
            check_directory(listener.record)
        loaded, tls = None, tls_of(listener)
        if tls is not None:
            if not isinstance(self._plane.sockets, EngineSockets):
                raise SettingsError("tls: it needs epoll, which this system has not")
            known = None if before is None else before.tls
            if known is None or known.settings != tls or not self._certificates.is_current(known):
                loaded = load(tls)
        guard = None if before is None else before.guard
        networks = read_files(listener, None if guard is None else guard.files.files)
        return ListenerFiles(loaded, networks, access_of(listener, networks))

    def make(
        self,
        listener: ListenerSettings,
        timeouts: Timeouts,
        files: ListenerFiles,
        before: ListenerParts | None = None,
    ) -> ListenerParts:
        """
        Make the parts of `listener`.

        :param before: the parts that the listener has: its counts go on, and its TLS if that is
            the same.  They stay as they are until `ListenerParts.apply`.
        :raises SettingsError: if a setting is wrong.
        """
        router = self._router(listener)
        guard = self._guard(listener, files, None if before is None else before.guard)
        tls = self._tls(listener, files, None if before is None else before.tls)
        recorder = self._recorder(listener)
        factory = ProxyFactory(
            router,
            reactor=self._reactor,
            listener=name_of(listener),
            timeouts=timeouts,
            accept_proxy_protocol_from=listener.accept_proxy_protocol_from,
            tls=tls,
            tap=None if recorder is None else recorder.tap,
            tls_by_router=bool(listener.preread),
            inside_tls=listener.inside_tls,
            admission=self._admission,
            plane=self._plane,
            hub=self._hub,
            entry=None if guard is None else guard.entry,
            stages=self._stages_of(listener, recorder),
            mirrors=self._mirrors,
            measure=None
            if self._tally is None
            else self._tally.listener(printable(name_of(listener))).ended,
        )
        return ListenerParts(listener, factory, guard, tls)

    def _stages_of(
        self, listener: ListenerSettings, recorder: Recorder | None
    ) -> list[StagesOfSession]:
        made = list(self._stages)
        if recorder is not None:
            # The first stage: a recording has what the client sent and what the client got.
            made.insert(0, recorder)
        if listener.filters:
            made.append(filters_named(listener.filters))
        if listener.faults:
            seed, name = listener.faults_seed or None, f"listener {name_of(listener)}"
            made.append(Faults(self._reactor, listener.faults, seed=seed, name=name))
        return made

    def _recorder(self, listener: ListenerSettings) -> Recorder | None:
        if not listener.record:
            return None
        return self._recordings.into(
            listener.record,
            listener.record_format,
            listener.record_max_files,
            listener.record_max_bytes,
        )

    def _tls(
        self, listener: ListenerSettings, files: ListenerFiles, before: ServerTLS | None
    ) -> ServerTLS | None:
        tls = tls_of(listener)
        if tls is None:
            return None
        if before is not None and before.settings == tls:
            return before
        return self._certificates.add(name_of(listener), tls, files.certificates)

    def _guard(
        self, listener: ListenerSettings, files: ListenerFiles, before: Guard | None
    ) -> Guard | None:
        limits, name = limits_of(listener), name_of(listener)
        lists = (listener.allow, listener.deny, listener.allow_files, listener.deny_files)
        if limits == EntryLimits() and not any(lists):
            return None
        if before is not None:
            entry, refusals = before.entry, before.refusals
        else:
            refusals = Refusals(self._reactor, name, self._hub)
            entry = Entry(self._reactor, files.access, limits, refusals)

        def changed(access: Access) -> None:
            entry.access = access

        watched = AccessOfListener(self._reactor, listener, changed, files.networks)
        return Guard(name, limits, files.access, entry, watched, refusals)

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


def tls_of(listener: ListenerSettings) -> ListenerTLS | None:
    """The TLS that evproxy ends at `listener`; ``None``: none."""
    tls = listener.tls
    if tls is not None and listener.record and listener.record_format == "pcapng":
        tls = evolve(tls, keeps_keys=True)
    if tls is not None and listener.preread and not tls.alpn:
        # Clients that begin with TLS at once require it (PostgreSQL manual, "SSL Session
        # Encryption").
        return evolve(tls, alpn=("postgresql",))
    return tls


def name_of(listener: ListenerSettings) -> str:
    """The name of `listener` in logs."""
    return listener.name or listener.listen
