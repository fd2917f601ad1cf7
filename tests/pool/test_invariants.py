"""What holds of a pool whatever happens to it, in whatever order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.task import Clock

from evproxy.model import UpstreamServer
from evproxy.policy.balance import NAMES
from evproxy.settings import Ejection
from evproxy.upstream.pool import Pool
from tests.pool.doubles import CLIENT, FINISHED, REFUSED, RESET, Caller, Doctor, Events, NoDialer

SERVERS = [
    UpstreamServer("10.0.0.1:80"),
    UpstreamServer("10.0.0.2:80", weight=3, max_sessions=2),
    UpstreamServer("10.0.0.3:80", weight=0),
    UpstreamServer("10.0.0.4:80", priority=1),
    UpstreamServer("10.0.0.5:80", backup=True, max_sessions=1),
]
names = st.sampled_from([server.name for server in SERVERS])


class AnyPool(RuleBasedStateMachine):
    """A pool, and everything that can happen to it."""

    @initialize(balance=st.sampled_from(NAMES), slow_start=st.sampled_from([0.0, 30.0]))
    def make(self, balance: str, slow_start: float) -> None:
        self.clock = Clock()
        self.events = Events()
        self.doctor = Doctor(seconds=self.clock.seconds)
        self.pool = Pool(
            self.clock,
            SERVERS,
            dialer_for=lambda spec: NoDialer(),
            balance=balance,
            slow_start=slow_start,
            health_check=self.doctor,
            ejection=Ejection(failures=2, max_percent=40),
            random=Random(1),
            observer=self.events,
        )
        self.pool.start()
        self.callers: list[Caller] = []

    def teardown(self) -> None:
        if hasattr(self, "pool"):
            self.pool.stop()
            assert self.clock.getDelayedCalls() == []

    @rule(seconds=st.floats(0, 30))
    def time_passes(self, seconds: float) -> None:
        self.clock.pump([seconds / 20] * 20)

    @rule(name=names)
    def falls_sick(self, name: str) -> None:
        self.doctor.sick.add(name)

    @rule(name=names)
    def recovers(self, name: str) -> None:
        self.doctor.sick.discard(name)

    @rule(name=names, weight=st.integers(0, 5))
    def is_changed(self, name: str, weight: int) -> None:
        changes: list[Callable[[], None]] = [
            lambda: self.pool.drain(name),
            lambda: self.pool.resume(name),
            lambda: self.pool.remove(name),
            lambda: self.pool.set_weight(name, weight),
        ]
        with suppress(LookupError):
            changes[weight % len(changes)]()

    @rule(spec=st.sampled_from(SERVERS))
    def comes_back(self, spec: UpstreamServer) -> None:
        self.pool.set_servers([spec])

    @rule(fails=st.booleans())
    def session_begins(self, fails: bool) -> None:
        server = next(self.pool.candidates(CLIENT), None)
        if server is not None:
            caller = Caller(self.pool, server)
            self.pool.claim(server, caller)
            if fails:
                self.pool.connect_failed(server, caller, REFUSED)
            else:
                self.pool.connected(server, 0.01)
                self.callers.append(caller)

    @precondition(lambda self: self.callers)
    @rule(data=st.data(), resets=st.booleans())
    def session_ends(self, data: st.DataObject, resets: bool) -> None:
        caller = self.callers.pop(data.draw(st.integers(0, len(self.callers) - 1)))
        caller.close(RESET if resets else FINISHED, not resets)

    @invariant()
    def walks_are_right(self) -> None:
        """A walk gives exactly the servers that are up and have room, lower tiers first."""
        if not hasattr(self, "pool"):
            return
        walk = list(self.pool.candidates(CLIENT))
        expected = {
            status.name
            for status in self.pool.servers
            if status.state == "up"
            and status.weight > 0
            and not 0 < status.spec.max_sessions <= status.sessions
        }
        assert len(walk) == len(expected)
        assert {server.name for server in walk} == expected
        tiers = [(server.spec.backup, server.spec.priority) for server in walk]
        assert tiers == sorted(tiers)

    @invariant()
    def sessions_are_counted(self) -> None:
        """The slots that are taken are those of the sessions that run, within each bound."""
        if not hasattr(self, "pool"):
            return
        assert sum(status.sessions for status in self.pool.servers) == len(self.callers)
        for status in self.pool.servers:
            assert not 0 < status.spec.max_sessions < status.sessions

    @invariant()
    def not_too_many_are_ejected(self) -> None:
        """Of five servers with a bound of 40 % two are ejected at the most."""
        if hasattr(self, "pool"):
            assert sum(status.state == "ejected" for status in self.pool.servers) <= 2


TestAnyPool = AnyPool.TestCase
TestAnyPool.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
