"""
Applies the plan of a reload, within one turn of the reactor.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError

from evproxy.config.changes import Changes
from evproxy.config.document import ConfigErrors
from evproxy.errors import EvproxyError
from evproxy.service.composition import Composition
from evproxy.service.listener import Listener, cannot_listen
from evproxy.service.listener_parts import ListenerParts
from evproxy.service.reload_plan import Plan, PlannedListener
from evproxy.service.used_pools import UsedPools
from evproxy.session.entry import Entry
from evproxy.session.factory import ProxyFactory
from evproxy.sockets.handed import Place, place_of
from evproxy.sockets.ports import PlainPort


class Application:
    """
    Applies one plan.

    `closing` are Deferreds that fire when what the reload has replaced is closed.

    :param composition: changes.
    :param pools: its pools.
    """

    def __init__(self, composition: Composition, pools: UsedPools, plan: Plan) -> None:
        self._composition = composition
        self._pools = pools
        self._plan = plan
        self.closing: list[Deferred[Any]] = []

    def apply(self, listening: bool, running: bool) -> Changes:
        """
        Apply the plan.

        :param listening: whether new listeners have to be bound.
        :param running: whether the files of listeners are watched.
        :raises SettingsError: if a listener cannot be bound, or a server that has joined meanwhile
            cannot be connected to as the plan says; then nothing has changed.
        """
        plan, composition = self._plan, self._composition
        for pool in plan.added:
            self._pools.add(pool)
        parts: list[ListenerParts] = []
        listeners: list[Listener] = []
        try:
            for pool, prepared in plan.reloaded:
                pool.complete(prepared)
            for planned in plan.listeners:
                parts.append(self._parts(planned))
                listeners.append(self._listener(planned, parts[-1]))
            self._bind(listeners if listening else [])
        except BaseException as error:
            self._give_up(parts)
            if isinstance(error, EvproxyError):
                raise
            if isinstance(error, CannotListenError):
                raise ConfigErrors([f"listeners: {cannot_listen(error)}"]) from None
            raise
        for pool, prepared in plan.reloaded:
            pool.reload(prepared)
        self._pools.start_added()
        for planned, made, listener in zip(plan.listeners, parts, listeners, strict=True):
            self._renew(planned, made, listener, running)
        gone = [(composition.parts[place], composition.listeners[place]) for place in plan.gone]
        kept = {id(listener) for listener in listeners}
        for listener in composition.listeners:
            if id(listener) not in kept:
                self.closing.append(listener.close())
        composition.use(parts, listeners)
        for made, _ in gone:
            self._retire(made)
        for name in plan.removed:
            composition.retiring.add(self._pools.retire(name))
        self._replace_log(listening)
        most_sessions = composition.most_sessions(plan.settings)
        if most_sessions != composition.most_sessions(composition.settings):
            composition.admission.change_limit(most_sessions)
        composition.settings = plan.settings
        return plan.changes

    def _running(self, planned: PlannedListener) -> ListenerParts | None:
        return None if planned.before is None else self._composition.parts[planned.before]

    def _is_same(self, planned: PlannedListener) -> bool:
        before = self._running(planned)
        same_timeouts = self._plan.settings.timeouts == self._composition.settings.timeouts
        return before is not None and before.settings == planned.settings and same_timeouts

    def _parts(self, planned: PlannedListener) -> ListenerParts:
        before = self._running(planned)
        if before is not None and self._is_same(planned):
            return before
        maker, timeouts = self._composition.maker, self._plan.settings.timeouts
        return maker.make(planned.settings, timeouts, planned.files, before)

    def _listener(self, planned: PlannedListener, parts: ListenerParts) -> Listener:
        if planned.endpoint is not None:
            return Listener(planned.settings.listen, planned.endpoint, parts.factory)
        assert planned.before is not None
        return self._composition.listeners[planned.before]

    def _bind(self, listeners: list[Listener]) -> None:
        """Bind those of `listeners` that are new, all of them or none."""
        composition = self._composition
        handed = composition.plane.listening.handed
        kept = {id(listener) for listener in listeners}
        offered: list[tuple[PlainPort, Place]] = []
        for listener in composition.listeners:
            port: Any = listener.port
            if listeners and id(listener) not in kept and isinstance(port, PlainPort):
                place = place_of(port.socket)
                offered.append((port, place))
                if port.borrowed:
                    handed.offer_at(place, os.dup(port.socket.fileno()))
                else:
                    handed.offer([os.dup(port.socket.fileno())])
        running = {id(listener) for listener in composition.listeners}
        bound: list[Listener] = []
        try:
            for listener in listeners:
                if id(listener) not in running:
                    bound.append(listener)
                    listener.bind()
        except BaseException:
            for listener in bound:
                made: Any = listener.port
                if isinstance(made, PlainPort):
                    places = [place for _, place in offered]
                    made.handed_over |= place_of(made.socket) in places
                self.closing.append(listener.close())
            raise
        else:
            for port, place in offered:
                # A socket that nobody has taken listens no longer, also if systemd stores it.
                port.handed_over = port.borrowed or not handed.has(place)
        finally:
            handed.close()

    def _give_up(self, parts: list[ListenerParts]) -> None:
        """The plan is not applied: forget what was made for it."""
        running = {id(each.tls) for each in self._composition.parts}
        for made in parts:
            if made.tls is not None and id(made.tls) not in running:
                self._composition.certificates.forget(made.tls)
        for pool in self._plan.added:
            self._pools.discard(pool)
        self._plan.discard()

    def _renew(
        self, planned: PlannedListener, made: ListenerParts, listener: Listener, running: bool
    ) -> None:
        """The listener serves new clients as `made` from now on."""
        certificates, files = self._composition.certificates, planned.files
        before = self._running(planned)
        if made.tls is not None and files.certificates is not None:
            certificates.renew(made.tls, made.name, files.certificates)
        if made is before:
            if made.guard is not None:
                made.guard.files.renew(files.networks, files.access)
            return
        if before is not None:
            before.stop()
            if before.tls is not None and before.tls is not made.tls:
                certificates.forget(before.tls)
            if before.guard is not None and made.guard is None:
                self._composition.retiring.add(before.close)
            if before.guard is None and made.guard is not None:
                assert planned.before is not None
                serving = self._composition.listeners[planned.before]
                self._count_sessions(serving.factory, made.guard.entry)
        made.apply()
        if running:
            made.start()
        if listener.factory is not made.factory:
            listener.factory.renew(made.factory)

    def _count_sessions(self, factory: ProxyFactory, entry: Entry) -> None:
        """The sessions of now count for the first limits of their listener."""
        for session in self._composition.admission.sessions:
            half: Any = session.downstream
            if half.proxy is factory:
                session.admitted = entry.count(session.info.peer_host)

    def _retire(self, parts: ListenerParts) -> None:
        parts.stop()
        if parts.tls is not None:
            self._composition.certificates.forget(parts.tls)
        self._composition.retiring.add(parts.close)

    def _replace_log(self, listening: bool) -> None:
        plan = self._plan
        if plan.log_changes:
            if plan.log is not None and listening:
                plan.log.open()
            before = self._composition.log_to(plan.log, plan.settings.access_log)
            if before is not None:
                self.closing.append(before.close())
