"""What differs between two settings."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from evproxy.config.changes import address_of, changes, listener_pairs, needs_restart
from evproxy.model import UpstreamServer
from evproxy.settings import (
    AccessLogSettings,
    Ejection,
    Keepalive,
    ListenerSettings,
    PoolSettings,
    RouteSettings,
    Settings,
    Timeouts,
)

A, B = UpstreamServer("10.0.0.1:80"), UpstreamServer("10.0.0.2:80")
WEB = PoolSettings("web", (A, B))
BEFORE = Settings(listeners=(ListenerSettings("tcp:80", "web"),), pools=(WEB,))


def lines(**after: Any) -> list[str]:
    return [str(change) for change in changes(BEFORE, evolve(BEFORE, **after)).lines]


def listener(**fields: Any) -> list[str]:
    return lines(listeners=(evolve(BEFORE.listeners[0], **fields),))


def pool(**fields: Any) -> list[str]:
    return lines(pools=(evolve(WEB, **fields),))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lines(), []),
        (
            lines(listeners=(*BEFORE.listeners, ListenerSettings("tcp:81", "web", name="new"))),
            ["listener new: added"],
        ),
        (lines(listeners=()), ["listener tcp:80: removed"]),
        (listener(max_sessions=7), ["listener tcp:80: max_sessions: 0 -> 7"]),
        (
            listener(listen="tcp:80:backlog=7"),
            ['listener tcp:80: listen: "tcp:80" -> "tcp:80:backlog=7"'],
        ),
        (listener(deny=("10.0.0.0/8",)), ['listener tcp:80: deny: [] -> ["10.0.0.0/8"]']),
        (
            listener(routes=(RouteSettings("web", sni="a.test"),)),
            ['listener tcp:80: routes: [] -> [{pool = "web", sni = "a.test"}]'],
        ),
        (lines(pools=()), ["pool web: removed"]),
        (lines(pools=(WEB, PoolSettings("WEB", (A,)))), ["pool WEB: added"]),
        (pool(upstreams=(A,)), ["pool web: server 10.0.0.2:80: removed"]),
        (pool(upstreams=(B, A)), []),
        (
            pool(upstreams=(A, evolve(B, weight=3), UpstreamServer("unix:/s"))),
            ["pool web: server 10.0.0.2:80: weight: 1 -> 3", "pool web: server unix:/s: added"],
        ),
        (
            pool(upstreams=(UpstreamServer("tcp:10.0.0.1:80"), B)),
            ['pool web: server 10.0.0.1:80: endpoint: "10.0.0.1:80" -> "tcp:10.0.0.1:80"'],
        ),
        (pool(ejection=Ejection(failures=9)), ["pool web: ejection: none -> {failures = 9}"]),
        (lines(timeouts=Timeouts(idle=9)), ["timeouts: idle: 3600.0 -> 9"]),
        (lines(max_sessions=9), ["max_sessions: 0 -> 9"]),
        (
            lines(access_log=AccessLogSettings("/a\n", "json")),
            ['access_log: path: "auto" -> "/a\\n"', 'access_log: format: "text" -> "json"'],
        ),
        (pool(name="x" * 200), [f"pool {'x' * 200}: added", "pool web: removed"]),
    ],
)
def test_the_lines(found: list[str], expected: list[str]) -> None:
    """Each difference is one line: which part it is, and what is different."""
    assert found == expected


def test_what_needs_a_restart() -> None:
    """A difference that no reload can make is a line that says so."""
    after = evolve(BEFORE, relay="stream", keepalive=Keepalive(idle=7), max_sessions=9)
    assert needs_restart(BEFORE, after) == (
        "keepalive: idle: 60 -> 7, which needs a restart",
        'relay: "auto" -> "stream", which needs a restart',
    )
    assert needs_restart(BEFORE, evolve(BEFORE, max_sessions=9)) == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tcp:80", "tcp:080:interface=0.0.0.0"),
        ("tcp:80:interface=127.0.0.1", "ssl:80:privateKey=a:interface=127.0.0.1"),
        ("tcp6:80", r"tcp:80:interface=\:\:"),
        ("unix:/a", "unix:address=/a:mode=600"),
    ],
)
def test_descriptions_of_one_address(one: str, other: str) -> None:
    """A listener stays the same if only the rest of its description differs."""
    assert address_of(one) == address_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("tcp:80", "tcp:81"), ("tcp:80", "tcp6:80"), ("unix:/a", "unix:/A"), ("tcp:0", "tcp:00")],
)
def test_descriptions_of_two_addresses(one: str, other: str) -> None:
    """Other ports, families and paths are other listeners; so are ports that nobody knows yet."""
    assert address_of(one) != address_of(other)


def test_each_listener_has_one_before() -> None:
    """The name counts first, then the description, then the address."""
    any_port = [ListenerSettings("tcp:0", name=name) for name in "abc"]
    moved = ListenerSettings("tcp:80:backlog=7")
    after = [any_port[2], moved, any_port[0]]
    pairs = listener_pairs([any_port[0], any_port[1], BEFORE.listeners[0]], after)
    assert [(pair.before, pair.after) for pair in pairs] == [
        (any_port[1], any_port[2]),
        (BEFORE.listeners[0], moved),
        (any_port[0], any_port[0]),
    ]
