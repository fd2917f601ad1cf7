"""Reading servers from files and values, and the rules for telling of them: all without I/O."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evproxy.errors import SettingsError
from evproxy.model import UpstreamServer
from evproxy.settings import Discover
from evproxy.upstream.discovery.announcer import Announcer
from evproxy.upstream.discovery.by_kind import discovery_for
from evproxy.upstream.discovery.polling import Backoff
from evproxy.upstream.discovery.server_list import (
    ItemReader,
    Listed,
    Unreadable,
)
from tests.support.discovery_recorder import Told
from tests.support.leaks import LoggedErrors

READER = ItemReader()
A = UpstreamServer("10.0.0.1:80")
B = UpstreamServer("10.0.0.2:80", weight=2, backup=True, max_sessions=5, priority=1)
ITEMS = [
    "10.0.0.1:80",
    {
        "endpoint": "10.0.0.2:80",
        "weight": 2,
        "backup": True,
        "max_sessions": 5,
        "priority": 1,
    },
]
TOML = b"""
upstreams = [
    "10.0.0.1:80",
    {endpoint = "10.0.0.2:80", weight = 2, backup = true, max_sessions = 5, priority = 1},
]
"""


def test_both_formats() -> None:
    """TOML and JSON say the same."""
    assert READER.toml_file(TOML) == Listed((A, B))
    assert READER.json_file(json.dumps({"upstreams": ITEMS}).encode()) == Listed((A, B))
    assert READER.toml_file(b"upstreams = []") == Listed(())


def test_byte_order_mark() -> None:
    """A byte order mark at the beginning is passed over, in TOML and in JSON."""
    mark = "\ufeff".encode()
    assert READER.toml_file(mark + TOML) == Listed((A, B))
    assert READER.json_file(mark + json.dumps({"upstreams": ITEMS}).encode()) == Listed((A, B))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "upstreams: expected an array of upstream servers"),
        (b"upstreams = 3", "upstreams: expected an array of upstream servers"),
        (b"upstream = []", "upstream: unknown key, expected upstreams alone"),
        (b"upstreams = [", "not TOML: "),
        (b"\xff", "not TOML: "),
    ],
)
def test_broken_toml(data: bytes, reason: str) -> None:
    """What is wrong is said in one line, with its place."""
    with pytest.raises(Unreadable) as raised:
        READER.toml_file(data)
    assert str(raised.value).startswith(reason)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"null", b"{", b'{"upstreams": NaN}', b"[" * 9999],
)
def test_broken_json(data: bytes) -> None:
    """Whatever is no such object is unreadable."""
    with pytest.raises(Unreadable):
        READER.json_file(data)


@pytest.mark.parametrize(
    ("item", "fault"),
    [
        ("nowhere", "upstreams[1]: expected HOST:PORT"),
        ("tcp:a:1", 'upstreams[1]: "tcp:a:1" is listed twice'),
        (
            {"endpoint": "b:1", "weight": "two"},
            "upstreams[1].weight: expected a whole number from 0 to 256, got",
        ),
        ({"endpoint": "b:1", "weight": 257}, "upstreams[1].weight: expected a whole number"),
        ({"endpoint": "b:1", "wieght": 1}, "upstreams[1].wieght: unknown key"),
        ({"endpoint": "b:1", "\ud800\x1b[2J": 1}, 'upstreams[1]."\\ud800\\u001b[2J": unknown'),
        ("b\x1b[2J:1", "upstreams[1]: expected HOST:PORT"),
        ("b\u202e:1", "upstreams[1]: expected HOST:PORT"),
        ("unix:/run/\u2066b", "upstreams[1]: expected HOST:PORT"),
        ("unix:/run/\nb", "upstreams[1]: expected HOST:PORT"),
        ("b\ud800:1", "upstreams[1]: expected HOST:PORT"),
        (None, "upstreams[1]: expected"),
        ([[]], "upstreams[1]: expected"),
    ],
)
def test_bad_item(item: object, fault: str) -> None:
    """An item that is no server is left out, with its place, in one line; the others count."""
    found = READER.json_file(json.dumps({"upstreams": ["a:1", item, "c:1"]}).encode())
    assert found.servers == (UpstreamServer("a:1"), UpstreamServer("c:1"))
    [said] = found.faults
    assert said.startswith(fault)
    assert said.isprintable()


@given(st.one_of(st.binary(), st.text().map(str.encode)))
def test_any_file(data: bytes) -> None:
    """Any bytes are read, or are unreadable, and nothing else happens."""
    for read in (READER.toml_file, READER.json_file):
        with suppress(Unreadable):
            read(data)


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just("a:1")),
    lambda inside: st.one_of(
        st.lists(inside, max_size=3),
        st.dictionaries(
            st.sampled_from(["endpoint", "weight", "backup", "priority", "x"]), inside, max_size=4
        ),
    ),
    max_leaves=5,
)


@given(st.lists(values, max_size=6))
def test_any_items(items: list[object]) -> None:
    """Each value is a server or has a fault, never both, and one does not touch another."""
    found = READER.items(items)
    for index, server in enumerate(found.servers):
        assert (server is None) == (index in found.faults)
    alone = [READER.items([item]).servers[0] for item in items]
    for together, single in zip(found.servers, alone, strict=True):
        assert together is None or together == single


def test_closer_look() -> None:
    """An endpoint that is refused on a closer look is a fault like any other."""
    reader = ItemReader(lambda endpoint: "no" if endpoint == "b:1" else None)
    found = reader.items(["a:1", "b:1"])
    assert found.servers == (UpstreamServer("a:1"), None)
    assert found.faults[1].message == "no"


def test_announcer() -> None:
    """A set is told when it is new, and when it is the first good news after bad ones."""
    told, announcer = Told(), Announcer()
    announcer.start(told.changed, told.failed)
    announcer.found((A,))
    announcer.found((A,))
    assert told.sets == [(A,)]
    announcer.failed("away")
    announcer.failed("away")
    assert told.failures == ["away", "away"]
    announcer.found((A,))
    assert told.sets == [(A,), (A,)]
    announcer.stop()
    announcer.found((B,))
    announcer.failed("away")
    assert len(told.sets) == len(told.failures) == 2


def test_announcer_problems() -> None:
    """A set is told too when something else is wrong with it, and after a failure."""
    announcer = Announcer()
    told = Told(source=announcer)
    heard = []

    def changed(servers: Sequence[UpstreamServer]) -> None:
        heard.append((*servers, *announcer.problems))

    announcer.start(changed, told.failed)
    announcer.found((A,), ["half"])
    announcer.found((A,), ["half"])
    announcer.found((B,), ["half"])
    announcer.found((B,), ["other\nhalf", "half"])
    announcer.found((B,), ["half"])
    announcer.found((B,))
    assert heard == [(A, "half"), (B, "half"), (B, "other half", "half"), (B, "half"), (B,)]
    heard.clear()
    announcer.failed("away")
    announcer.found((B,), ["half"])
    announcer.found((B,), ["half"])
    assert heard == [(B, "half")]
    assert told.failures == ["away"]


def test_announcer_broken() -> None:
    """What cannot be used is told once for each reason in a row; the next set is told."""
    told, announcer = Told(), Announcer()
    announcer.start(told.changed, told.failed)
    announcer.found((A,))
    for reason in ("half", "half", "all\nof it", "half"):
        announcer.unusable(reason)
    assert told.failures == ["half", "all of it", "half"]
    announcer.found((A,))
    assert told.sets == [(A,), (A,)]
    announcer.unusable("half")
    assert len(told.failures) == 4


def test_announcer_refused() -> None:
    """A set that the pool refuses is a failure, told once; the next set is told again."""
    told, announcer = Told(), Announcer()

    def refuses_b(servers: Sequence[UpstreamServer]) -> None:
        if B in servers:
            raise SettingsError("no\nB")
        told.changed(servers)

    announcer.start(refuses_b, told.failed)
    for servers in ((A,), (A, B), (A, B), (A,)):
        announcer.found(servers)
    assert (told.sets, told.failures) == ([(A,), (A,)], ["no B"])


def test_announcer_survives(logged_errors: LoggedErrors) -> None:
    """What a pool raises is logged, and stops nothing."""

    def raises(_: object) -> None:
        raise RuntimeError("a broken pool")

    announcer = Announcer()
    announcer.start(raises, raises)
    announcer.found((A,))
    announcer.failed("away")
    assert len(logged_errors.flush(RuntimeError)) == 2


@given(st.floats(0.01, 10), st.floats(0.01, 100), st.integers())
def test_backoff(first: float, most: float, seed: int) -> None:
    """Delays grow to a bound, differ by chance, and begin again after a reset."""
    backoff = Backoff(first, most, Random(seed))
    delays = [backoff.next() for _ in range(20)]
    assert first / 2 <= delays[0] <= first
    assert all(delay <= max(first, most) for delay in delays)
    assert delays[-1] >= max(first, most) / 2
    backoff.reset()
    assert backoff.next() <= first


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"kind": "consul"}, "kind"),
        ({"kind": "dns", "name": "a.test"}, "port"),
        ({"kind": "dns", "name": "", "port": 80}, "name"),
        ({"kind": "dns-srv", "name": "a..b"}, "name"),
        ({"kind": "dns-srv", "name": "a" * 64}, "name"),
        ({"kind": "dns", "name": "a.test", "port": 80, "nameservers": ("ns.test",)}, "nameservers"),
        ({"kind": "dns", "name": "a.test", "port": 80, "nameservers": ("::1:0:x",)}, "nameservers"),
        ({"kind": "file", "path": "servers.yaml"}, "path"),
        ({"kind": "etcd"}, "prefix"),
        ({"kind": "etcd", "prefix": "/a", "endpoints": ()}, "endpoints"),
        ({"kind": "file", "path": "a.toml", "min_interval": 0}, "min_interval"),
        ({"kind": "file", "path": "a.toml", "interval": "3"}, "interval"),
        ({"kind": "dns", "name": "a.test", "port": "80"}, "port"),
        ({"kind": "etcd", "prefix": "/a", "endpoints": "http://a"}, "endpoints"),
        ({"kind": "file", "path": "a.toml", "interval": 1, "min_interval": 2}, "min_interval"),
    ],
)
def test_refused_settings(reactor: object, given: dict[str, Any], key: str) -> None:
    """What cannot be discovered is refused before the first look, with the key."""
    with pytest.raises(SettingsError, match=rf"^discover\.{key}\b"):
        discovery_for(reactor, Discover(**given), Random(1))
