"""
Host names, resolved once and reused: for sessions, for health checks, for etcd.

An answer is reused for `LIFETIME`.  After that the name is asked again while everybody goes
on with the addresses known; an answer that does not come leaves them in use.  A name is
never asked for more than once at a time, however many want it.

Who is asked is what the reactor would ask: a resolver that was installed on it, or else
``getaddrinfo``, so that ``/etc/hosts``, search domains and NSS count.  The latter runs in
threads of evproxy's own and not in the reactor's pool, where a name server that does not
answer would hold up everybody.  Neither tells how long an answer lives.
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

from evproxy.engine.threads import Call, NoThread, Threads
from evproxy.errors import ConnectTimeout

LIFETIME = 30.0
"""Seconds for which an answer is reused before the name is asked again."""

FAILED_LIFETIME = 1.0
"""Seconds for which health checks do not ask again for a name that has no address."""

MOST = 10_000
"""How many names are remembered; the one that was asked for first makes room for another."""

MOST_THREADS = 16
"""Look-ups by ``getaddrinfo`` at once."""

KEPT_THREADS = 4
"""How many of these are only for names that sessions wait for."""

MOST_PORTS = 64
"""Ports of one name of which it is remembered which address answered last."""

_log = Logger()


class LookUps(Protocol):
    """How a connect asks for host names, and which of the addresses to try first."""

    def known(self, name: str) -> tuple[str, ...]:
        """The addresses of `name` if they are known already, else nothing; asks again in time."""

    def resolve(self, name: str, timeout: float | None) -> Deferred[tuple[str, ...]]:
        """
        Ask for the addresses of `name`, at least one.

        :param timeout: seconds that the connect has; ``None``: who asks has a bound of its own,
            and may leave without a cancel.

        Fails with `ConnectTimeout` if there is no answer in time, and with `DNSLookupError` or
        `OSError` if there is no address.  Cancelling affects only the caller.
        """

    def time_left(self, timeout: float, began: float) -> float:
        """Seconds left, once the addresses are known, of the `timeout` of a connect."""

    def in_order(self, name: str, port: int, addresses: tuple[str, ...]) -> list[str]:
        """`addresses` of `name`, first the one that last answered at `port`."""

    def answered_at(self, name: str, port: int, address: str) -> None:
        """A connect to `address` of `name`, at `port`, succeeded."""


@define
class _Name:
    """What is known of one name."""

    addresses: tuple[str, ...] = ()
    expires: float = 0.0
    asking: bool = False
    call: Call[tuple[str, ...]] | None = None
    waiting: list[Deferred[tuple[str, ...]]] = field(factory=list)
    answered: dict[int, str] = field(factory=dict)
    """By port, which address took the last connect."""

    def forget(self, deferred: Deferred[tuple[str, ...]]) -> None:
        """One who waited does not want the answer any more."""
        if deferred in self.waiting:
            self.waiting.remove(deferred)

    def tell(self, error: BaseException) -> None:
        """Whoever waits gets the addresses known, or fails with `error` if there are none."""
        waiting, self.waiting = self.waiting, []
        for deferred in waiting:
            if deferred.called:
                # Cancelled by one of those that were told before.
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
        """Nothing is needed of it."""

    def addressResolved(self, address: IAddress) -> None:
        if isinstance(address, IPv4Address | IPv6Address):
            self._addresses.append(address.host)

    def resolutionComplete(self) -> None:
        self._done(tuple(self._addresses))


def addresses_of(name: str) -> tuple[str, ...]:
    """
    What ``getaddrinfo`` answers for `name`; empty if there is no such name, or no answer.

    `OSError` for other trouble, such as no free descriptor.  Blocks: for threads only.
    """
    try:
        found = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        return ()
    return tuple(_with_zone(*each[4]) for each in found if each[0] in _FAMILIES)


_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def _with_zone(host: Any, port: Any, flow: int = 0, zone: int = 0) -> str:
    return f"{host}%{zone}" if zone and "%" not in host else str(host)


class Names:
    """
    The names that the pools of one service know.

    As `LookUps` it is what sessions need: a name without a known address is asked for anew for
    each, before all refreshes, and the connect timeout bounds the look-up too.

    :param reactor: has the resolver (``nameResolver``), runs threads and tells the time.
    :param lifetime: seconds for which an answer is reused.
    :param look_up: asked in threads, in the place of Twisted's resolver of that kind.
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
        The same for one who comes again and again: the look-up comes after those of sessions.

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

    def stop(self) -> None:
        """Whoever waits is told that there is no address; look-ups in the line are not made."""
        # Those that are told may ask for another name.
        for name, entry in list(self._names.items()):
            if entry.call is not None:
                entry.call.result.cancel()
            else:
                entry.tell(_no_address(name))

    def _wait(self, name: str, timeout: float | None, first: bool) -> Deferred[tuple[str, ...]]:
        entry = self._names.get(name)
        if entry is None:
            entry = self._remember(name)
        deferred: Deferred[tuple[str, ...]] = Deferred(entry.forget)
        entry.waiting.append(deferred)
        if timeout is not None:
            deferred.addTimeout(timeout, self._reactor, partial(_too_late, name))
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
        resolver = self._reactor.nameResolver
        if type(resolver) is GAIResolver:
            call = entry.call = self._threads.call(partial(self._look_up, name), first)
            call.result.addCallback(partial(self._answered, name, entry))
            call.result.addErrback(partial(self._failed, name, entry))
            return
        answer = _Answer(partial(self._answered, name, entry))
        try:
            resolver.resolveHostName(answer, name, 0, (IPv4Address, IPv6Address))
        except Exception:
            # A resolver of the application's may raise what it likes.
            self._failed(name, entry, Failure())

    def _answered(self, name: str, entry: _Name, addresses: tuple[str, ...]) -> None:
        """The answer for `name` has come; empty if there is none."""
        found = tuple(dict.fromkeys(addresses))
        self._over(entry, found, _no_address(name))

    def _failed(self, name: str, entry: _Name, failure: Failure) -> None:
        """There is no answer for `name`, because of `failure`."""
        error: BaseException = failure.value or _no_address(name)
        if isinstance(error, CancelledError):
            error = _no_address(name)
        elif not isinstance(error, OSError | NoThread):
            _log.failure("The look-up of {name} failed", failure=failure, name=name)
        self._over(entry, (), error)

    def _over(self, entry: _Name, found: tuple[str, ...], error: BaseException) -> None:
        entry.asking = False
        entry.call = None
        entry.addresses = found or entry.addresses
        lifetime = self._lifetime if entry.addresses else FAILED_LIFETIME
        entry.expires = self._reactor.seconds() + lifetime
        entry.tell(error)


def _no_address(name: str) -> DNSLookupError:
    return DNSLookupError(f"no address found for {name!r}")


def _too_late(name: str, result: object, seconds: float) -> object:
    """The time of one who waits is over, if it is not over otherwise."""
    if isinstance(result, Failure):
        result.trap(CancelledError)
        raise ConnectTimeout(f"{name!r} was not resolved within {seconds:g} s")
    return result
