"""
A discovery that looks again and again, with one look at a time.

After a failure it waits longer each time, bounded, and not in step with others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from evproxy.errors import EvproxyError
from evproxy.model import UpstreamServer
from evproxy.upstream.discovery.announcer import Announcer
from evproxy.upstream.discovery.cycle import Steps
from evproxy.upstream.reasons import reason_of

RESOLUTION_DELAY = 0.05
"""
Seconds that the rest of a look-up has until the first servers are told without it
(RFC 8305, 3: so long does an address of one family wait for those of the other).
"""

Servers = tuple[UpstreamServer, ...]
SoFar = Callable[[Callable[[], Servers]], None]

_log = Logger()


class Backoff:
    """
    Delays that double from `first` to `most` seconds, each drawn from its upper half.

    (Exponential backoff with "equal jitter", as in Brooker, "Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015.)
    """

    def __init__(self, first: float, most: float, random: Random) -> None:
        self._first = first
        self._most = max(first, most)
        self._random = random
        self._delay = first

    def next(self) -> float:
        """The seconds to wait after one more failure."""
        delay = self._delay
        self._delay = min(2 * delay, self._most)
        return delay * self._random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """It went well: the next delay is the first again."""
        self._delay = self._first


class LookFailed(EvproxyError):
    """A look-up gave nothing that could be used.  The message is a short reason."""


@frozen
class Look:
    """
    What a look-up found: all `servers`, and seconds until the `next_look`.

    `problems`: what was wrong with parts of it.
    """

    servers: Servers
    next_look: float
    problems: tuple[str, ...] = ()


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
        self._look = look
        self._backoff = backoff
        self._announcer = Announcer()
        self._steps = Steps(clock)

    def start(
        self, changed: Callable[[Sequence[UpstreamServer]], None], failed: Callable[[str], None]
    ) -> None:
        """See `evproxy.interfaces.Discovery`."""
        self._announcer.start(changed, failed)
        self._steps.start(self._begin)

    def stop(self) -> None:
        """See `evproxy.interfaces.Discovery`."""
        self._announcer.stop()
        self._steps.stop()

    @property
    def problems(self) -> Sequence[str]:
        """See `evproxy.interfaces.PartlyFailing`."""
        return self._announcer.problems

    def _begin(self) -> None:
        self._steps.under_way(self._look(self._so_far).addCallbacks(self._found, self._failed))

    def _so_far(self, known: Callable[[], Servers]) -> None:
        self._steps.meanwhile(RESOLUTION_DELAY, lambda: self._announcer.first(known()))

    def _found(self, look: Look) -> None:
        if self._steps.going:
            self._backoff.reset()
            self._steps.pause(look.next_look, self._begin)
            self._announcer.found(look.servers, look.problems)

    def _failed(self, failure: Failure) -> None:
        if not self._steps.going:
            return
        if not failure.check(LookFailed):
            _log.failure("a look-up failed in an unforeseen way", failure=failure)
        self._steps.pause(self._backoff.next(), self._begin)
        self._announcer.missed(reason_of(failure))
