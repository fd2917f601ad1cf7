"""
The mirrors of a service: which sessions are copied, and what becomes of their copies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from operator import length_hint
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from evproxy.escape import printable
from evproxy.hub import Hub
from evproxy.interfaces import Pool, Server
from evproxy.mirror.context import BeginningCopy, CopiedSession, CopyContext
from evproxy.mirror.outcome import Outcome
from evproxy.mirror.room import Room
from evproxy.mirror.session_copy import SessionCopy
from evproxy.mirror.stage import MirrorStage
from evproxy.model import CloseReason, ConnectionInfo
from evproxy.policy.sampling import is_sampled
from evproxy.policy.seldom import Seldom
from evproxy.records import MirrorRecord
from evproxy.relay.contract import Half
from evproxy.relay.stages import Stage
from evproxy.session.connecting import ConnectContext
from evproxy.session.live import RESET_BATCH
from evproxy.session.opening import Opening
from evproxy.settings import Mirror
from evproxy.sockets.plane import DataPlane

MOST_WAITING = 64 * 1024 * 1024
"""How many bytes all copies of a service may keep; a copy that needs more is dropped."""

CLOSE_TIMEOUT = 1.0
"""Seconds that copies have after the last session, when the service stops."""

QUIET = 10.0
"""Seconds from a line about the copies of a pool to the next such line."""

KEY = b"evproxy.mirror"
"""The key of the hash.  Proxies with the same key copy the same clients."""

_log = Logger()


class Copyable(Protocol):
    """A session that is connected, as a mirror sees it."""

    id: int
    info: ConnectionInfo
    opening: Opening | None
    server: Server | None
    reason: CloseReason | None
    downstream: Half

    @property
    def unique_id(self) -> str: ...

    @property
    def peer(self) -> str: ...

    @property
    def pool_name(self) -> str: ...


class _Silent:
    """A `TroubleObserver` that does nothing: the record of a copy has its failed connects."""

    def connect_failed(self, upstream: str, error: str) -> None:
        """Do nothing."""

    def accepting_paused(self, why: str) -> None:
        """Do nothing."""

    def accepting_resumed(self) -> None:
        """Do nothing."""


class Mirrors:
    """
    The mirrors of one service or factory.

    :param reactor: the time and the timers.
    :param hub: calls the observers with each copy that is over.
    :param plane: of the sessions; makes the sockets of copies.
    :param pools: those that a `Mirror` may name.
    """

    def __init__(
        self, reactor: Any, hub: Hub, plane: DataPlane, pools: Mapping[str, Pool] | None = None
    ) -> None:
        self._reactor = reactor
        self._hub = hub
        self._plane = plane
        self._pools = {} if pools is None else pools
        self._room = Room(MOST_WAITING)
        self._copies: dict[str, BeginningCopy] = {}
        self._of_pool: Counter[str] = Counter()
        self._lines: dict[tuple[str, str], Seldom] = {}
        self._closed: Deferred[None] | None = None
        self._deadline: IDelayedCall | None = None

    def __len__(self) -> int:
        """How many copies there are."""
        return len(self._copies)

    @property
    def kept(self) -> int:
        """How many bytes all copies keep."""
        return self._room.used

    def stages_of(
        self, mirror: Mirror, session: Copyable, connects: ConnectContext, linger: float
    ) -> Sequence[Stage]:
        """
        Return the stage that copies `session`; none, if it is not copied.

        :param mirror: of the pool of the session.
        :param connects: what the listener's sessions need to connect.
        :param linger: seconds that the copy has after the end of the session.
        """
        try:
            return self._stages_of(mirror, session, connects, linger)
        except Exception:
            _log.failure("Could not copy session {id}", id=session.id)
            return ()

    def _stages_of(
        self, mirror: Mirror, session: Copyable, connects: ConnectContext, linger: float
    ) -> Sequence[Stage]:
        name = session.unique_id if mirror.hash == "session" else session.info.peer_host
        if not is_sampled(name, mirror.fraction, KEY):
            return ()
        server = session.server
        copied = CopiedSession(
            id=session.id,
            unique_id=session.unique_id,
            peer=session.peer,
            pool=session.pool_name,
            upstream="" if server is None else server.name,
            info=session.info,
            opening=session.opening,
            host=session.downstream.transport.getHost(),
        )
        pool = self._pools.get(mirror.pool) if mirror.to is None else mirror.to
        if pool is None:
            why = "there is no such pool"
            self._tell(copied.record(mirror.pool, Outcome.UNREACHABLE, why))
            return ()
        if self._of_pool[copied.pool] >= mirror.max_copies:
            why = f"there are {mirror.max_copies} copies already"
            self._tell(copied.record(mirror.pool, Outcome.TOO_MANY, why))
            return ()
        context = CopyContext(
            clock=self._reactor,
            connects=ConnectContext(
                clock=self._reactor,
                sockets=connects.sockets,
                upstream_factory=connects.upstream_factory,
                observer=_Silent(),
                # What evproxy lacks for copies must not pause accepting.
                short=lambda shortage: None,
            ),
            adopt=self._plane.adopt,
            linger=linger,
            room=self._room,
            begun=self._begun,
            over=self._over,
        )
        return (MirrorStage(SessionCopy(context, copied, pool, mirror), session),)

    def close(self) -> Deferred[None]:
        """
        No session is left: return a Deferred that fires once no copy is left.

        After `CLOSE_TIMEOUT` seconds, those that are left are reset.
        """
        if not self._copies:
            return succeed(None)
        if self._closed is None:
            self._closed = Deferred()
            copies = iter(tuple(self._copies.values()))
            self._deadline = self._reactor.callLater(CLOSE_TIMEOUT, self._cut, copies)
        closed: Deferred[None] = Deferred()
        self._closed.addCallback(lambda _: closed.callback(None))
        return closed

    def _cut(self, copies: Iterator[BeginningCopy]) -> None:
        """End `copies`, `RESET_BATCH` of them in each turn of the reactor."""
        self._deadline = None
        for copy in islice(copies, RESET_BATCH):
            with _log.failuresHandled("Could not end a copy"):
                copy.cut(Outcome.STOPPED, "the proxy stops")
        if length_hint(copies):
            self._deadline = self._reactor.callLater(0, self._cut, copies)

    def _begun(self, copy: BeginningCopy) -> None:
        self._copies[copy.copied.unique_id] = copy
        self._of_pool[copy.copied.pool] += 1

    def _over(self, record: MirrorRecord) -> None:
        if self._copies.pop(record.unique_id, None) is not None:
            self._of_pool[record.pool] -= 1
            if not self._of_pool[record.pool]:
                del self._of_pool[record.pool]
        self._tell(record)
        if self._closed is not None and not self._copies:
            closed, self._closed = self._closed, None
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
            closed.callback(None)

    def _tell(self, record: MirrorRecord) -> None:
        # The log has its line before an observer runs.
        if record.outcome != Outcome.WHOLE.value:
            self._say(
                record, "dropped", f"was dropped ({record.outcome}): {record.error or 'no reason'}"
            )
        if record.difference is not None:
            what = f"got another answer from {record.server}, at byte {record.difference}"
            self._say(record, "different", what)
        self._hub.mirror_ended(record)

    def _say(self, record: MirrorRecord, kind: str, what: str) -> None:
        lines = self._lines.setdefault((record.pool, kind), Seldom(QUIET))
        left_out = lines.left_out(self._reactor.seconds())
        if left_out is None:
            return
        more = f"; {left_out} more since the line before" if left_out else ""
        _log.warn(
            "The copy of session {id} of pool {pool} for pool {mirror} {what}{more}",
            id=record.session,
            pool=printable(record.pool),
            mirror=printable(record.mirror),
            what=printable(what),
            more=more,
        )
