"""
What a copy is made for: the session that is copied, and what copies share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from evproxy.mirror.outcome import Outcome
from evproxy.mirror.room import Room
from evproxy.model import ConnectionInfo
from evproxy.records import MirrorRecord
from evproxy.relay.contract import Half
from evproxy.session.connecting import ConnectContext
from evproxy.session.opening import Opening


class BeginningCopy(Protocol):
    """A copy that begins."""

    copied: CopiedSession

    def cut(self, outcome: Outcome, why: str) -> None:
        """End the copy now."""


@frozen(kw_only=True)
class CopyContext:
    """
    What the copies of one listener share.

    `clock`: the time and the timers.  `connects`: what a `Connecting` needs.  `adopt` is called
    with each half that is connected.  `linger`: seconds that a copy has after the end of its
    session.  `room`: for the bytes of all copies.  `begun` is called with each copy that begins,
    and `over` with the record of each one that is over.
    """

    clock: IReactorTime
    connects: ConnectContext
    adopt: Callable[[Half], None]
    linger: float
    room: Room
    begun: Callable[[BeginningCopy], None]
    over: Callable[[MirrorRecord], None]


@frozen(kw_only=True)
class CopiedSession:
    """The facts about the session that is copied; `host` is evproxy's address for its client."""

    id: int
    unique_id: str
    peer: str
    pool: str
    upstream: str
    info: ConnectionInfo
    opening: Opening | None
    host: Any

    def record(self, mirror: str, outcome: Outcome, error: str, **more: Any) -> MirrorRecord:
        """
        The record of the copy for the pool `mirror`.

        :param more: what a copy that was made has done; the other fields of the record.
        """
        return MirrorRecord(
            session=self.id,
            unique_id=self.unique_id,
            listener=self.info.listener,
            peer=self.peer,
            pool=self.pool,
            upstream=self.upstream,
            mirror=mirror,
            outcome=outcome.value,
            error=error,
            **more,
        )
