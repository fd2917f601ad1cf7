"""
A discovery that repeats a look-up, one at a time.

After each failure the delay grows, up to a limit.  The delays are random, so that many proxies
do not repeat their look-ups at the same moment.
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
from evproxy.upstream.discovery.steps import Steps
from evproxy.upstream.reasons import reason_of

RESOLUTION_DELAY = 0.05
"""
Seconds between a partial result and its announcement, if the look-up is still running
(RFC 8305, 3: the time that an address of one family waits for those of the other).
"""

Servers = tuple[UpstreamServer, ...]

ReportPartial = Callable[[Callable[[], Servers]], None]
"""Called by a look-up when its partial result is usable, with a function that returns it."""

_log = Logger()


class Backoff:
    """
    Delays that double from `first` to `most` seconds, with jitter.

    Exponential backoff with "equal jitter": each delay is random between its half and its full
    value (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    """

    def __init__(self, first: float, most: float, random: Random) -> None:
        self._first = first
        self._most = max(first, most)
        self._random = random
        self._delay = first

    def next(self) -> float:
        """The delay after one more failure, in seconds."""
        delay = self._delay
        self._delay = min(2 * delay, self._most)
        return delay * self._random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """A look-up succeeded: begin with the first delay again."""
        self._delay = self._first


class LookUpFailed(EvproxyError):
    """A look-up gave no usable result.  The message is a short reason."""


@frozen
class LookUpResult:
    """
    The result of a look-up: all `servers`, and the seconds until the next look-up.

    `problems` says what is wrong with parts of the answer.
    """

    servers: Servers
    next_in: float
    problems: tuple[str, ...] = ()


class PollingDiscovery:
    """
    Calls `look_up` repeatedly.

    :param look_up: starts one look-up, which may fail with `LookUpFailed`.  Cancelling it
        leaves no timer or connection.  It may call its argument, a `ReportPartial`.
    :param backoff: the delays after failed look-ups.
    """

    def __init__(
        self,
        clock: IReactorTime,
        look_up: Callable[[ReportPartial], Deferred[LookUpResult]],
        backoff: Backoff,
    ) -> None:
        self._look_up = look_up
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
        looking_up = self._look_up(self._report_partial)
        self._steps.set_current(looking_up.addCallbacks(self._found, self._failed))

    def _report_partial(self, known: Callable[[], Servers]) -> None:
        self._steps.call_during_step(
            RESOLUTION_DELAY, lambda: self._announcer.found_partial(known())
        )

    def _found(self, result: LookUpResult) -> None:
        if self._steps.running:
            self._backoff.reset()
            self._steps.pause(result.next_in, self._begin)
            self._announcer.found(result.servers, result.problems)

    def _failed(self, failure: Failure) -> None:
        if not self._steps.running:
            return
        if not failure.check(LookUpFailed):
            _log.failure("a look-up failed with an unexpected error", failure=failure)
        self._steps.pause(self._backoff.next(), self._begin)
        self._announcer.failed(reason_of(failure))
