"""What becomes of the sessions on a server that goes down."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from evproxy.model import Ending, Phase, Side
from tests.support.pool_doubles import (
    A,
    Caller,
    Doctor,
    PoolMaker,
    advance,
    down,
)


@pytest.mark.parametrize(("on_down", "ended"), [("keep", 0), ("reset", 100)])
def test_sessions_of_a_server_that_goes_down(
    make: PoolMaker, clock: Clock, doctor: Doctor, on_down: str, ended: int
) -> None:
    """They go on by default, and all are ended where the pool is told to."""
    pool = make(A, health_check=doctor, on_down=on_down)
    pool.start()
    callers = [Caller(pool).open() for _ in range(100)]
    down(pool, clock, doctor, A)
    ends = [end for caller in callers for end in caller.ends]
    assert ends == [(Side.PROXY, Ending.SERVER_DOWN)] * ended
    assert pool.servers[0].sessions == 100 - ended


def test_sessions_that_connect_to_a_server_that_goes_down(
    make: PoolMaker, clock: Clock, doctor: Doctor
) -> None:
    """Only those that are connected are reset: the others may still go to another server."""
    pool = make(A, health_check=doctor, on_down="reset")
    pool.start()
    connected, connecting = Caller(pool).open(), Caller(pool, phase=Phase.CONNECTING).open()
    down(pool, clock, doctor, A)
    assert len(connected.ends) == 1
    assert connecting.ends == []


def test_sessions_that_connect_after_all(make: PoolMaker, clock: Clock, doctor: Doctor) -> None:
    """Those whose connect succeeds although the server went down meanwhile are reset then."""
    pool = make(A, health_check=doctor, on_down="reset")
    pool.start()
    callers = [Caller(pool, phase=Phase.CONNECTING).open() for _ in range(40)]
    down(pool, clock, doctor, A)
    for caller in callers[1:]:
        assert caller.server is not None
        caller.phase = Phase.RELAYING
        pool.connected(caller.server, 3.0)
        assert caller.ends == []
    clock.advance(0)
    assert [len(caller.ends) for caller in callers] == [0] + [1] * 39
    doctor.sick.clear()
    advance(clock, 10)
    callers[0].phase = Phase.RELAYING
    assert callers[0].server is not None
    pool.connected(callers[0].server, 3.0)
    clock.advance(0)
    assert callers[0].ends == []


def test_sessions_that_came_while_all_were_down(
    make: PoolMaker, clock: Clock, doctor: Doctor
) -> None:
    """Those that were let try a server that is down are not reset by what happens to it later."""
    pool = make(A, health_check=doctor, on_down="reset", all_down="try")
    pool.start()
    down(pool, clock, doctor, A)
    trying = Caller(pool).open()
    pool.set_weight(A, 5)
    advance(clock, 10)
    assert trying.ends == []
