"""
The faults of a listener: which there are now, and for which sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from secrets import randbits
from typing import Any

from attrs import frozen
from twisted.logger import Logger

from evproxy.errors import SettingsError
from evproxy.faults.connects import HangingConnects, RefusedConnect
from evproxy.faults.schedule import active_for
from evproxy.faults.stage import FaultStage
from evproxy.interfaces import ConnectFault
from evproxy.policy.address_number import address_number
from evproxy.policy.networks import Networks
from evproxy.records import SessionStatus
from evproxy.relay.stages import Stage
from evproxy.settings.fault import CONNECT_KINDS, FaultSettings

MOST_FAULTS = 1000
"""The most faults that one listener has at once."""

_log = Logger()

Predicate = Callable[[SessionStatus], bool]


@frozen
class _Injected:
    """
    A fault, and the sessions that it is for.

    `since`: when it was injected.  `hanging`: the connects that hang because of it.
    """

    fault: FaultSettings
    where: Predicate | None
    networks: Networks | None
    since: float
    hanging: HangingConnects

    @property
    def of_connects(self) -> bool:
        """Whether it is about connects, and not about bytes."""
        return self.fault.kind in CONNECT_KINDS

    def is_for(self, status: SessionStatus) -> bool:
        """Whether all conditions hold for a session."""
        fault = self.fault
        if fault.route and fault.route != status.route:
            return False
        if fault.server and fault.server != status.upstream:
            return False
        if self.networks is not None:
            number = address_number(_host(status.peer))
            if number is None or number not in self.networks:
                return False
        return self.where is None or self.where(status)


def _host(peer: str) -> str:
    host, _, _ = peer.rpartition(":")
    return host.strip("[]")


class Faults:
    """
    Injects faults into sessions, and changes them while sessions run.

    Pass it as one of the `stages` of a `ProxyFactory` or a `ProxyService`.  Its sessions use the
    stream relay, whether there are faults now or not.  What changes applies at once, to running
    sessions, too.

    :param reactor: the time and the timers.
    :param faults: the first faults.
    :param seed: the same seed gives the n-th session the same draws; ``None``: a new one.  The log
        has the seed.
    :param name: whose faults they are, for the log.
    :raises SettingsError: if two faults have the same name, or if there are too many.
    """

    def __init__(
        self,
        reactor: Any,
        faults: Iterable[FaultSettings] = (),
        *,
        seed: int | None = None,
        name: str = "",
    ) -> None:
        self._reactor = reactor
        self.seed = randbits(32) if seed is None else seed
        self._injected: dict[str, _Injected] = {}
        self._stages: set[FaultStage] = set()
        self._count = self._connects = 0
        for fault in faults:
            self.add(fault)
        where = f" of {name}" if name else ""
        _log.info("The faults{where} have the seed {seed}", where=where, seed=self.seed)

    def __call__(self, status: SessionStatus) -> Sequence[Stage]:
        """The stage for the session that `status` describes."""
        self._count += 1
        stage = FaultStage(
            self._reactor,
            status,
            f"{self.seed}/{self._count}",
            [
                (name, each.fault)
                for name, each in self._injected.items()
                if not each.of_connects and each.is_for(status)
            ],
            self._stages.discard,
        )
        self._stages.add(stage)
        return (stage,)

    def of_connect(self, status: SessionStatus) -> ConnectFault | None:
        """See `evproxy.interfaces.ConnectFaults`; the first fault that applies is the one."""
        self._connects += 1
        now = self._reactor.seconds()
        for name, each in self._injected.items():
            fault = each.fault
            seconds = active_for(fault, now - each.since) if each.of_connects else 0.0
            if not seconds or not each.is_for(status):
                continue
            random = Random(f"{self.seed}/connect {self._connects}/{name}")
            if random.random() < fault.probability:
                hangs = fault.kind == "hang"
                return each.hanging.one(seconds) if hangs else RefusedConnect(fault)
        return None

    @property
    def current(self) -> dict[str, FaultSettings]:
        """The faults by their names, in their order."""
        return {name: each.fault for name, each in self._injected.items()}

    def add(self, fault: FaultSettings, *, where: Predicate | None = None) -> str:
        """
        Inject `fault`, behind those that there are.

        :param where: gets the `SessionStatus` of a session, and says whether `fault` is for it.
        :return: the name of the fault.
        :raises SettingsError: if there is a fault of this name, or if there are too many.
        """
        self.add_as(fault.called, fault, where=where)
        return fault.called

    def add_as(self, name: str, fault: FaultSettings, *, where: Predicate | None = None) -> None:
        """Do the same, with any `name`."""
        if name in self._injected:
            raise SettingsError(f"faults: there is already a fault with the name {name!r}")
        if len(self._injected) >= MOST_FAULTS:
            raise SettingsError(f"faults: there are already {MOST_FAULTS}")
        self._injected[name] = injected = self._inject(fault, where)
        for stage in () if injected.of_connects else tuple(self._stages):
            if injected.is_for(stage.status):
                stage.add(name, fault)

    def _inject(self, fault: FaultSettings, where: Predicate | None) -> _Injected:
        networks = Networks([fault.peer]) if fault.peer else None
        now, hanging = self._reactor.seconds(), HangingConnects(self._reactor)
        return _Injected(fault, where, networks, now, hanging)

    def replace(self, name: str, fault: FaultSettings) -> None:
        """
        Put `fault` in the place of the fault `name`, for the same predicate.

        What the old one holds goes on, also in streams that are not those of `fault`.

        :raises LookupError: if there is none.
        :raises SettingsError: if only one of both is about connects.
        """
        before = self._injected[name]
        injected = self._inject(fault, before.where)
        if injected.of_connects != before.of_connects:
            raise SettingsError(f"faults: {name!r} is of kind {before.fault.kind}")
        self._injected[name] = injected
        before.hanging.release()
        for stage in () if injected.of_connects else tuple(self._stages):
            if injected.is_for(stage.status):
                stage.replace(name, fault)
            else:
                stage.remove(name)

    def remove(self, name: str) -> None:
        """
        Remove the fault `name`: what it holds goes on, and so do connects that hang.

        The sessions of a `timeout` end, and so do those in which a `truncate` or a `reset` has
        dropped bytes: a later byte would follow a gap.

        :raises LookupError: if there is none.
        """
        removed = self._injected.pop(name)
        removed.hanging.release()
        for stage in tuple(self._stages):
            stage.remove(name)

    def clear(self) -> None:
        """Remove every fault."""
        for name in tuple(self._injected):
            self.remove(name)

    def reset_sessions(self) -> int:
        """Reset both connections of each running session; return how many sessions there were."""
        return self._end_sessions(reset=True)

    def close_sessions(self) -> int:
        """End both connections of each running session in order; return how many there were."""
        return self._end_sessions(reset=False)

    def _end_sessions(self, reset: bool) -> int:
        stages = tuple(self._stages)
        for stage in stages:
            stage.end_session(reset)
        return len(stages)
