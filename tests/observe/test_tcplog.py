"""HAProxy's own line: its fields, and the state that each reason becomes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproxy.causes import Cause
from evproxy.model import Ending, Phase, Side, TLSFacts, close_reason
from evproxy.observe.line_text import Stamps
from evproxy.observe.tcplog import TcplogFormat, local, termination
from evproxy.policy.refusal import Refusal
from evproxy.records import SessionCounts, Waited
from tests.observe.test_formats import RECORD, STATUS, UNCONNECTED, WHEN
from tests.support.twistd import ROOT

FINISHED = RECORD._replace(counts=SessionCounts(9, 7, 5, 3), id=4)

LINE = re.compile(
    r"(?:[0-9.]+|[0-9a-f:]+|unix):\d+ \[\d\d/[A-Z][a-z]{2}/\d{4}(?::\d\d){3}\.\d{3}\] \S+ \S+/\S+"
    r" -?\d+/-?\d+/\+?\d+ \+?\d+ [-CSPRIDKcs][-RQCDL] \d+/\d+/\d+/\d+/\+?\d+ \d+/\d+\n"
)


@pytest.fixture(autouse=True)
def in_calcutta(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The local time of these tests is five and a half hours ahead."""
    monkeypatch.setenv("TZ", "IST-5:30")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


LINES = {
    "served": (
        FINISHED,
        "192.0.2.7:50122 [24/Nov/2026:12:33:11.200] web web/10.0.0.5:80 0/0/4 10240 --"
        " 9/7/5/3/0 0/0\n",
    ),
    "no server": (
        UNCONNECTED._replace(attempts=0, route_time=0.0, pool="db", cause="no-server"),
        "unix:1 [24/Nov/2026:12:33:11.200] web db/<NOSRV> -1/-1/4 0 SC 0/0/0/0/0 0/0\n",
    ),
    "refused before a pool": (
        UNCONNECTED._replace(
            peer="[2001:db8::7]:443",
            attempts=0,
            route_time=None,
            pool="",
            reason=close_reason(Side.PROXY, Ending.REFUSED, Phase.INSPECTING),
            cause="denied",
        ),
        "2001:db8::7:443 [24/Nov/2026:12:33:11.200] web web/<NOSRV> -1/-1/4 0 PR 0/0/0/0/0 0/0\n",
    ),
    "waited, and the third server took it": (
        FINISHED._replace(
            duration=2.5,
            route_time=0.2,
            waited=Waited(None, 1.0, 6),
            connect_time=1.5,
            attempts=3,
            tls=TLSFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256"),
        ),
        "192.0.2.7:50122 [24/Nov/2026:12:33:08.704] web~ web/10.0.0.5:80 1000/300/2500 10240 --"
        " 9/7/5/3/+2 0/7\n",
    ),
    "waited in vain": (
        UNCONNECTED._replace(
            attempts=0, waited=Waited(None, 5.0, 2), cause=Cause.QUEUE_TIMEOUT.value, duration=5.0
        ),
        "unix:1 [24/Nov/2026:12:33:06.204] web web/<NOSRV> 5000/-1/5000 0 sQ 0/0/0/0/0 0/3\n",
    ),
    "odd names": (
        FINISHED._replace(listener="unix:/a b", upstream='unix:/s"/x\n', peer="/tmp/a:80"),
        r"unix:1 [24/Nov/2026:12:33:11.200] unix:/a\x20b web/unix:/s\"/x\n 0/0/4 10240 --"
        " 9/7/5/3/0 0/0\n",
    ),
}


@pytest.mark.parametrize(("record", "line"), LINES.values(), ids=LINES)
def test_the_line_of_a_session(record: Any, line: str) -> None:
    """The fields are those of HAProxy's manual; the time is the accept, in local time."""
    assert TcplogFormat().session(WHEN, record) == line
    assert LINE.fullmatch(line)


def test_the_line_of_a_session_that_is_not_over() -> None:
    """As with ``option logasap``, a plus sign marks the numbers that still grow."""
    status = STATUS._replace(route_time=0.0, counts=SessionCounts(1, 1, 1, 1))
    line = TcplogFormat().under_way(WHEN, "interval", status)
    assert line == (
        "192.0.2.7:50122 [24/Nov/2026:12:32:09.704] web web/10.0.0.5:80 0/0/+61500 +10240 --"
        " 1/1/1/1/0 0/0\n"
    )
    assert LINE.fullmatch(line)


def test_dropped_lines() -> None:
    """The line says how many, and no parser takes it for the line of a session."""
    line = TcplogFormat().dropped(WHEN, 12)
    assert line == "evproxy dropped 12 lines before [24/Nov/2026:12:33:11.204]\n"
    assert not LINE.fullmatch(line)


