"""What holds of a pool whatever happens to it, in whatever order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.task import Clock

from evproxy.errors import NoServerAvailable
from evproxy.model import UpstreamServer
from evproxy.policy.balance.by_name import NAMES
from evproxy.settings import Ejection
from evproxy.upstream.pool.pool import Pool
from evproxy.upstream.pool.status import ServerStatus
from tests.support.pool_doubles import (
    CLIENT,
    FINISHED,
    REFUSED,
    RESET,
    Caller,
    Client,
    Doctor,
    Events,
    NoDialer,
)

SERVERS = [
    UpstreamServer("10.0.0.1:80", max_sessions=2),
    UpstreamServer("10.0.0.2:80", weight=3, max_sessions=2),
    UpstreamServer("10.0.0.3:80", weight=0, max_sessions=1),
    UpstreamServer("10.0.0.4:80", priority=1, max_sessions=1),
    UpstreamServer("10.0.0.5:80", backup=True, max_sessions=1),
]
EVERYONE = {server.name for server in SERVERS}
names = st.sampled_from([server.name for server in SERVERS])


class AnyPool(RuleBasedStateMachine):
    """A pool, and everything that can happen to it."""

    @initialize(
        balance=st.sampled_from(NAMES),
        slow_start=st.sampled_from([0.0, 30.0]),
        all_down=st.sampled_from(["refuse", "try"]),
        on_down=st.sampled_from(["keep", "reset"]),
    )
    def make(self, balance: str, slow_start: float, all_down: str, on_down: str) -> None:
        self.all_down = all_down
        self.clock = Clock()
        self.events = Events()
        self.doctor = Doctor(seconds=self.clock.seconds)
        self.pool = Pool(
            self.clock,
            SERVERS,
            dialer_for=lambda spec: NoDialer(),
            balance=balance,
            slow_start=slow_start,
            all_down=all_down,
            on_down=on_down,
            queue_timeout=20.0,
            queue_size=3,
            health_check=self.doctor,
            ejection=Ejection(failures=2, max_percent=40),
            random=Random(1),
            observer=self.events,
        )
        self.pool.start()
        self.callers: list[Caller] = []
        self.clients: list[Client] = []

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

    @rule()
    def is_started_again(self) -> None:
        self.pool.stop()
        assert self.clock.getDelayedCalls() == []
        assert self.waiting() == []
        self.pool.start()

    @rule()
    def all_slots_are_taken(self) -> None:
        """One session more than there are slots: the last one waits."""
        while (server := next(self.pool.candidates(CLIENT), None)) is not None:
            self.pool.claim(server, caller := Caller(self.pool, server))
            self.callers.append(caller)
        client = Client(self.pool, EVERYONE)
        client.since = self.clock.seconds()
        with suppress(NoServerAvailable):
            self.pool.wait(CLIENT, client.ready, client.gave_up)
            self.clients.append(client)

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

    @precondition(lambda self: hasattr(self, "pool") and self.running())
    @rule(data=st.data(), resets=st.booleans())
    def session_ends(self, data: st.DataObject, resets: bool) -> None:
        caller = self.callers.pop(data.draw(st.integers(0, len(self.callers) - 1)))
        caller.close(RESET if resets else FINISHED, not resets)

    def waiting(self) -> list[Client]:
        """Those who wait; those who were woken are among the sessions from now on."""
        done = [client for client in self.clients if client.caller or client.error]
        self.clients = [client for client in self.clients if client not in done]
        self.callers += [client.caller for client in done if client.caller]
        return self.clients

    def running(self) -> list[Caller]:
        """The sessions that run, without those that the pool has ended."""
        self.waiting()
        self.callers = [caller for caller in self.callers if not caller.ends]
        return self.callers

    def serving(self) -> list[ServerStatus]:
        """The servers that new sessions may go to, be they full or not."""
        heavy = [status for status in self.pool.servers if status.weight > 0]
        up = [status for status in heavy if status.state == "up"]
        if up or self.all_down == "refuse":
            return up
        return [status for status in heavy if status.state in ("down", "ejected")]

    @invariant()
    def walks_are_right(self) -> None:
        """A walk gives exactly the servers that serve and have room, lower tiers first."""
        if not hasattr(self, "pool"):
            return
        # Those who wait are woken in the next turn, and whoever comes before waits too.
        self.clock.advance(0)
        walk = list(self.pool.candidates(CLIENT))
        expected = {
            status.name
            for status in self.serving()
            if not 0 < status.spec.max_sessions <= status.sessions
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
        assert sum(status.sessions for status in self.pool.servers) == len(self.running())
        for status in self.pool.servers:
            assert not 0 < status.spec.max_sessions < status.sessions

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """Who waits does so for servers that serve and are full, and not for too long."""
        if not hasattr(self, "pool"):
            return
        self.clock.advance(0)
        for client in self.waiting():
            assert self.clock.seconds() <= client.since + 20
            assert self.serving()
            assert next(self.pool.candidates(CLIENT), None) is None

    @invariant()
    def not_too_many_are_ejected(self) -> None:
        """Of five servers with a bound of 40 % two are ejected at the most."""
        if hasattr(self, "pool"):
            assert sum(status.state == "ejected" for status in self.pool.servers) <= 2


TestAnyPool = AnyPool.TestCase
TestAnyPool.settings = settings(max_examples=60, stateful_step_count=40)
