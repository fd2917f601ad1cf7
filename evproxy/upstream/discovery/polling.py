"""
A discovery that looks again and again, with one look at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.errors import EvproxyError
from evproxy.model import UpstreamServer
from evproxy.upstream.discovery.announce import Announcer
from evproxy.upstream.discovery.backoff import Backoff
from evproxy.upstream.reasons import reason_of

RESOLUTION_DELAY = 0.05
"""
Seconds that the rest of a look-up has until the first servers are told without it
(RFC 8305, 3: so long does an address of one family wait for those of the other).
"""

Servers = tuple[UpstreamServer, ...]
SoFar = Callable[[Callable[[], Servers]], None]

_log = Logger()


class LookFailed(EvproxyError):
    """A look-up gave nothing that could be used.  The message is a short reason."""


@frozen
class Look:
    """
    What a look-up found: all `servers`, and seconds until the `next_look`.

    `problem`: what was wrong with a part of it, empty for nothing.
    """

    servers: Servers
    next_look: float
    problem: str = ""


class PollingDiscovery:
    """
    Calls `look` now and then.

    :param look: starts one look-up; fails with `LookFailed`.  Cancelling it leaves
        nothing behind.  Once it knows enough for first servers, it calls its argument
        with a function that gives those that it knows by then.
    :param backoff: the delays between look-ups that fail.
    """

    def __init__(
        self, clock: IReactorTime, look: Callable[[SoFar], Deferred[Look]], backoff: Backoff
    ) -> None:
        self._clock = clock
        self._look = look
        self._backoff = backoff
        self._announcer = Announcer()
        self._running = False
        self._looking: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None

    def start(
        self, changed: Callable[[Sequence[UpstreamServer]], None], failed: Callable[[str], None]
    ) -> None:
        """See `evproxy.interfaces.Discovery`."""
        self._announcer.start(changed, failed)
        self._running = True
        self._begin()

    def stop(self) -> None:
        """See `evproxy.interfaces.Discovery`."""
        self._running = False
        self._announcer.stop()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()

    @property
    def failing(self) -> bool:
        """See `evproxy.interfaces.PartlyFailing`."""
        return self._announcer.failing

    def _begin(self) -> None:
        self._timer = None
        self._looking = looking = self._look(self._so_far).addCallbacks(self._found, self._failed)
        if looking.called:
            self._looking = None

    def _so_far(self, known: Callable[[], Servers]) -> None:
        if self._running and self._timer is None:
            self._timer = self._clock.callLater(RESOLUTION_DELAY, self._first, known)

    def _first(self, known: Callable[[], Servers]) -> None:
        self._timer = None
        self._announcer.first(known())

    def _found(self, look: Look) -> None:
        if self._running:
            self._backoff.reset()
            self._again(look.next_look)
            self._announcer.found(look.servers, look.problem)

    def _failed(self, failure: Failure) -> None:
        if not self._running:
            return
        if not failure.check(LookFailed):
            _log.failure("a look-up failed in an unforeseen way", failure=failure)
        self._again(self._backoff.next())
        self._announcer.missed(reason_of(failure))

    def _again(self, delay: float) -> None:
        self._looking = None
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.callLater(delay, self._begin)
