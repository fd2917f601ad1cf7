"""
``twistd evproxy``: options to settings to service, and nothing else.

``docs/reference.md`` describes the options; a test compares it with `OPTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any, ClassVar

from attrs import evolve, frozen
from twisted.application.service import IService, MultiService
from twisted.python import usage

from evproxy.config import ConfigErrors
from evproxy.demo import DemoService
from evproxy.errors import SettingsError
from evproxy.model import UpstreamServer
from evproxy.policy.balance import NAMES
from evproxy.process import Process, cannot_start, raise_open_file_limit
from evproxy.reading import listen_fault, read_settings, upstream_fault
from evproxy.service import ProxyService
from evproxy.settings import (
    DEFAULT_LISTEN,
    MILLISECOND,
    MOST_IN_A_ROW,
    MOST_SESSIONS,
    RELAYS,
    YEAR,
    Keepalive,
    ListenerSettings,
    PoolSettings,
    Settings,
    Timeouts,
)


class _Default(str):
    """The value of an option that was not given."""

    __slots__ = ()


@frozen
class _Value:
    """What an option's value may be: in words, and as a function that raises `ValueError`."""

    expected: str
    read: Callable[[str], Any]


def _seconds(least: float) -> _Value:
    def read(text: str) -> float:
        value = float(text)
        if not least <= value <= YEAR:
            raise ValueError
        return value

    return _Value(f"a number of seconds from {least:g} to {YEAR}", read)


def _whole(least: int, most: int) -> _Value:
    def read(text: str) -> int:
        value = int(text) if len(text) < 20 else -1
        if not least <= value <= most:
            raise ValueError
        return value

    return _Value(f"a whole number from {least} to {most}", read)


def _one_of(*choices: str) -> _Value:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return _Value(f"one of {', '.join(choices)}", read)


@frozen
class Option:
    """An option with a value: its name, what it may be and is by default, and what it means."""

    name: str
    value: _Value
    default: str
    meaning: str


OPTIONS = (
    Option("balance", _one_of(*NAMES), "round-robin", "How a server is picked"),
    Option("connect-timeout", _seconds(MILLISECOND), "5", "For the connect to one server"),
    Option(
        "connect-attempts", _whole(1, MOST_IN_A_ROW), "3", "Distinct servers tried for one session"
    ),
    Option("idle-timeout", _seconds(0), "3600", "With no byte moved, before a reset; 0: never"),
    Option("half-close-timeout", _seconds(MILLISECOND), "30", "The same after one stream's end"),
    Option("drain-timeout", _seconds(0), "30", "What sessions have left when evproxy is stopped"),
    Option("max-sessions", _whole(0, MOST_SESSIONS), "0", "0: as the limit on open files allows"),
    Option("keepalive-idle", _whole(1, 32767), "60", "Seconds until an idle peer is probed"),
    Option("keepalive-interval", _whole(1, 32767), "10", "Seconds between two such probes"),
    Option("keepalive-probes", _whole(1, 127), "6", "Unanswered probes that break a connection"),
    Option("relay", _one_of(*RELAYS), "auto", "How bytes are moved"),
    Option("access-log", _one_of("log", "off"), "log", "Whether each session's end is logged"),
)
"""Every option that has one value with a default."""

NOT_IN_THE_FILE = ("keepalive-idle", "keepalive-interval", "keepalive-probes", "access-log")
"""The options that go along with ``--config``, as the file has no key for them."""


