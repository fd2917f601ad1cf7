"""Doubles of the neighbours of a pool, and shared checks of pools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Container
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IConnector
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from evproxy.errors import NoServerAvailable
from evproxy.interfaces import Server
from evproxy.model import (
    ConnectionInfo,
    Ending,
    Phase,
    Side,
    UpstreamServer,
    close_reason,
)
from evproxy.upstream.pool.pool import Pool
from evproxy.upstream.pool.server import PoolServer

CLIENT = ConnectionInfo("192.0.2.1", 40000)
FINISHED = close_reason(Side.DOWNSTREAM, Ending.FINISHED, Phase.RELAYING)
RESET = close_reason(Side.UPSTREAM, Ending.RESET, Phase.RELAYING)
REFUSED = Failure(ConnectionRefusedError(osError=111))
A, B, C, D = (f"10.0.0.{number}:80" for number in (1, 2, 3, 4))


class NoDialer:
    """A dialer that is never used, because pools only pass dialers on."""

    def connect(self, *arguments: object) -> IConnector:
        raise AssertionError("a pool does not connect")


@define
class Events:
    """A pool observer that records its calls as the lines of a log."""

    lines: list[str] = field(factory=list)

    def server_changed(self, pool: str, server: str, state: str, why: str) -> None:
        self.lines.append(f"{pool}/{server} {state}: {why}")

    def pool_exhausted(self, pool: str, why: str) -> None:
        self.lines.append(f"{pool} exhausted: {why}")

    def discovery_failed(self, pool: str, why: str) -> None:
        self.lines.append(f"{pool} discovery: {why}")

    def discovery_recovered(self, pool: str) -> None:
        self.lines.append(f"{pool} discovery recovered")

    def flush(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines


@define(eq=False)
class Caller:
    """A session as a pool sees it, which takes slots and gives them back."""

    pool: Pool
    server: PoolServer | None = None
    phase: Phase = Phase.RELAYING
    ends: list[tuple[Side, Ending]] = field(factory=list)

    def open(self) -> Caller:
        """Claim the first candidate."""
        self.server = next(self.pool.candidates(CLIENT))
        self.pool.claim(self.server, self)
        return self

    def close(self, reason: Any = FINISHED, answered: bool = True) -> None:
        assert self.server is not None
        self.pool.ended(self.server, self, reason, answered)

    def end(self, by: Side, how: Ending) -> None:
        self.ends.append((by, how))
        self.close(close_reason(by, how, Phase.RELAYING))


@define(eq=False)
class Client:
    """A session of `info` that waits for a slot of one of `wanted`, again if it finds none."""

    pool: Pool
    wanted: Container[str]
    info: ConnectionInfo = CLIENT
    tried: Collection[Server] = ()
    asked: int = 0
    since: float = 0.0
    caller: Caller | None = None
    error: Exception | None = None

    def wait(self) -> Client:
        self.pool.wait(self.info, self.ready, self.gave_up, self.tried)
        return self

    def ready(self) -> None:
        self.asked += 1
        for server in self.pool.candidates(self.info):
            if server.name in self.wanted and server not in self.tried:
                self.caller = Caller(self.pool, server)
                self.pool.claim(server, self.caller)
                return
        try:
            self.wait()
        except NoServerAvailable as error:
            self.error = error

    def gave_up(self, error: Exception) -> None:
        self.error = error


@define(eq=False)
class Doctor:
    """A probe whose verdicts the test sets; `sick` servers fail, `mute` servers never answer."""

    sick: set[str] = field(factory=set)
    mute: set[str] = field(factory=set)
    asked: list[tuple[str, float]] = field(factory=list)
    cancelled: int = 0
    seconds: Callable[[], float] = float

    def check(
        self, server: UpstreamServer, done: Callable[[str | None], None]
    ) -> Callable[[], None]:
        self.asked.append((server.name, self.seconds()))
        if server.name not in self.mute:
            done("connection refused" if server.name in self.sick else None)
        return self.cancel

    def cancel(self) -> None:
        self.cancelled += 1


PoolMaker = Callable[..., Pool]


def refused(pool: Pool, info: ConnectionInfo = CLIENT, tried: Collection[Server] = ()) -> str:
    """Return why a session of the client may not wait."""
    with pytest.raises(NoServerAvailable) as raised:
        pool.wait(info, never, never, tried)
    return str(raised.value)


def never(*arguments: object) -> None:
    """A callback that must not be called."""
    raise AssertionError(f"called with {arguments}")


def nothing(*arguments: object) -> None:
    """A callback that may be called."""


def walk(pool: Pool, info: ConnectionInfo = CLIENT) -> list[str]:
    return [server.name for server in pool.candidates(info)]


def share(pool: Pool, sessions: int = 1000) -> Counter[str]:
    """Return the first candidates of `sessions` sessions in a row."""
    return Counter(next(pool.candidates(CLIENT)).name for _ in range(sessions))


def states(pool: Pool) -> dict[str, str]:
    return {server.name: server.state for server in pool.servers}


def fail(pool: Pool, name: str, times: int = 1) -> None:
    """Let connects to the server called `name` fail."""
    for _ in range(times):
        caller = Caller(pool)
        server = next(server for server in pool.candidates(CLIENT) if server.name == name)
        pool.claim(server, caller)
        pool.connect_failed(server, caller, REFUSED)


def advance(clock: Clock, seconds: float) -> None:
    """Advance the clock by `seconds`, in steps small enough for every timer."""
    end = clock.seconds() + seconds
    while clock.seconds() < end - 1e-9:
        clock.advance(min(0.05, end - clock.seconds()))


def down(pool: Pool, clock: Clock, doctor: Doctor, *names: str) -> None:
    """Let active checks mark the servers called `names` as down."""
    doctor.sick.update(names)
    advance(clock, 10)
