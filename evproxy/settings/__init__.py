"""
The settings: one frozen value, made from the command line, the configuration file or arguments.

This package declares each setting once: the values it accepts, its default, its meaning, and where
a user can give it.  All other code that knows settings reads these declarations; see
`evproxy.config.declare`.

Times are in seconds and sizes in bytes everywhere.  A value that its setting does not accept
raises `SettingsError`.
"""

from evproxy.settings.access_log import AccessLogSettings
from evproxy.settings.admin import AdminSettings
from evproxy.settings.arguments import in_a_tuple, refuse_beside_settings, refuse_other, several
from evproxy.settings.discover import DISCOVERY_KINDS, SERVER, Discover
from evproxy.settings.fault import FAULT_KINDS, FaultSettings
from evproxy.settings.health import (
    ANSWER_LIMIT,
    BODY_LIMIT,
    CHECK_KINDS,
    MOST_IN_A_ROW,
    Ejection,
    HealthCheck,
)
from evproxy.settings.listener import (
    DEFAULT_BACKLOG,
    DEFAULT_LISTEN,
    IP_NETWORK,
    MOST_BYTES_PER_SECOND,
    NETWORK,
    PERMISSIONS,
    UNIX_CLIENTS,
    ListenerSettings,
)
from evproxy.settings.mirror import Mirror
from evproxy.settings.pool import POOL_NAME, PoolSettings, too_many_sources
from evproxy.settings.proxy import RELAYS, Settings
from evproxy.settings.route import RouteSettings
from evproxy.settings.timeouts import MILLISECOND, Keepalive, Timeouts
from evproxy.settings.tls import ListenerTLS, PoolTLS
from evproxy.settings.watchdog import WatchdogSettings

__all__ = [
    "ANSWER_LIMIT",
    "BODY_LIMIT",
    "CHECK_KINDS",
    "DEFAULT_BACKLOG",
    "DEFAULT_LISTEN",
    "DISCOVERY_KINDS",
    "FAULT_KINDS",
    "IP_NETWORK",
    "MILLISECOND",
    "MOST_BYTES_PER_SECOND",
    "MOST_IN_A_ROW",
    "NETWORK",
    "PERMISSIONS",
    "POOL_NAME",
    "RELAYS",
    "SERVER",
    "UNIX_CLIENTS",
    "AccessLogSettings",
    "AdminSettings",
    "Discover",
    "Ejection",
    "FaultSettings",
    "HealthCheck",
    "Keepalive",
    "ListenerSettings",
    "ListenerTLS",
    "Mirror",
    "PoolSettings",
    "PoolTLS",
    "RouteSettings",
    "Settings",
    "Timeouts",
    "WatchdogSettings",
    "in_a_tuple",
    "refuse_beside_settings",
    "refuse_other",
    "several",
    "too_many_sources",
]
