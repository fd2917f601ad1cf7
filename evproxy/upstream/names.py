"""
A cache of host names and their addresses: for sessions, for health checks, for etcd.

An answer is used for `LIFETIME`.  After that, the next caller still gets the known addresses,
and a new look-up starts.  If the new look-up fails, the known addresses stay in use.  There is
at most one look-up of a name at a time.

A look-up asks the resolver that the reactor would ask: the resolver that is installed on the
reactor, or else ``getaddrinfo``, which uses ``/etc/hosts``, search domains and NSS.
``getaddrinfo`` runs in evproxy's own threads.  In the reactor's thread pool, a name server that
does not answer would block every other user of that pool.  Neither resolver gives the time to
live of an answer.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from attrs import define, field

# Twisted's default resolver, for which there is no public name.
from twisted.internet._resolver import GAIResolver
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from evproxy.config.canonical import canonical_address
from evproxy.engine.threads import Call, NoThread, Threads
from evproxy.errors import ConnectTimeout, LocalShortage
from evproxy.policy.shortages import no_look_up

LIFETIME = 30.0
"""Seconds for which an answer is used before a new look-up."""

FAILED_LIFETIME = 1.0
"""Seconds for which health checks do not look up a name again that has no address."""

MOST = 10_000
"""The most names in the cache; a new name replaces the oldest one."""

MOST_THREADS = 16
"""The most look-ups by ``getaddrinfo`` at a time."""

KEPT_THREADS = 4
"""How many of these threads are reserved for names that sessions wait for."""

HELD_UP = 0.05
"""Seconds: if a look-up waited longer than this for a thread, it did not have its full time."""

MOST_PORTS = 64
"""The most ports of one name for which the cache keeps the address that answered last."""

_log = Logger()


class LookUps(Protocol):
    """Resolves host names for a connect, and says which address to try first."""

    def known(self, name: str) -> tuple[str, ...]:
        """The cached addresses of `name`, perhaps none.  Starts a look-up if they are old."""

    def resolve(self, name: str, timeout: float | None) -> Deferred[tuple[str, ...]]:
        """
        Look up the addresses of `name`; the result has at least one.

        :param timeout: the seconds that the connect may take; ``None``: the caller has its own
            timeout, and may stop waiting without cancelling.

        Fails with `ConnectTimeout` if there is no answer in time, with `LocalShortage` if the
        cause is a missing thread, and with `DNSLookupError` or `OSError` if there is no address.
        Cancelling affects only this caller.
        """

    def held_up(self, name: str, seconds: float) -> LocalShortage | None:
        """
        Why a look-up of `name` is not complete after a caller has waited for `seconds`.

        ``None`` if the cause is not that the look-ups of other names delay it.
        """

    def time_left(self, timeout: float, began: float) -> float:
        """The rest, in seconds, of the `timeout` of a connect whose look-up is complete."""

    def in_order(self, name: str, port: int, addresses: tuple[str, ...]) -> list[str]:
        """The `addresses` of `name`, first the one that last answered at `port`."""

    def answered_at(self, name: str, port: int, address: str) -> None:
        """A connect to `address` of `name`, at `port`, succeeded."""


@define
class _Name:
    """The cache entry of one name."""

    addresses: tuple[str, ...] = ()
    expires: float = 0.0
    asking: bool = False
    began: float | None = None
    """When the look-up under way began; ``None`` while it waits for a thread."""
    call: Call[tuple[str, ...]] | None = None
    waiting: list[Deferred[tuple[str, ...]]] = field(factory=list)
    answered: dict[int, str] = field(factory=dict)
    """For each port, the address of the last successful connect."""

    def forget(self, deferred: Deferred[tuple[str, ...]]) -> None:
        """A waiting caller has cancelled `deferred`."""
        if deferred in self.waiting:
            self.waiting.remove(deferred)

    def fire(self, error: BaseException) -> None:
        """Give each waiting caller the known addresses, or `error` if there are none."""
        waiting, self.waiting = self.waiting, []
        for deferred in waiting:
            if deferred.called:
                # The callback of another caller has cancelled this one.
                continue
            if self.addresses:
                deferred.callback(self.addresses)
            else:
                deferred.errback(error)


@implementer(IResolutionReceiver)
class _Answer:
    """Collects the addresses of one look-up of an installed resolver."""

    def __init__(self, done: Callable[[tuple[str, ...]], None]) -> None:
        self._done = done
        self._addresses: list[str] = []

    def resolutionBegan(self, resolution: IHostResolution) -> None:
        """Nothing to do."""

    def addressResolved(self, address: IAddress) -> None:
        if isinstance(address, IPv4Address | IPv6Address):
            self._addresses.append(canonical_address(address.host))

    def resolutionComplete(self) -> None:
        self._done(tuple(self._addresses))


def addresses_of(name: str) -> tuple[str, ...]:
    """
    The answer of ``getaddrinfo`` for `name`; empty if there is no such name, or no answer.

    :raises OSError: for other errors, such as no free descriptor.

    Blocks: call this in threads only.
    """
    try:
        found = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)
    except UnicodeError:
        return ()
    except socket.gaierror:
        # Without a descriptor, glibc says that there is no such name.
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
        return ()
    addresses = (_with_zone(*each[4]) for each in found if each[0] in _FAMILIES)
    return tuple(map(canonical_address, addresses))


_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def _with_zone(host: Any, port: Any, flow: int = 0, zone: int = 0) -> str:
    return f"{host}%{zone}" if zone and "%" not in host else str(host)


class Names:
    """
    The host names that the pools of one service share.

    These are the `LookUps` of sessions: a session whose name has no known address starts a
    look-up, which goes before all refreshes, and the connect timeout includes the look-up.

    :param reactor: has the resolver (``nameResolver``), the time, the timers and the threads.
    :param lifetime: seconds for which an answer is used.
    :param look_up: called in threads, in place of Twisted's resolver that uses threads.
    """

    def __init__(
        self,
        reactor: Any,
        lifetime: float = LIFETIME,
        look_up: Callable[[str], tuple[str, ...]] = addresses_of,
    ) -> None:
        self._reactor = reactor
        self._lifetime = lifetime
        self._look_up = look_up
        self._threads = Threads(reactor, "evproxy look-up", MOST_THREADS, KEPT_THREADS)
        self._names: dict[str, _Name] = {}

    def known(self, name: str) -> tuple[str, ...]:
        """See `LookUps`."""
        entry = self._names.get(name)
        if entry is None or not entry.addresses:
            return ()
        if entry.expires <= self._reactor.seconds():
            self._ask(name, entry, first=False)
        return entry.addresses

    def resolve(self, name: str, timeout: float | None) -> Deferred[tuple[str, ...]]:
        """See `LookUps`."""
        return self._wait(name, timeout, first=True)

    def resolve_again(self, name: str, timeout: float) -> Deferred[tuple[str, ...]]:
        """
        As `resolve`, for periodic callers: their look-ups come after those of sessions.

        Fails at once if the last look-up failed less than `FAILED_LIFETIME` ago.
        """
        entry = self._names.get(name)
        if (
            entry is not None
            and not entry.asking
            and not entry.addresses
            and entry.expires > self._reactor.seconds()
        ):
            return fail(_no_address(name))
        return self._wait(name, timeout, first=False)

    def time_left(self, timeout: float, began: float) -> float:
        """See `LookUps`."""
        now: float = self._reactor.seconds()
        return max(0.0, began + timeout - now)

    def in_order(self, name: str, port: int, addresses: tuple[str, ...]) -> list[str]:
        """See `LookUps`."""
        entry = self._names.get(name)
        first = "" if entry is None else entry.answered.get(port, "")
        return sorted(addresses, key=first.__ne__)

    def answered_at(self, name: str, port: int, address: str) -> None:
        """See `LookUps`."""
        entry = self._names.get(name)
        if entry is None:
            return
        if len(entry.answered) >= MOST_PORTS:
            entry.answered.clear()
        entry.answered[port] = address

    def held_up(self, name: str, seconds: float) -> LocalShortage | None:
        """See `LookUps`."""
        entry = self._names.get(name)
        if entry is None or not entry.asking:
            return None
        now: float = self._reactor.seconds()
        began = now if entry.began is None else entry.began
        if began - (now - seconds) <= HELD_UP:
            return None
        return LocalShortage(no_look_up("every thread for look-ups waits for a name server"))

    def stop(self) -> None:
        """Fail all waiting callers, and drop the look-ups that have not started."""
        # A callback may resolve another name, so this iterates over a copy.
        for name, entry in list(self._names.items()):
            if entry.call is not None:
                entry.call.result.cancel()
            else:
                entry.fire(_no_address(name))

    def _wait(self, name: str, timeout: float | None, first: bool) -> Deferred[tuple[str, ...]]:
        entry = self._names.get(name)
        if entry is None:
            entry = self._remember(name)
        deferred: Deferred[tuple[str, ...]] = Deferred(entry.forget)
        entry.waiting.append(deferred)
        if timeout is not None:
            deferred.addTimeout(timeout, self._reactor, partial(self._too_late, name))
        self._ask(name, entry, first)
        return deferred

    def _remember(self, name: str) -> _Name:
        if len(self._names) >= MOST:
            first = next((each for each in self._names if not self._names[each].asking), None)
            if first is not None:
                del self._names[first]
        entry = self._names[name] = _Name()
        return entry

    def _ask(self, name: str, entry: _Name, first: bool) -> None:
        if entry.asking:
            if first and entry.call is not None:
                entry.call.hurry()
            return
        entry.asking = True
        entry.began = None
        resolver = self._reactor.nameResolver
        if type(resolver) is GAIResolver:
            call = entry.call = self._threads.call(partial(self._begin, name, entry), first)
            call.result.addCallback(partial(self._answered, name, entry))
            call.result.addErrback(partial(self._failed, name, entry))
            return
        entry.began = self._reactor.seconds()
        answer = _Answer(partial(self._answered, name, entry))
        try:
            resolver.resolveHostName(answer, name, 0, (IPv4Address, IPv6Address))
        except Exception:
            # A resolver that the application has installed may raise any exception.
            self._failed(name, entry, Failure())

    def _begin(self, name: str, entry: _Name) -> tuple[str, ...]:
        """Look `name` up.  In a thread."""
        entry.began = self._reactor.seconds()
        return self._look_up(name)

    def _too_late(self, name: str, result: object, seconds: float) -> object:
        """Handle the timeout of a waiting caller: the error says what was not complete."""
        raise self.held_up(name, seconds) or ConnectTimeout(
            f"{name!r} was not resolved within {seconds:g} s"
        )

    def _answered(self, name: str, entry: _Name, addresses: tuple[str, ...]) -> None:
        """A look-up of `name` gave `addresses`, perhaps none."""
        found = tuple(dict.fromkeys(addresses))
        self._complete(entry, found, _no_address(name))

    def _failed(self, name: str, entry: _Name, failure: Failure) -> None:
        """A look-up of `name` failed."""
        error: BaseException = failure.value or _no_address(name)
        if isinstance(error, CancelledError):
            error = _no_address(name)
        elif isinstance(error, NoThread):
            error = LocalShortage(no_look_up(str(error)))
        elif not isinstance(error, OSError):
            _log.failure("The look-up of {name} failed", failure=failure, name=name)
        self._complete(entry, (), error)

    def _complete(self, entry: _Name, found: tuple[str, ...], error: BaseException) -> None:
        entry.asking = False
        entry.call = None
        entry.addresses = found or entry.addresses
        lifetime = self._lifetime if entry.addresses else FAILED_LIFETIME
        entry.expires = self._reactor.seconds() + lifetime
        entry.fire(error)


def _no_address(name: str) -> DNSLookupError:
    return DNSLookupError(f"no address found for {name!r}")
