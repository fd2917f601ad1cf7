"""A server that is its own listener is found before sessions run in a loop."""

from __future__ import annotations

from typing import Any

import pytest

from evproxy import Pool, ProxyService, SettingsError
from evproxy.config.loops import loops
from evproxy.model import UpstreamServer
from evproxy.settings import HealthCheck, ListenerSettings, PoolSettings


def found(listen: str, server: str) -> bool:
    """Whether `server` is found to be the listener `listen`."""
    pools = [PoolSettings("p", (UpstreamServer("a:1"), UpstreamServer(server)))]
    return [loop.index for loop in loops([ListenerSettings(listen, "p")], pools)] == [1]


@pytest.mark.parametrize(
    ("listen", "server"),
    [
        ("tcp:80:interface=127.0.0.1", "127.0.0.1:80"),
        ("tcp:80:interface=127.0.0.1", "LOCALHOST:80"),
        ("tcp:80:interface=127.0.0.1", "tcp:host=127.0.0.1:port=080"),
        ("tcp:80:interface=127.0.0.1", "[::ffff:127.0.0.1]:80"),
        ("tcp:port=080:127.0.0.1", "127.0.0.1:80"),
        ("tcp:80", "127.9.9.9:80"),
        ("tcp:80", "0.0.0.0:80"),
        ("ssl:80:privateKey=a", "127.0.0.1:80"),
        ("tcp6:80", "[::1]:80"),
        ("tcp6:80", "127.0.0.1:80"),
        (r"tcp:80:interface=\:\:", "localhost:80"),
        (r"tcp:80:interface=2001\:db8\:0\:\:1", r"tcp:2001\:db8\:\:1:80"),
        ("tcp:80:interface=10.0.0.1", "10.0.0.1:80"),
        ("unix:/a/s:mode=600", "unix:/a/s"),
        ("unix:address=/a/s", "unix:path=/a/s"),
        ("unix:/a/s", "unix:/a/./s"),
    ],
)
def test_a_loop(listen: str, server: str) -> None:
    """A loop is found in every spelling of the addresses, if it needs no look-up."""
    assert found(listen, server)


@pytest.mark.parametrize(
    ("listen", "server"),
    [
        ("tcp:80:interface=127.0.0.1", "127.0.0.1:81"),
        ("tcp:80:interface=127.0.0.1", "127.0.0.2:80"),
        ("tcp:80:interface=127.0.0.1", "[::1]:80"),
        ("tcp:80:interface=10.0.0.1", "localhost:80"),
        ("tcp:80", "[::1]:80"),
        ("tcp:80", "10.0.0.1:80"),
        ("tcp:80", "example.org:80"),
        ("tcp:0", "127.0.0.1:0"),
        ("unix:/a", "unix:/b"),
        ("unix:", "unix:"),
        ("systemd:domain=INET:index=0", "127.0.0.1:80"),
        ("tcp:", "127.0.0.1:80"),
    ],
)
def test_no_loop(listen: str, server: str) -> None:
    """A server that may be another host is accepted."""
    assert not found(listen, server)


def test_a_chain_and_a_circle() -> None:
    """A listener may be the server of another listener, unless that leads back."""
    listeners = [
        ListenerSettings("tcp:80", "one"),
        ListenerSettings("tcp:81", "two"),
        ListenerSettings("tcp:82", "one"),
    ]
    one = PoolSettings("one", (UpstreamServer("localhost:81"),))
    assert list(loops(listeners, [one, PoolSettings("two", (UpstreamServer("a:1"),))])) == []
    two = PoolSettings("two", (UpstreamServer("a:1"), UpstreamServer("localhost:80")))
    circle = [(each.pool.name, each.index, each.listener) for each in loops(listeners, [one, two])]
    assert circle == [("one", 0, listeners[0]), ("two", 1, listeners[1])]


def test_a_service_refuses_it(reactor: Any) -> None:
    """A program gets the same error."""
    with pytest.raises(SettingsError) as raised:
        ProxyService(reactor, ["tcp:8080"], ["127.0.0.1:8080"])
    line = 'upstreams: "127.0.0.1:8080" leads back to the listener "tcp:8080"'
    assert str(raised.value) == line


@pytest.mark.parametrize(
    ("endpoint", "check", "line"),
    [
        (
            "tls:a:443",
            HealthCheck("tls"),
            "kind: a second TLS handshake inside tls:a:443 can never succeed",
        ),
        (
            "unix:/a",
            HealthCheck(port=1),
            "port: cannot check port 1: unix:/a is not a host and a port",
        ),
        (
            "a:1",
            HealthCheck("http", method="HEAD", expect_text="x"),
            "expect_text: the answer to HEAD has no body",
        ),
        (
            "a:1",
            HealthCheck("http", expect_status=(304,), expect_text="x"),
            "expect_status: an answer of status 304 has no body for expect_text",
        ),
        (
            "a:1",
            HealthCheck("send-expect", expect="x" * 16385),
            "expect: it is longer than the 16384 bytes that a check reads of an answer",
        ),
    ],
)
def test_a_pool_refuses_a_check_that_cannot_work(
    reactor: Any, endpoint: str, check: HealthCheck, line: str
) -> None:
    """`Pool` refuses a check that its servers can never pass."""
    with pytest.raises(SettingsError) as raised:
        Pool(reactor, [endpoint], health_check=check)
    assert str(raised.value) == f"health_check.{line}"


def test_a_server_that_cannot_pass_its_check_is_not_added(reactor: Any) -> None:
    """A running pool refuses such a server too."""
    pool = Pool(reactor, ["a:1"], health_check=HealthCheck("tls"))
    with pytest.raises(SettingsError, match=r"^health_check\.kind: a second TLS handshake inside"):
        pool.add("tls:a:443")
    assert [server.name for server in pool.servers] == ["a:1"]
