"""
A proxy in front of one server, for tests that run in the reactor.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from evproxy.config.canonical import host_and_port
from evproxy.config.declare import check_value
from evproxy.config.rules import MOST_SESSIONS, Seconds, Whole
from evproxy.faults import Faults, reset
from evproxy.faults.faults import Predicate
from evproxy.records import SessionStatus
from evproxy.settings.fault import FaultSettings
from evproxy.testing.controls import Controlled, Controls
from evproxy.testing.one_server import OneServerProxy
from evproxy.testing.seen import Seen, SeenSession

TIMEOUT = 5.0
"""Seconds that a test waits for a condition, unless it says otherwise."""

T = TypeVar("T")


class FaultyProxy(Controls):
    """
    A TCP proxy in front of one server, whose faults change at run time.

    :param reactor: Twisted's.
    :param upstream: ``HOST:PORT``, or any Twisted client endpoint description.
    :param host: the IP address to listen on.
    :param port: the port to listen on; 0: any free one.
    :param seed: see `evproxy.faults.Faults`.
    :raises SettingsError: if `upstream` is no address.
    :raises CannotListenError: if the address cannot be bound.

    `host` and `port` are where clients connect.  `faults` has the faults.
    """

    def __init__(
        self,
        reactor: Any,
        upstream: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        seed: int | None = None,
    ) -> None:
        self._reactor = reactor
        self.upstream = upstream
        self.faults = Faults(reactor, seed=seed, name=f"a proxy for {upstream}")
        self._seen = Seen(self._happened)
        self._waiting: list[tuple[Callable[[], object], Deferred[None]]] = []
        self._numbers = count(1)
        self._keys: dict[str, object] = {}
        self._proxy = OneServerProxy(
            reactor,
            upstream,
            host,
            port,
            self.faults,
            stages=[self._seen],
            observers=[self._seen],
        )
        self._shut: dict[object, str] = {}
        # By the name of the fault: for how many sessions it is, and those that it has.
        self._resets: dict[str, tuple[int, set[int]]] = {}
        self._door = self._proxy.door
        self.host, self.port = host, self._door.port

    @property
    def address(self) -> str:
        """Where clients connect, as ``HOST:PORT``."""
        return host_and_port(self.host, self.port)

    @property
    def sessions(self) -> list[SeenSession]:
        """The sessions that have got the server, the oldest first; the last 1000."""
        return list(self._seen.sessions)

    def until(self, condition: Callable[[], object], timeout: float = TIMEOUT) -> Deferred[None]:
        """
        Return a Deferred that fires once `condition` returns something true.

        `condition` is called now, and whenever bytes pass, or a session begins or ends.

        :param timeout: seconds, after which the Deferred fails with `TimeoutError`.  If `condition`
            raises an exception, the Deferred fails with that.
        :raises SettingsError: if `timeout` is not a number of seconds.
        """
        check_value(Seconds(0), timeout, ("timeout",))
        deferred: Deferred[None] = Deferred(lambda _: self._forget(deferred))
        self._waiting.append((condition, deferred))
        deferred.addTimeout(timeout, self._reactor, self._too_late)
        self._happened()
        return deferred

    def until_sessions(self, count: int, timeout: float = TIMEOUT) -> Deferred[list[SeenSession]]:
        """Return a Deferred that fires with `sessions` once there were `count` of them."""
        enough = self.until(lambda: self._seen.count >= count, timeout)
        return enough.addCallback(lambda _: self.sessions)

    def stop(self) -> Deferred[None]:
        """Reset all sessions and stop; the Deferred fires when nothing is left."""
        return self._proxy.stop().addCallback(lambda _: self._stopped())

    def _stopped(self) -> None:
        waiting, self._waiting = self._waiting, []
        for _, deferred in waiting:
            deferred.cancel()

    def _do(self, action: Callable[[Controlled], T]) -> T:
        return action(self)

    # See `Controlled`.

    def add(self, key: object, fault: FaultSettings, where: Predicate | None) -> None:
        """
        Inject `fault`; without a name it may be one of several of its kind.

        :param key: what `remove` gets later.
        """
        if not fault.name and fault.called in self.faults.current:
            fault = evolve(fault, name=f"{fault.called}_{next(self._numbers)}")
        self._keys[self.faults.add(fault, where=where)] = key

    def remove(self, key: object) -> None:
        """Remove what was injected with `key`, if it is still there; its name may be another's."""
        for name in [name for name, of_name in self._keys.items() if of_name is key]:
            del self._keys[name]
            if name in self.faults.current:
                self.faults.remove(name)

    def inject_reset_next(self, count: int, bytes: int) -> None:
        """See `Controls.reset_next`."""
        check_value(Whole(0, MOST_SESSIONS), count, ("count",))
        running = self._seen.running.copy()
        chosen: set[int] = set()
        self._drop_used_resets()

        def where(status: SessionStatus) -> bool:
            taken = any(status.id in others for _, others in self._resets.values())
            if len(chosen) < count and not taken and status.id not in running:
                chosen.add(status.id)
            return status.id in chosen

        name = f"reset_next_{next(self._numbers)}"
        self._resets[name] = count, chosen
        self.faults.add(reset(bytes, name=name), where=where)

    def _drop_used_resets(self) -> None:
        """Remove the faults of `inject_reset_next` whose sessions are over."""
        for name, (most, chosen) in tuple(self._resets.items()):
            used = len(chosen) >= most and not chosen & self._seen.running
            if used and name in self.faults.current:
                self.faults.remove(name)
            if name not in self.faults.current:
                del self._resets[name]

    def close_door(self, key: object, how: str, reset: bool) -> Deferred[None]:
        """
        Refuse connections, or let them ``hang``; `reset`: reset the running sessions.

        :param key: what `open_door` gets later.
        """
        self._shut[key] = how
        closed = self._shut_door(how)
        if reset:
            self.faults.reset_sessions()
        return closed

    def open_door(self, key: object | None = None) -> Deferred[None]:
        """
        Accept connections, unless others keep the door closed.

        :param key: of `close_door`; ``None``: of all.
        """
        if key is None:
            self._shut.clear()
        self._shut.pop(key, None)
        if self._shut:
            return self._shut_door(next(reversed(self._shut.values())))
        return self._door.listen()

    def _shut_door(self, how: str) -> Deferred[None]:
        return self._door.hang() if how == "hang" else self._door.refuse()

    def _happened(self) -> None:
        for condition, deferred in tuple(self._waiting):
            if deferred.called:
                continue
            try:
                holds = condition()
            except Exception:
                # It is the test's, and must not end a session.
                self._forget(deferred)
                deferred.errback(Failure())
                continue
            if holds:
                self._forget(deferred)
                deferred.callback(None)

    def _forget(self, deferred: Deferred[None]) -> None:
        self._waiting = [each for each in self._waiting if each[1] is not deferred]

    def _too_late(self, result: Any, timeout: float) -> Any:
        seen = ", ".join(map(repr, self.sessions)) or "there was no session"
        raise TimeoutError(f"the condition does not hold after {timeout:g} s: {seen}")
