"""A session with faults, without sockets and in the time of a `Clock`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock

from evproxy.faults import Faults, FaultSettings
from evproxy.model import Ending, Phase, Side
from evproxy.records import SessionStatus

STATUS = SessionStatus(
    id=1,
    listener="web",
    peer="127.0.0.1:1025",
    phase=Phase.RELAYING,
    pool="",
    upstream="127.0.0.1:5432",
    relay="stream",
    attempts=1,
    started=0.0,
    connect_time=0.0,
    duration=0.0,
    bytes_to_upstream=0,
    bytes_to_downstream=0,
)


class Peer:
    """
    The peer that gets one stream.

    `received` are its bytes, and `events` are ``"end"``, ``"lost"``, ``"closed"`` and ``"reset"``,
    each with the number of bytes before it.  As in a relay, nothing follows an end but the end of
    the session.  `when_received` is called for each piece.
    """

    def __init__(self, session: FaultySession) -> None:
        self._session = session
        self.received = b""
        self.when_received: Callable[[], None] | None = None
        self.events: list[tuple[str, int]] = []
        self._over = False

    def _add(self, event: str) -> None:
        if not self._over:
            self._over = True
            self.events.append((event, len(self.received)))

    # As the `Outlet` of the stage.

    def pass_on(self, data: bytes) -> None:
        if not self._over:
            self.received += data
            if self.when_received is not None:
                self.when_received()

    def end(self) -> None:
        self._add("end")

    def close(self, how: Ending, reset: bool) -> None:
        assert how is Ending.FAULT
        self._over = False
        self._add("reset" if reset else "closed")
        self._session.over()

    def reveal(self) -> None:
        self._add("lost")

    def recount(self) -> None:
        """The test reads its source always."""


class FaultySession:
    """
    One session that relays; it is over as soon as a fault ends it.

    :param given: the faults that it has from its begin.

    `clock` has the time, `faults` the faults, `client` and `server` are the peers.
    """

    def __init__(self, *given: FaultSettings, seed: int = 1) -> None:
        self.clock: Any = Clock()
        self.faults = Faults(self.clock, given, seed=seed)
        self.client, self.server = Peer(self), Peer(self)
        (self._stage,) = self.faults(STATUS)
        self._stage.start(self.server, self.client)
        self._ended = False

    def download(self, data: bytes) -> None:
        """The server sends `data`."""
        if not self._ended:
            self._stage.download(data)

    def upload(self, data: bytes) -> None:
        """The client sends `data`."""
        if not self._ended:
            self._stage.upload(data)

    def server_ends(self) -> None:
        """The server ends its stream in order."""
        self._stage.ended(Side.UPSTREAM)

    def server_resets(self) -> bool:
        """The connection of the server is lost: return whether the client is not to notice."""
        return self._stage.hides(Side.UPSTREAM)

    def held(self) -> int:
        """Return how many bytes of the server are held."""
        return self._stage.held(Side.UPSTREAM)

    def held_upload(self) -> int:
        """Return how many bytes of the client are held."""
        return self._stage.held(Side.DOWNSTREAM)

    def over(self) -> None:
        """The session is over."""
        if not self._ended:
            self._ended = True
            self._stage.closed()

    @property
    def timers(self) -> int:
        """How many timers there are."""
        return len(self.clock.getDelayedCalls())
