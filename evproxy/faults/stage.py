"""
The stage that injects faults into one session.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random

from twisted.internet.interfaces import IReactorTime

from evproxy.faults.chain import Chain
from evproxy.faults.link import Link, Surroundings
from evproxy.faults.links import LINKS
from evproxy.model import Side
from evproxy.records import SessionStatus
from evproxy.relay.stages import Outlet
from evproxy.settings.fault import FaultSettings

ROOM = 1024 * 1024
"""The most bytes of one stream of a session that its faults hold, before the source is not read."""

SIDES = {"upstream": Side.DOWNSTREAM, "downstream": Side.UPSTREAM}
"""The side from which the bytes of each stream come."""


class FaultStage:
    """
    A `Stage` whose faults can change while the session runs.

    :param clock: tells the time, and calls later.
    :param status: what is known of the session.
    :param seed: with it, the session's draws are the same again.
    :param faults: the faults that apply to the session, by their names.
    :param over: is called when the session is over.
    """

    room = ROOM

    def __init__(
        self,
        clock: IReactorTime,
        status: SessionStatus,
        seed: str,
        faults: Sequence[tuple[str, FaultSettings]],
        over: Callable[[FaultStage], None],
    ) -> None:
        self.status = status
        self._clock = clock
        self._seed = seed
        self._first = faults
        self._over = over
        self._chains: dict[Side, Chain] = {}

    # From the relay.

    def start(self, upload: Outlet, download: Outlet) -> None:
        self._chains = {Side.DOWNSTREAM: Chain(upload), Side.UPSTREAM: Chain(download)}
        for name, fault in self._first:
            self.add(name, fault)

    def upload(self, data: bytes) -> None:
        self._chains[Side.DOWNSTREAM].first.feed(data)

    def download(self, data: bytes) -> None:
        self._chains[Side.UPSTREAM].first.feed(data)

    def held(self, side: Side) -> int:
        chain = self._chains.get(side)
        return 0 if chain is None else chain.held

    def ended(self, side: Side) -> None:
        self._chains[side].first.end()

    def flush(self, side: Side) -> None:
        chain = self._chains.get(side)
        if chain is not None:
            chain.flush()

    def hides(self, side: Side) -> bool:
        chain = self._chains.get(side)
        return chain is not None and chain.hides()

    def closed(self) -> None:
        chains, self._chains = self._chains, {}
        for chain in chains.values():
            chain.close()
        self._over(self)

    # From those who inject faults.

    def add(self, name: str, fault: FaultSettings) -> None:
        """Inject `fault`, behind those that there are."""
        for side, chain in self._chains_of(fault):
            link = self._link(name, fault, side, chain)
            if link is not None:
                chain.add(name, link)

    def replace(self, name: str, fault: FaultSettings) -> None:
        """Inject `fault` in the place of the fault `name`, which goes from all streams."""
        of_fault = self._chains_of(fault)
        for side, chain in tuple(self._chains.items()):
            if (side, chain) not in of_fault:
                chain.remove(name)
        for side, chain in of_fault:
            link = self._link(name, fault, side, chain)
            if link is None:
                chain.remove(name)
            else:
                chain.replace(name, link)

    def remove(self, name: str) -> None:
        """Remove the fault `name`; what it holds goes on."""
        for chain in tuple(self._chains.values()):
            chain.remove(name)

    def end_session(self, reset: bool) -> None:
        """End both connections, once the client has what was passed on to it."""
        chain = self._chains.get(Side.UPSTREAM)
        if chain is not None:
            chain.end_session(reset)

    def _chains_of(self, fault: FaultSettings) -> list[tuple[Side, Chain]]:
        sides = SIDES.values() if fault.stream == "both" else (SIDES[fault.stream],)
        return [(side, self._chains[side]) for side in sides if side in self._chains]

    def _link(self, name: str, fault: FaultSettings, side: Side, chain: Chain) -> Link | None:
        """The link of `fault`; ``None`` if chance has it that the stream goes without."""
        # Each link has its own source of chance: in which order streams move, nobody knows.
        random = Random(f"{self._seed}/{name}/{side.value}")
        if random.random() >= fault.probability:
            return None
        other = Side.UPSTREAM if side is Side.DOWNSTREAM else Side.DOWNSTREAM
        answer = partial(self._answer, other)
        around = Surroundings(self._clock, random, answer, chain.begun, chain.freed)
        return LINKS[fault.kind](fault, around)

    def _answer(self, side: Side, data: bytes) -> None:
        chain = self._chains.get(side)
        if chain is not None:
            chain.answer(data)
