"""The settings: bounds and defaults are the same in the file, the options and the library."""

from __future__ import annotations

from inspect import Parameter, signature
from typing import Any

import attrs
import pytest

from evproxy import Pool, ProxyService, SettingsError
from evproxy.cli.tap import OPTIONS
from evproxy.config.declare import declared
from evproxy.config.rules import Seconds, Whole
from evproxy.settings import (
    DEFAULT_LISTEN,
    AccessLogSettings,
    AdminSettings,
    Ejection,
    HealthCheck,
    Keepalive,
    ListenerSettings,
    PoolSettings,
    Settings,
    Timeouts,
    WatchdogSettings,
)

SET_BY = {
    each.setting.option.replace("-", "_"): (table, each.name)
    for table in (
        *(ListenerSettings, PoolSettings, Timeouts, Settings, Keepalive),
        *(AccessLogSettings, WatchdogSettings, AdminSettings),
    )
    for each in declared(table)
    if each.setting.option
} | {"source": (PoolSettings, "source")}
"""The setting that an option, or an argument of `ProxyService`, is."""

YEAR, MOST = 31536000, 1_000_000_000
TIME = "a number of seconds from 0 to 31536000"
TIME_MORE_THAN_ZERO = "a number of seconds from 0.001 to 31536000"
SESSIONS = "a whole number from 0 to 1000000000"


def refused(argument: str, expected: str, *values: Any) -> list[Any]:
    """One case for each of `values`, and the line that refuses it."""
    return [
        pytest.param({argument: value}, f"{argument}: expected {expected}, got {value!r}")
        for value in values
    ]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        *refused("connect_attempts", "a whole number from 1 to 1000", 0, 1001, 1.0, True, "3"),
        *refused("connect_timeout", TIME_MORE_THAN_ZERO, 0, -1, YEAR + 1, "5", None, float("nan")),
        *refused("idle_timeout", TIME, -5, float("inf"), True),
        *refused("half_close_timeout", TIME_MORE_THAN_ZERO, 0, -0.5),
        *refused("drain_timeout", TIME, "x", -1, None),
        *refused("max_sessions", SESSIONS, -3, MOST + 1, 1.5),
        *refused("relay", 'one of "auto", "stream" or "socket"', "fast", None),
        *refused("upstreams", "a sequence of at least one server (or a pool)", (), [], "a:1"),
        *refused(
            "listen", "a sequence of at least one server endpoint description", (), "tcp:8080"
        ),
    ],
)
def test_a_service_refuses_it(reactor: Any, given: dict[str, Any], line: str) -> None:
    """The error for a wrong value is one line with the argument and the expected values."""
    with pytest.raises(SettingsError) as raised:
        ProxyService(reactor, **{"upstreams": ["127.0.0.1:1"], **given})
    assert str(raised.value) == line


@pytest.mark.parametrize(
    ("given", "line"),
    [
        *refused("connect_attempts", "a whole number from 1 to 1000", 0),
        *refused("connect_timeout", TIME_MORE_THAN_ZERO, 0),
        *refused("queue_timeout", TIME, -1),
        *refused("queue_size", SESSIONS, -1),
        *refused("slow_start", TIME, -1),
        *refused("on_down", 'one of "keep" or "reset"', "kill"),
        *refused("all_down", 'one of "refuse" or "try"', "panic"),
    ],
)
def test_a_pool_refuses_it(reactor: Any, given: dict[str, Any], line: str) -> None:
    """`Pool` checks its settings too."""
    with pytest.raises(SettingsError) as raised:
        Pool(reactor, ["127.0.0.1:1"], **given)
    assert str(raised.value) == line


@pytest.mark.parametrize(
    "given",
    [
        {"idle_timeout": 0, "drain_timeout": 0, "max_sessions": 0},
        {"idle_timeout": YEAR, "drain_timeout": YEAR, "half_close_timeout": YEAR},
        {"connect_timeout": 0.001, "connect_attempts": 1000, "max_sessions": MOST},
    ],
)
def test_a_service_accepts_the_extremes(reactor: Any, given: dict[str, Any]) -> None:
    """Zero keeps its meaning, and the bounds themselves are accepted."""
    ProxyService(reactor, upstreams=["127.0.0.1:1"], **given)


NUMBERS = [
    pytest.param(table, each.name, each.setting.rule, id=f"{table.__name__}.{each.name}")
    for table in (Timeouts, PoolSettings, Ejection, HealthCheck, Settings, Keepalive)
    for each in declared(table)
    if isinstance(each.setting.rule, Whole | Seconds)
]


@pytest.mark.parametrize(("table", "name", "rule"), NUMBERS)
def test_a_number_has_its_bounds(table: type, name: str, rule: Whole | Seconds) -> None:
    """A program may set what a file may set, and no more."""
    for value in (rule.low, rule.high):
        table(**{name: value})
    for value in (rule.low - 1, rule.high + 1):
        with pytest.raises(SettingsError, match=f": expected {rule.expected}, got "):
            table(**{name: value})


def default_of(cls: type, name: str) -> Any:
    """The default of a setting."""
    return getattr(attrs.fields(cls), name).default


def defaults(called: Any) -> dict[str, Any]:
    """The arguments of `called` that have a default, with it."""
    found = signature(called).parameters.values()
    return {each.name: each.default for each in found if each.default is not Parameter.empty}


def test_a_pool_has_the_defaults_of_its_settings() -> None:
    """Each field of `PoolSettings` is an argument of `Pool`, with the same default."""
    given = defaults(Pool)
    given["upstreams"] = given.pop("servers")
    for attribute in attrs.fields(PoolSettings):
        assert given[attribute.name] == attribute.default, attribute.name


def test_a_service_has_the_defaults_of_its_settings() -> None:
    """Each argument of `ProxyService` that is a setting has the same default."""
    given = defaults(ProxyService)
    assert (given.pop("listen"), given.pop("upstreams")) == ((DEFAULT_LISTEN,), ())
    assert (given.pop("pool"), given.pop("observers"), given.pop("troubles")) == (None, (), ())
    assert (given.pop("settings"), given.pop("make_pool"), given.pop("stages")) == (None, None, ())
    assert given.pop("make_admin") is None
    assert given.pop("handshake_timeout") == Timeouts().handshake
    assert given.pop("accept_proxy_protocol_from") == ()
    assert given.pop("keepalive") == Keepalive()
    assert given.pop("access_log") is True
    assert given == {name: default_of(*SET_BY[name]) for name in given}
    assert default_of(ListenerSettings, "listen") == DEFAULT_LISTEN
    assert default_of(Settings, "timeouts") == Timeouts()
    assert default_of(Settings, "keepalive") == Keepalive()
    assert default_of(Settings, "admin") == AdminSettings()
    assert default_of(Settings, "access_log") == AccessLogSettings()


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_an_option_has_the_default_of_its_setting(option: Any) -> None:
    """The command line, the file and the library have the same defaults."""
    cls, name = SET_BY[option.name.replace("-", "_")]
    assert option.rule.read(option.default) == default_of(cls, name)
