"""
All settings of one proxy.
"""

from __future__ import annotations

from attrs import field, frozen

from evproxy.config.declare import setting
from evproxy.config.rules import MOST_SESSIONS, Choice, FilePath, Many, Whole, WholeOrAuto
from evproxy.config.tables import NamedTables, Table
from evproxy.settings.access_log import AccessLogSettings
from evproxy.settings.admin import AdminSettings
from evproxy.settings.arguments import refuse_other
from evproxy.settings.listener import ListenerSettings
from evproxy.settings.pool import POOL_NAME, PoolSettings
from evproxy.settings.timeouts import Keepalive, Timeouts
from evproxy.settings.watchdog import WatchdogSettings

RELAYS = ("auto", "stream", "socket")
"""``auto``: the socket relay where possible, else the stream relay.  ``stream``: always the
stream relay.  ``socket``: like ``auto``, but evproxy does not start without epoll."""


MOST_WORKERS = 256
"""The most worker processes."""


@frozen
class Settings:
    """All settings of one `evproxy.ProxyService`."""

    listeners: tuple[ListenerSettings, ...] = setting(
        Many("an array of tables", Table(ListenerSettings)),
        "Where clients connect: [one table](#listeners) for each listener, at least one.",
        default=(ListenerSettings(),),
        default_shown="required",
    )
    pools: tuple[PoolSettings, ...] = setting(
        NamedTables(PoolSettings, POOL_NAME),
        "Which servers get the sessions: [one table](#poolsname) for each pool, under its name, "
        "at least one.",
        default=(),
        default_shown="required",
    )
    timeouts: Timeouts = setting(
        Table(Timeouts),
        "The [timeouts](#timeouts) of sessions.",
        default=Timeouts(),
        default_shown="its defaults",
    )
    keepalive: Keepalive = field(
        default=Keepalive(),
        validator=lambda _, attribute, value: refuse_other(attribute.name, value, Keepalive),
    )
    max_sessions: int = setting(
        Whole(0, MOST_SESSIONS),
        "The most sessions at once, over all listeners. At the bound, evproxy stops accepting "
        "until a session ends. 0: a bound that follows from the limit on open files.",
        default=0,
        option="max-sessions",
    )
    workers: int | str = setting(
        WholeOrAuto(1, MOST_WORKERS),
        "How many [worker processes](workers.md) carry the sessions; they share the limits. "
        "`auto`: one for each processor that evproxy may use. 1: no process beside the one that "
        "you start. Only `twistd evproxy` starts workers.",
        default=1,
        option="workers",
    )
    relay: str = setting(
        Choice(RELAYS),
        "What moves the bytes. `auto`: the fast socket relay between TCP and UNIX sockets, also "
        "with evproxy's own TLS; the stream relay for everything else. `socket`: the same, but "
        "evproxy does not start without epoll. `stream`: the stream relay for everything.",
        default="auto",
        option="relay",
    )
    restart_socket: str = setting(
        FilePath("a path", r".*"),
        "The path of a UNIX socket on which a new process takes over the listeners of this one: "
        "[a restart](operating.md#a-restart) without a gap. Empty: none.",
        default="",
        option="restart-socket",
    )
    access_log: AccessLogSettings = setting(
        Table(AccessLogSettings),
        "Where the end of each session is [logged](#access_log).",
        default=AccessLogSettings(),
        default_shown="its defaults",
    )
    watchdog: WatchdogSettings = setting(
        Table(WatchdogSettings),
        "What the [watchdog](#watchdog) of the event loop reports.",
        default=WatchdogSettings(),
        default_shown="its defaults",
    )
    admin: AdminSettings = setting(
        Table(AdminSettings),
        "Where operators and programs ask about the proxy, and change it: the "
        "[admin interface](#admin).",
        default=AdminSettings(),
        default_shown="there is none",
    )