STATES = {
    (Side.DOWNSTREAM, Ending.FINISHED, Phase.RELAYING, ""): "--",
    (Side.UPSTREAM, Ending.FINISHED, Phase.CLOSING, ""): "--",
    (Side.DOWNSTREAM, Ending.RESET, Phase.RELAYING, ""): "CD",
    (Side.UPSTREAM, Ending.RESET, Phase.RELAYING, ""): "SD",
    (Side.UPSTREAM, Ending.RESET, Phase.CLOSING, ""): "SL",
    (Side.DOWNSTREAM, Ending.LEFT, Phase.INSPECTING, ""): "CR",
    (Side.DOWNSTREAM, Ending.LEFT, Phase.CONNECTING, ""): "CC",
    (Side.DOWNSTREAM, Ending.LEFT, Phase.CONNECTING, "queued"): "CQ",
    (Side.UPSTREAM, Ending.UNREACHABLE, Phase.CONNECTING, "connect-failed"): "SC",
    (Side.UPSTREAM, Ending.UNREACHABLE, Phase.CONNECTING, "connect-timeout"): "sC",
    (Side.PROXY, Ending.UNREACHABLE, Phase.CONNECTING, "no-server"): "SC",
    (Side.PROXY, Ending.UNREACHABLE, Phase.CONNECTING, "queue-full"): "SQ",
    (Side.PROXY, Ending.UNREACHABLE, Phase.CONNECTING, "queue-timeout"): "sQ",
    (Side.PROXY, Ending.UNREACHABLE, Phase.CONNECTING, "shortage"): "RC",
    (Side.PROXY, Ending.IDLE, Phase.RELAYING, ""): "cD",
    (Side.PROXY, Ending.HALF_CLOSE, Phase.RELAYING, ""): "cD",
    (Side.PROXY, Ending.DRAIN, Phase.RELAYING, ""): "KD",
    (Side.PROXY, Ending.DRAIN, Phase.CONNECTING, "queued"): "KQ",
    (Side.PROXY, Ending.REQUESTED, Phase.CONNECTING, ""): "KC",
    (Side.PROXY, Ending.SERVER_DOWN, Phase.RELAYING, ""): "DD",
    (Side.PROXY, Ending.FAULT, Phase.RELAYING, ""): "KD",
    (Side.PROXY, Ending.REFUSED, Phase.INSPECTING, "denied"): "PR",
    (Side.PROXY, Ending.REFUSED, Phase.INSPECTING, "router-timeout"): "PR",
    (Side.PROXY, Ending.HANDSHAKE, Phase.INSPECTING, "handshake-timeout"): "cR",
    (Side.PROXY, Ending.HANDSHAKE, Phase.INSPECTING, "tls"): "PR",
    (Side.PROXY, Ending.ERROR, Phase.RELAYING, "exception"): "ID",
}


@pytest.mark.parametrize(("facts", "state"), STATES.items(), ids=str)
def test_the_state(facts: tuple[Side, Ending, Phase, str], state: str) -> None:
    """Each way to end has the state that HAProxy has for it."""
    assert termination(close_reason(*facts[:3]), facts[3]) == state


def documented() -> list[list[str]]:
    """The rows of the table of states in the reference, without their backticks."""
    text = (ROOT / "docs/reference.md").read_text().partition("| `cause` | state |\n")[2]
    rows = text.partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip().replace("`", "") for cell in row.split("|")[1:-1]] for row in rows]


@pytest.mark.parametrize("row", documented(), ids=str)
def test_the_documented_state(row: list[str]) -> None:
    """The table of the reference says what is written."""
    by, hows, phase, cause, state = row
    for how in hows.split(", "):
        sides = Side if by == "any" else [Side(by)]
        phases = [Phase.RELAYING, Phase.CLOSING] if phase == "any" else [Phase(phase)]
        for side, in_phase in product(sides, phases):
            reason = close_reason(side, Ending(how), in_phase)
            assert termination(reason, "denied" if cause == "any" else cause) == state


def test_every_ending_and_cause_is_documented() -> None:
    """No way to end is missing in the table of states, and no cause in that of causes."""
    hows = [how for row in documented() for how in row[1].split(", ")]
    assert set(hows) == {each.value for each in Ending}
    reference = (ROOT / "docs/reference.md").read_text()
    causes = reference.partition("### Causes\n")[2].partition("\n###")[0]
    for cause in (*Cause, *Refusal):
        assert f"`{cause.value}`" in causes


def test_every_reason_has_a_state() -> None:
    """HAProxy knows both letters of every state, whatever a session ends for."""
    causes = ["", *(each.value for each in Cause), *(each.value for each in Refusal)]
    for by, how, phase, cause in product(Side, Ending, Phase, causes):
        assert re.fullmatch(
            "--|[CSPRIDKcs][RQCDL]", termination(close_reason(by, how, phase), cause)
        )


@given(st.floats(0, 253402300799 - 86400), st.floats(0, 253402300799 - 86400))
def test_a_stamp_is_the_local_time(first: float, second: float) -> None:
    """The stamp is right whatever the last one was, also past midnight."""
    stamps = Stamps(local)
    for when in (first, second, first):
        shown, _, milliseconds = stamps.of(when).rpartition(".")
        assert shown == time.strftime("%d/%b/%Y:%H:%M:%S", time.localtime(int(when)))
        assert int(milliseconds) == int((when - int(when)) * 1000)


def test_a_session_over_midnight() -> None:
    """A session that ends after midnight began on the day before."""
    midnight = 1795458600.0
    line = TcplogFormat().session(midnight + 0.5, FINISHED._replace(duration=1.0))
    assert " [23/Nov/2026:23:59:59.500] " in line
