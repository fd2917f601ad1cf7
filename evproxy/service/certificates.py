"""
Keeps the certificates of a service current: a changed file takes effect, a broken one does not.

The files are looked at in a thread, and all files of a listener take effect at once.  Connections
that are there keep what they began with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from math import floor
from typing import Any

from attrs import define, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.engine.files import signature_or_error
from evproxy.engine.threads import NoThread, Threads
from evproxy.errors import SettingsError
from evproxy.hub import Hub
from evproxy.settings import ListenerTLS
from evproxy.sockets.tls_certificates import DAY, Certificate, shown_date
from evproxy.sockets.tls_server import ServerContexts, ServerTLS

INTERVAL = 10.0
"""Seconds between two looks at the files."""

WARN_DAYS = 14
"""So many days before a certificate ends, the log says so, once a day."""

MOST_AGE = DAY
"""Seconds after which contexts are made anew in any case: their tickets get another key."""

_log = Logger()


@frozen(kw_only=True)
class CertificateStatus:
    """
    A snapshot of a certificate.

    `path` is its file, and `names` are the hosts that it is for.  `expires` is when it ends, in
    seconds since 1970, and `days_left` are the days until then, negative afterwards.
    """

    path: str
    names: tuple[str, ...]
    expires: float
    days_left: float


@define(eq=False)
class _Kept:
    """The TLS of one listener, and what is known of its files."""

    name: str
    tls: ServerTLS
    signature: tuple[object, ...]
    made: float
    fault: str = ""


@frozen
class Loaded:
    """What the files of one listener have, and their `signature`."""

    signature: tuple[object, ...]
    contexts: ServerContexts


def load(settings: ListenerTLS) -> Loaded:
    """
    Read the files of `settings`.  Blocks.

    :raises SettingsError: if one of them cannot be used; the message begins with the key.
    """
    # Before the files are read: what changes meanwhile is seen the next time.
    signature = _signature(settings)
    try:
        return Loaded(signature, ServerContexts(settings))
    except SettingsError as error:
        raise SettingsError(f"tls: {error}") from None


class Certificates:
    """
    The certificates of the listeners of one service.

    :param reactor: the time, the timers, and the thread's results.
    :param hub: is notified of what changes.
    :param wall_clock: seconds since 1970; `time.time` by default.
    """

    def __init__(self, reactor: Any, hub: Hub, wall_clock: Callable[[], float] = time.time) -> None:
        self._reactor = reactor
        self._hub = hub
        self._wall_clock = wall_clock
        self._threads = Threads(reactor, "evproxy certificates", 1)
        self._kept: list[_Kept] = []
        self._timer: IDelayedCall | None = None
        self._looking: Deferred[Any] | None = None
        self._running = False
        self._warned: dict[str, float] = {}

    def add(self, name: str, settings: ListenerTLS, loaded: Loaded | None = None) -> ServerTLS:
        """
        Keep what `settings` say for the listener `name` current.

        :param loaded: what the files have; ``None``: read them now.
        :raises SettingsError: if one of the files cannot be used.
        """
        if loaded is None:
            loaded = load(settings)
        tls = ServerTLS(loaded.contexts, settings)
        self._kept.append(_Kept(name, tls, loaded.signature, self._wall_clock()))
        if self._running and self._timer is None and self._looking is None:
            self._pause()
        return tls

    def forget(self, tls: ServerTLS) -> None:
        """Do not keep `tls` current any more; connections that have it keep it."""
        self._kept = [kept for kept in self._kept if kept.tls is not tls]

    def is_current(self, tls: ServerTLS) -> bool:
        """Whether the files of `tls` are those that it was made of.  Blocks."""
        return any(
            kept.tls is tls and kept.signature == _signature(tls.settings) and not kept.fault
            for kept in self._kept
        )

    def renew(self, tls: ServerTLS, name: str, loaded: Loaded) -> bool:
        """
        New connections get what was `loaded`; return whether that is something new.

        :param name: the name of the listener from now on.
        """
        for kept in self._kept:
            if kept.tls is tls:
                kept.name = name
                if kept.signature != loaded.signature:
                    self._take(kept, Changed(loaded.signature, loaded.contexts))
                    return True
        return False

    def start(self) -> None:
        """Look at the files from now on."""
        if not self._running:
            self._running = True
            self._warn()
            self._pause()

    def stop(self) -> None:
        """Look no more; no timer is left."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()

    def reload(self) -> None:
        """Read all files now, changed or not."""
        for kept in self._kept:
            kept.signature = ()
        if self._running and self._looking is None:
            self._look()

    def status(self) -> tuple[CertificateStatus, ...]:
        """A snapshot of each certificate."""
        now = self._wall_clock()
        return tuple(
            CertificateStatus(
                path=each.path,
                names=each.names,
                expires=each.expires,
                days_left=each.days_left(now),
            )
            for each in self._certificates()
        )

    def _certificates(self) -> list[Certificate]:
        found = {each.path: each for kept in self._kept for each in kept.tls.contexts.certificates}
        return list(found.values())

    def _pause(self) -> None:
        if self._kept:
            self._timer = self._reactor.callLater(INTERVAL, self._look)

    def _look(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        looked_at = list(self._kept)
        known = [
            (kept.tls.settings, () if self._is_old(kept) else kept.signature) for kept in looked_at
        ]
        self._looking = self._threads.call(partial(read_changed, known)).result
        self._looking.addCallbacks(partial(self._read, looked_at), self._not_read)

    def _is_old(self, kept: _Kept) -> bool:
        return self._wall_clock() - kept.made > MOST_AGE

    def _read(self, looked_at: Sequence[_Kept], found: Sequence[Changed | None]) -> None:
        self._looking = None
        if not self._running:
            return
        for kept, changed in zip(looked_at, found, strict=True):
            if changed is not None and kept in self._kept:
                self._take(kept, changed)
        self._warn()
        self._pause()

    def _take(self, kept: _Kept, changed: Changed) -> None:
        known, kept.signature = kept.signature, changed.signature
        if changed.contexts is not None:
            kept.tls.contexts = changed.contexts
            kept.made = self._wall_clock()
            if kept.fault or known != changed.signature:
                self._hub.certificates_loaded(kept.name)
        elif changed.fault != kept.fault or known == ():
            self._hub.certificates_kept(kept.name, changed.fault)
        kept.fault = changed.fault

    def _not_read(self, failure: Failure) -> None:
        self._looking = None
        if not self._running:
            return
        if failure.check(NoThread) is None:
            _log.failure("The certificates could not be looked at", failure)
        self._pause()

    def _warn(self) -> None:
        now = self._wall_clock()
        for each in self._certificates():
            days = each.days_left(now)
            if days < WARN_DAYS and now - self._warned.get(each.path, -DAY) >= DAY:
                self._warned[each.path] = now
                self._hub.certificate_expires(each.path, shown_date(each.expires), floor(days))


@frozen
class Changed:
    """What became of changed files: `contexts`, or a `fault`."""

    signature: tuple[object, ...]
    contexts: ServerContexts | None
    fault: str = ""


def _signature(settings: ListenerTLS) -> tuple[object, ...]:
    """What differs once one of the files that `settings` name was changed or replaced."""
    return tuple(
        signature_or_error(path)
        for path in (*settings.certificates, *filter(None, (settings.client_ca,)))
    )


def read_changed(
    known: Sequence[tuple[ListenerTLS, tuple[object, ...]]],
) -> list[Changed | None]:
    """
    For each pair of settings and the last signature of their files, what they are now.

    ``None`` if nothing has changed.  Blocks: call it in threads only.
    """
    return [_changed(settings, signature) for settings, signature in known]


def _changed(settings: ListenerTLS, known: tuple[object, ...]) -> Changed | None:
    # Before the files are read: what changes meanwhile is seen the next time.
    signature = _signature(settings)
    if signature == known:
        return None
    try:
        return Changed(signature, ServerContexts(settings))
    except SettingsError as error:
        return Changed(signature, None, str(error))
