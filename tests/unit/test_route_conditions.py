"""The conditions of declared routes, as tables."""

from __future__ import annotations

import pytest

from evproxy.policy.routes import CONDITIONS, Conditions, name_matches
from evproxy.settings import RouteSettings
from evproxy.wire.client_hello import ClientHello
from evproxy.wire.postgres import Startup


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("example.org", "example.org", True),
        ("example.org", "www.example.org", False),
        ("*.example.org", "www.example.org", True),
        ("*.example.org", "a.b.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", "badexample.org", False),
        ("*.example.org", "", False),
        ("*", "anything", True),
        ("*", "", False),
        ("a.b", "axb", False),
    ],
)
def test_names(pattern: str, name: str, matches: bool) -> None:
    """A pattern matches from end to end, and a star stands for at least one label."""
    assert name_matches(pattern, name) == matches


@pytest.mark.parametrize(
    ("route", "host", "listener", "certificate", "hold"),
    [
        ({}, "10.0.0.1", "web", "", True),
        ({"peer": "10.0.0.0/8"}, "10.9.9.9", "web", "", True),
        ({"peer": "10.0.0.0/8"}, "11.0.0.1", "web", "", False),
        ({"peer": "10.0.0.0/8"}, "", "web", "", False),
        ({"peer": "2001:db8::/32"}, "2001:db8::1", "web", "", True),
        ({"listener": "web"}, "10.0.0.1", "web", "", True),
        ({"listener": "web"}, "10.0.0.1", "admin", "", False),
        ({"client_cert": "alice"}, "10.0.0.1", "web", "alice", True),
        ({"client_cert": "*.Staff"}, "10.0.0.1", "web", "Alice.staff", True),
        ({"client_cert": "*"}, "10.0.0.1", "web", "", False),
        ({"peer": "10.0.0.0/8", "listener": "web"}, "10.0.0.1", "admin", "", False),
    ],
)
def test_conditions_without_reading(
    route: dict[str, str], host: str, listener: str, certificate: str, hold: bool
) -> None:
    """All conditions must hold; a client without an address is in no network."""
    conditions = Conditions(RouteSettings("pool", **route))
    assert conditions.hold_for(host, listener, certificate) == hold
    assert not conditions.reads


HELLO = ClientHello("www.example.org", (b"h2", b"http/1.1"))


@pytest.mark.parametrize(
    ("route", "hello", "hold"),
    [
        ({"sni": "WWW.example.org"}, HELLO, True),
        ({"sni": "example.org"}, HELLO, False),
        ({"sni": "*"}, ClientHello(None), False),
        ({"alpn": "h2"}, HELLO, True),
        ({"alpn": "h3"}, HELLO, False),
        ({"sni": "*.example.org", "alpn": "h2"}, HELLO, True),
        ({"sni": "*.example.org", "alpn": "h3"}, HELLO, False),
        ({"alpn": "h2"}, ClientHello(None), False),
    ],
)
def test_conditions_on_a_hello(route: dict[str, str], hello: ClientHello, hold: bool) -> None:
    """The name and a protocol of the client must match."""
    conditions = Conditions(RouteSettings("pool", **route))
    assert conditions.hold_for_hello(hello) == hold
    assert conditions.reads_hello


@pytest.mark.parametrize(
    ("route", "hold"),
    [
        ({"postgres_user": "alice"}, True),
        ({"postgres_user": "Alice"}, False),
        ({"postgres_database": "shop"}, True),
        ({"postgres_user": "alice", "postgres_database": "other"}, False),
    ],
)
def test_conditions_on_a_start(route: dict[str, str], hold: bool) -> None:
    """The user and the database are compared as they are."""
    start = Startup(0, {"user": "alice", "database": "shop"})
    conditions = Conditions(RouteSettings("pool", **route))
    assert conditions.hold_for_start(start) == hold
    assert conditions.reads_start


def test_every_condition_is_named() -> None:
    """The log names each key of a route but its pool."""
    keys = {name: "h2" for name in CONDITIONS if name != "peer"}
    conditions = Conditions(RouteSettings("pool", peer="::1", **keys))
    assert str(conditions).startswith("listener h2, peer ::1, client_cert h2, sni h2, alpn h2, ")
    assert {*CONDITIONS, "pool"} == {each.name for each in RouteSettings.__attrs_attrs__}
