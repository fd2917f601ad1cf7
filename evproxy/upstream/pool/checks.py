"""
The schedule of active health checks, and the health of each server by their results.

Checks are spread in time: the first checks over one interval, and every pause varies by a
tenth.  So the checks of many servers, or of many proxies, do not come at the same moment.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Generic, Protocol, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from evproxy.errors import Shortage
from evproxy.interfaces import Probe, SelfBounded
from evproxy.model import UpstreamServer
from evproxy.policy.health import CheckedHealth, Health, Verdict
from evproxy.settings import HealthCheck
from evproxy.upstream.pool.server import PoolServer

_log = Logger()

JITTER = 0.1
"""The fraction by which a pause is longer or shorter."""


class CheckedServer(Protocol):
    """
    What `Checks` needs of a server: `PoolServer` is one.

    `down`: whether it is down so far.  `checks_passed`, `checks_failed`: `Checks` counts them.
    """

    checks_passed: int
    checks_failed: int

    @property
    def name(self) -> str: ...

    @property
    def spec(self) -> UpstreamServer: ...

    @property
    def down(self) -> bool: ...


Server = TypeVar("Server", bound=CheckedServer)


class ServerChecks(Protocol):
    """What a pool needs of its health checks: `Checks`, or checks that run elsewhere."""

    settings: HealthCheck

    @property
    def fast_interval(self) -> float: ...

    def add(self, server: PoolServer, within: float) -> None: ...

    def remove(self, server: PoolServer) -> None: ...

    def stop(self) -> None: ...


class Checks(Generic[Server]):
    """
    Checks every added server periodically, until it is removed.

    :param reactor: the time and the timers.
    :param probe: does one check of one server.
    :param settings: `interval`, `fast_interval`, `timeout`, `rise` and `fall` are used.
    :param random: spreads the checks.
    :param decided: called with the server and each `Verdict`.
    :param prevented: called with the shortage that prevented a check.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        probe: Probe,
        settings: HealthCheck,
        random: Random,
        decided: Callable[[Server, Verdict], None],
        prevented: Callable[[Shortage], None],
    ) -> None:
        self.reactor = reactor
        self.probe = probe
        self.settings = settings
        self.decided = decided
        self.prevented = prevented
        self._random = random
        self._checked: dict[Server, _Checked[Server]] = {}

    def add(self, server: Server, within: float) -> None:
        """Start to check `server`; the first check comes `within` this many seconds."""
        self.remove(server)
        checked = self._checked[server] = _Checked(self, server)
        checked.check_in(self._random.random() * within)

    def remove(self, server: Server) -> None:
        """Stop checking `server`."""
        checked = self._checked.pop(server, None)
        if checked is not None:
            checked.stop()

    def stop(self) -> None:
        """Stop checking all servers."""
        for server in list(self._checked):
            self.remove(server)

    @property
    def longest(self) -> float:
        """The timeout of a check, in seconds."""
        if isinstance(self.probe, SelfBounded):
            return self.probe.longest
        return self.settings.timeout

    @property
    def fast_interval(self) -> float:
        """Seconds between checks of a server that is about to change state."""
        return self.settings.fast_interval or self.settings.interval / 4

    def pause(self, changing: bool) -> float:
        """Seconds from the start of a check to the start of the next."""
        interval = self.fast_interval if changing else self.settings.interval
        return interval * self._random.uniform(1 - JITTER, 1 + JITTER)


class _Checked(Generic[Server]):
    """The checks of one server: at any time, one is running or the next is scheduled."""

    def __init__(self, checks: Checks[Server], server: Server) -> None:
        self._checks = checks
        self._server = server
        state = Health.DOWN if server.down else Health.UP
        self._health = CheckedHealth(checks.settings.rise, checks.settings.fall, state)
        self._timer: IDelayedCall | None = None
        self._cancel: Callable[[], None] | None = None
        self._number = 0
        self._pending = False
        self._began = 0.0

    def check_in(self, seconds: float) -> None:
        self._timer = self._checks.reactor.callLater(seconds, self._check)

    def stop(self) -> None:
        self._pending = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._end_check()

    def _check(self) -> None:
        checks = self._checks
        self._timer = None
        self._number = number = self._number + 1
        self._pending = True
        self._began = checks.reactor.seconds()

        def done(error: str | Shortage | None) -> None:
            if self._pending and number == self._number:
                self._answered(error)

        try:
            cancel = checks.probe.check(self._server.spec, done)
        except Exception:
            _log.failure("A check of {server} broke", server=self._server.name)
            if self._pending and number == self._number:
                # The fault is the probe's, not the server's.
                self._pending = False
                self.check_in(checks.pause(self._health.changing))
            return
        if self._pending and number == self._number:
            self._cancel = cancel
            # Start this timer after the probe's own, so that the probe's timeout comes first.
            self._timer = checks.reactor.callLater(checks.longest, self._time_out)

    def _time_out(self) -> None:
        # A probe with its own timeout gives a better reason, but only after its connection is
        # closed.  Closing takes a turn of the reactor.
        self._timer = self._checks.reactor.callLater(0, self._give_up)

    def _give_up(self) -> None:
        self._timer = None
        # Late callbacks of the probe are ignored, also those that its cancellation causes.
        self._pending = False
        self._end_check()
        self._answered(f"no answer within {self._checks.longest:g} s")

    def _end_check(self) -> None:
        cancel, self._cancel = self._cancel, None
        if cancel is not None:
            name = self._server.name
            with _log.failuresHandled("Could not cancel a check of {server}", server=name):
                cancel()

    def _answered(self, error: str | Shortage | None) -> None:
        checks = self._checks
        self._pending = False
        self._cancel = None
        if self._timer is not None:
            self._timer.cancel()
        if error is None:
            self._server.checks_passed += 1
        elif not isinstance(error, Shortage):
            self._server.checks_failed += 1
        # A check that could not run does not change the server's state.
        verdict = None if isinstance(error, Shortage) else self._health.check(error)
        due = self._began + checks.pause(self._health.changing)
        self.check_in(max(0.0, due - checks.reactor.seconds()))
        if isinstance(error, Shortage):
            checks.prevented(error)
        elif verdict is not None:
            checks.decided(self._server, verdict)
