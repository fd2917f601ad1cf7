"""
``twistd evproxy``: turns options into settings, and settings into a service.

``docs/reference.md`` describes the options; a test compares that page with `OPTIONS`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import evolve, frozen
from twisted.application.service import IService, MultiService
from twisted.logger import globalLogPublisher
from twisted.python import usage

from evproxy.admin.access import token_of
from evproxy.cli.process import Process, cannot_start, raise_open_file_limit
from evproxy.cli.settings_file import listen_fault, read_settings, upstream_fault
from evproxy.cli.workers import worker_command, worker_count
from evproxy.config.addresses import any_free_port, listening_place, servers_in
from evproxy.config.canonical import server_name
from evproxy.config.conflicts import unserved
from evproxy.config.declare import declared, keys_of
from evproxy.config.document import ConfigErrors
from evproxy.config.loops import loops
from evproxy.config.problems import quoted
from evproxy.config.reading import Rule, Unfit
from evproxy.errors import SettingsError
from evproxy.escape import escaped
from evproxy.model import UpstreamServer
from evproxy.policy.sources import source_fault
from evproxy.service.listener import listener_permissions, listeners_for
from evproxy.service.restart import Restarts
from evproxy.service.service import ProxyService
from evproxy.service.systemd import Systemd
from evproxy.settings import (
    DEFAULT_LISTEN,
    AccessLogSettings,
    AdminSettings,
    Keepalive,
    ListenerSettings,
    PoolSettings,
    Settings,
    Timeouts,
    WatchdogSettings,
    too_many_sources,
)

if TYPE_CHECKING:
    from evproxy.workers.supervisor import Supervisor


class _Default(str):
    """The value of an option that the user did not give."""

    __slots__ = ()


@frozen
class Option:
    """
    An option with a value.

    `table` and `key`: the setting that the option sets.
    """

    name: str
    rule: Rule
    default: str
    meaning: str
    table: type
    key: str

    @property
    def in_file(self) -> bool:
        """Whether the file has a key for this setting."""
        return self.key in keys_of(self.table)


def _options() -> Iterator[Option]:
    """Every option that is declared with a setting, in the order of the declarations."""
    for table in (
        ListenerSettings,
        PoolSettings,
        Timeouts,
        Settings,
        Keepalive,
        AccessLogSettings,
        WatchdogSettings,
        AdminSettings,
    ):
        for each in declared(table):
            if each.setting.option:
                default = each.default
                shown = f"{default:g}" if isinstance(default, float) else str(default)
                yield Option(
                    each.setting.option,
                    each.setting.rule,
                    shown,
                    each.setting.meaning,
                    table,
                    each.name,
                )


OPTIONS = tuple(_options())
"""Every option that has one value and a default."""

Values = dict[type, dict[str, Any]]
"""The values of settings, by table and key."""


class Options(usage.Options):
    """The options of ``twistd evproxy``."""

    synopsis = "[options] --upstream=ADDRESS [--upstream=ADDRESS ...]"
    longdesc = (
        "An event-driven TCP proxy. Times are in seconds, sizes in bytes. ADDRESS is "
        "HOST:PORT, [v6]:PORT or a Twisted client endpoint description."
    )

    optFlags: ClassVar = [
        ["demo", None, "Proxy a built-in web page, to try evproxy; needs no --upstream."],
    ]

    optParameters: ClassVar = [
        ["config", None, None, "A configuration file, which replaces most other options."],
        *(
            [
                option.name,
                None,
                _Default(option.default),
                f"{option.meaning} ({option.rule.expected})",
            ]
            for option in OPTIONS
        ),
    ]

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []
        self["upstream"] = []
        self["source"] = []

    def opt_listen(self, description: str) -> None:
        """
        A Twisted server endpoint description to listen on; repeatable.
        [default: tcp:8080:interface=127.0.0.1]
        """
        self["listen"].append(description)

    def opt_upstream(self, address: str) -> None:
        """The ADDRESS of a server to connect to; repeatable."""
        self["upstream"].append(address)

    def opt_source(self, address: str) -> None:
        """
        An IP address of this machine, or a range of them (CIDR), to connect to servers
        from; repeatable: each gets its turn.  [default: as the kernel chooses]
        """
        self["source"].append(address)

    def opt_version(self) -> None:
        """Display the versions of evproxy and of Twisted, and exit."""
        print(f"evproxy {version('evproxy')}, Twisted {version('twisted')}")
        raise SystemExit(0)

    def parseOptions(self, options: list[str] | None = None) -> None:
        """Parse; print one line to standard error for each problem, and exit."""
        try:
            super().parseOptions(options)
        except ConfigErrors as errors:
            name = escaped(self["config"])
            cannot_start(f"{name}: {problem}" for problem in errors.problems)
        except usage.UsageError as error:
            cannot_start([f"evproxy: {error}"])

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise usage.UsageError(f"unexpected argument {arguments[0]!r}")

    def postOptions(self) -> None:
        values: Values = {}
        for option in OPTIONS:
            values.setdefault(option.table, {})[option.key] = self._value(option)
        settings = self._settings(values) if self["config"] is None else self._from_file()
        self.settings = evolve(settings, keepalive=Keepalive(**values[Keepalive]))

    @property
    def listen_source(self) -> str:
        """The option or the file that says where to listen, for messages."""
        path = self["config"]
        return "evproxy: --listen" if path is None else f"{escaped(path)}: listeners"

    @property
    def admin_source(self) -> str:
        """The option or the key of the file that says where the admin interface listens."""
        path = self["config"]
        return "evproxy: --admin" if path is None else f"{escaped(path)}: admin.listen"

    def _value(self, option: Option) -> Any:
        text = self[option.name]
        try:
            return option.rule.read(text)
        except Unfit as unfit:
            raise usage.UsageError(
                f"--{option.name}: expected {option.rule.expected}, got {quoted(text)}{unfit}"
            ) from None

    def _from_file(self) -> Settings:
        if not self["config"]:
            raise usage.UsageError("--config: expected the path of a file, got ''")
        given = [name for name in ("listen", "upstream", "source", "demo") if self[name]]
        given += [
            each.name
            for each in OPTIONS
            if each.in_file and not isinstance(self[each.name], _Default)
        ]
        for name in given:
            there = "" if name == "demo" else ", set it in the file"
            raise usage.UsageError(f"--{name}: cannot be used with --config{there}")
        # twistd may change its directory later.
        self.path = os.path.abspath(self["config"])
        return read_settings(self.path, lists=True)

    def _settings(self, values: Values) -> Settings:
        upstreams, listen = self["upstream"], self["listen"] or [DEFAULT_LISTEN]
        if self["demo"] and upstreams:
            raise usage.UsageError("--demo: has its own server, leave --upstream out")
        if not self["demo"] and not upstreams:
            raise usage.UsageError("--upstream: at least one is needed (or --demo, or --config)")
        for each in upstreams:
            several = servers_in(each)
            if several:
                meant = " ".join(f"--upstream={server}" for server in several)
                raise usage.UsageError(f"--upstream: {each!r}: did you mean {meant}?")
        _refuse_repeated("upstream", upstreams, server_name)
        fixed = [each for each in listen if not any_free_port(each)]
        _refuse_repeated("listen", fixed, partial(listening_place, ""))
        for name, fault_of, descriptions in (
            ("upstream", upstream_fault, upstreams),
            ("listen", listen_fault, listen),
            ("source", _source_fault, self["source"]),
        ):
            for fault in filter(None, map(fault_of, descriptions)):
                raise usage.UsageError(f"--{name}: {fault}")
        if self["source"]:
            _refuse_unfit_sources(self["source"], upstreams)
        settings = Settings(
            listeners=self._listeners(listen, values[ListenerSettings]),
            pools=(
                PoolSettings(
                    upstreams=tuple(map(UpstreamServer, upstreams)),
                    source=tuple(self["source"]),
                    **values[PoolSettings],
                ),
            ),
            timeouts=Timeouts(**values[Timeouts]),
            access_log=AccessLogSettings(**values[AccessLogSettings]),
            watchdog=WatchdogSettings(**values[WatchdogSettings]),
            admin=self._admin(values[AdminSettings]),
            **values[Settings],
        )
        for loop in loops(settings.listeners, settings.pools):
            raise usage.UsageError(f"--upstream: {loop.reason}")
        return settings

    @staticmethod
    def _admin(values: dict[str, Any]) -> AdminSettings:
        admin = AdminSettings(**values)
        fault = listen_fault(admin.listen) if admin.listen else None
        if fault is not None:
            raise usage.UsageError(f"--admin: {fault}")
        try:
            token_of(admin)
        except SettingsError as error:
            fault = str(error).removeprefix("admin.token_file: ").replace("admin.listen", "--admin")
            raise usage.UsageError(f"--admin-token-file: {fault}") from None
        return admin

    @staticmethod
    def _listeners(listen: list[str], permissions: dict[str, str]) -> tuple[ListenerSettings, ...]:
        try:
            listeners = listeners_for(listen, **permissions)
            for listener in listeners:
                listener_permissions(listener)
        except SettingsError as error:
            key, _, fault = str(error).partition(":")
            raise usage.UsageError(f"--{key.replace('_', '-')}:{fault}") from None
        return listeners


def _source_fault(text: str) -> str | None:
    fault = source_fault(text)
    expected = "expected an IP address or a range of them (CIDR)"
    return None if fault is None else f"{expected}, got {text!r}: {fault}"


def _refuse_unfit_sources(source: Sequence[str], upstreams: Sequence[str]) -> None:
    fault = too_many_sources(source) or next(unserved(source, upstreams), None)
    if fault is not None:
        raise usage.UsageError(f"--source: {fault}")


def _refuse_repeated(name: str, values: list[str], known_as: Callable[[str], str]) -> None:
    seen: set[str] = set()
    for value in values:
        if known_as(value) in seen:
            raise usage.UsageError(f"--{name}: {value!r} is given twice")
        seen.add(known_as(value))


def with_access_log(options: Options, settings: Settings) -> Settings:
    """
    Return `settings`, with ``auto`` of the access log replaced as `options` of twistd require.

    :raises ConfigErrors: if there is no standard output.
    """
    log = settings.access_log
    daemon = options.parent is not None and not options.parent.get("nodaemon", True)
    if log.path == "-" and daemon:
        where = "access_log.path" if options["config"] else "--access-log"
        raise ConfigErrors(
            [
                f"{where}: without -n, twistd has no standard output; expected a path, "
                '"syslog:", "twisted:" or "off"'
            ]
        )
    if log.path == "auto" and not daemon and sys.__stdout__ is not None:
        log = evolve(log, path="-")
    return evolve(settings, access_log=log)


def settings_source(options: Options) -> Callable[[], Settings] | None:
    """Return what reads the file of `options` again; ``None`` without a file."""
    if options["config"] is None:
        return None

    def read() -> Settings:
        try:
            settings = read_settings(options.path)
            return with_access_log(options, evolve(settings, keepalive=options.settings.keepalive))
        except ConfigErrors as errors:
            name = escaped(options["config"])
            raise ConfigErrors(f"{name}: {problem}" for problem in errors.problems) from None

    return read


def makeService(options: Options) -> IService:
    """Return the service for `options`; twistd calls this function."""
    from twisted.internet import reactor

    raise_open_file_limit()
    services = MultiService()
    count = worker_count(options.settings)
    if count > 1 and options.parent is not None and options.parent.get("chroot"):
        cannot_start(["evproxy: --workers: cannot be used with --chroot of twistd"])
    proxy: ProxyService | Supervisor
    try:
        settings = with_access_log(options, options.settings)
        if count > 1:
            # Workers and the demo are loaded only where they are wanted.
            from evproxy.workers.supervisor import Supervisor

            proxy = Supervisor(
                reactor, settings, count, worker_command(reactor), globalLogPublisher
            )
        else:
            proxy = ProxyService.from_settings(reactor, settings)
    except ConfigErrors as errors:
        name = escaped(options["config"] or "evproxy")
        cannot_start(f"{name}: {problem}" for problem in errors.problems)
    except SettingsError as error:
        cannot_start([f"{escaped(options['config'] or 'evproxy')}: {error}"])
    proxy.settings_from = settings_source(options)
    if proxy.settings.watchdog.threshold:
        proxy.watch_loop(proxy.settings.watchdog.threshold)
    if options["demo"]:
        from evproxy.cli.demo import demo_behind

        demo_behind(reactor, proxy).setServiceParent(services)
    path = options.settings.restart_socket
    if path:
        # First: it takes over the sockets that the listeners of the proxy would bind.
        Restarts(reactor, proxy, os.path.abspath(path)).setServiceParent(services)
    proxy.setServiceParent(services)
    try:
        Systemd(reactor, proxy, os.environ).setServiceParent(services)
    except SettingsError as error:
        cannot_start([f"evproxy: {error}"])
    return Process(reactor, proxy, services, options.listen_source, options.admin_source)


__all__ = ["Options", "makeService"]