class Options(usage.Options):
    """The options of ``twistd evproxy``."""

    synopsis = "[options] --upstream=ADDRESS [--upstream=ADDRESS ...]"
    longdesc = (
        "An event-driven TCP proxy. Times are in seconds, sizes in bytes. ADDRESS is "
        "HOST:PORT, [v6]:PORT or a Twisted client endpoint description."
    )

    optFlags: ClassVar = [
        ["demo", None, "Proxy an embedded web page, to try evproxy out; no --upstream is needed."],
    ]

    optParameters: ClassVar = [
        ["config", None, None, "A configuration file in place of most other options."],
        *(
            [
                option.name,
                None,
                _Default(option.default),
                f"{option.meaning} ({option.value.expected}).",
            ]
            for option in OPTIONS
        ),
    ]

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []
        self["upstream"] = []

    def opt_listen(self, description: str) -> None:
        """
        A Twisted server endpoint description to listen on; repeatable.
        [default: tcp:8080:interface=127.0.0.1]
        """
        self["listen"].append(description)

    def opt_upstream(self, address: str) -> None:
        """The ADDRESS of a server to connect to; repeatable."""
        self["upstream"].append(address)

    def opt_version(self) -> None:
        """Display the versions of evproxy and of Twisted, and exit."""
        print(f"evproxy {version('evproxy')}, Twisted {version('twisted')}")
        raise SystemExit(0)

    def parseOptions(self, options: list[str] | None = None) -> None:
        """Parse; what is wrong is one line each on standard error, and the end."""
        try:
            super().parseOptions(options)
        except ConfigErrors as errors:
            cannot_start(f"{self['config']}: {problem}" for problem in errors.problems)
        except usage.UsageError as error:
            cannot_start([f"evproxy: {error}"])

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise usage.UsageError(f"unexpected argument {arguments[0]!r}")

    def postOptions(self) -> None:
        values = {option.name: self._value(option) for option in OPTIONS}
        keepalive = Keepalive(
            idle=values["keepalive-idle"],
            interval=values["keepalive-interval"],
            probes=values["keepalive-probes"],
        )
        settings = self._settings(values) if self["config"] is None else self._from_file()
        self.settings = evolve(
            settings, keepalive=keepalive, access_log=values["access-log"] == "log"
        )

    @property
    def listen_source(self) -> str:
        """Where it is said where to listen: the option, or the file."""
        return "evproxy: --listen" if self["config"] is None else f"{self['config']}: listeners"

    def _value(self, option: Option) -> Any:
        text = self[option.name]
        try:
            return option.value.read(text)
        except ValueError:
            raise usage.UsageError(
                f"--{option.name}: expected {option.value.expected}, got {text!r}"
            ) from None

    def _from_file(self) -> Settings:
        if not self["config"]:
            raise usage.UsageError("--config: expected the path of a file, got ''")
        given = [name for name in ("listen", "upstream", "demo") if self[name]]
        given += [each.name for each in OPTIONS if not isinstance(self[each.name], _Default)]
        for name in given:
            if name not in NOT_IN_THE_FILE:
                there = "" if name == "demo" else ", set it there"
                raise usage.UsageError(f"--{name}: cannot be used with --config{there}")
        return read_settings(self["config"])

    def _settings(self, values: dict[str, Any]) -> Settings:
        upstreams, listen = self["upstream"], self["listen"] or [DEFAULT_LISTEN]
        if self["demo"] and upstreams:
            raise usage.UsageError("--demo: comes with its own server, leave --upstream out")
        if not self["demo"] and not upstreams:
            raise usage.UsageError("--upstream: at least one is needed (or --demo, or --config)")
        _refuse_repeated("upstream", upstreams, lambda each: each.removeprefix("tcp:"))
        for name, fault_of, descriptions in (
            ("upstream", upstream_fault, upstreams),
            ("listen", listen_fault, listen),
        ):
            for fault in filter(None, map(fault_of, descriptions)):
                raise usage.UsageError(f"--{name}: {fault}")
        return Settings(
            listeners=tuple(map(ListenerSettings, listen)),
            pools=(
                PoolSettings(
                    upstreams=tuple(map(UpstreamServer, upstreams)),
                    balance=values["balance"],
                    connect_timeout=values["connect-timeout"],
                    connect_attempts=values["connect-attempts"],
                ),
            ),
            timeouts=Timeouts(
                idle=values["idle-timeout"],
                half_close=values["half-close-timeout"],
                drain=values["drain-timeout"],
            ),
            max_sessions=values["max-sessions"],
            relay=values["relay"],
        )


def _refuse_repeated(name: str, values: list[str], known_as: Callable[[str], str]) -> None:
    seen: set[str] = set()
    for value in values:
        if known_as(value) in seen:
            raise usage.UsageError(f"--{name}: {value!r} is given twice")
        seen.add(known_as(value))


def makeService(options: Options) -> IService:
    """The service for `options`, as twistd wants it."""
    from twisted.internet import reactor

    raise_open_file_limit()
    services = MultiService()
    try:
        proxy = ProxyService.from_settings(reactor, options.settings)
    except SettingsError as error:
        cannot_start([f"{options['config'] or 'evproxy'}: {error}"])
    if options["demo"]:
        pool: Any = proxy.pools["default"]
        demo = DemoService(reactor, lambda port: pool.add(UpstreamServer(f"127.0.0.1:{port}")))
        demo.setServiceParent(services)
    proxy.setServiceParent(services)
    return Process(reactor, proxy, services, options.listen_source)


__all__ = ["Options", "makeService"]
