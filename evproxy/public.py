"""The public names, which are those of `evproxy` itself; importing them takes most of a second."""

from evproxy.causes import Cause
from evproxy.config.changes import Change, Changes
from evproxy.config.document import ConfigErrors
from evproxy.errors import EvproxyError, Refused, SettingsError, Shortage
from evproxy.interfaces import Balancer, Client, Discovery, Probe, Router
from evproxy.loop_report import Doing, LoopReport, LoopTrouble
from evproxy.model import CloseReason, ConnectionInfo, Ending, Phase, Side, UpstreamServer
from evproxy.observe.log import SessionLog, TroubleLog
from evproxy.observe.watchdog.status import LoopStatus
from evproxy.observe.watchdog.watchdog import Watchdog
from evproxy.observers import (
    CertificateObserver,
    DiscoveryObserver,
    LogWriterObserver,
    LoopObserver,
    MirrorObserver,
    Observer,
    PoolObserver,
    PressureObserver,
    RefusalObserver,
    ReloadObserver,
    SessionConnectedObserver,
    SessionObserver,
    SessionStartObserver,
    TroubleObserver,
)
from evproxy.policy.balance.by_name import (
    Candidate,
    LeastSessions,
    LeastTime,
    RandomTwo,
    RoundRobin,
    SourceHash,
)
from evproxy.records import MirrorRecord, SessionCounts, SessionRecord, SessionStatus, Waited
from evproxy.service.listener import ListenerStatus
from evproxy.service.restart import Restarts
from evproxy.service.service import ProxyService
from evproxy.service.signals import Signals
from evproxy.service.status import Status
from evproxy.service.systemd import Systemd
from evproxy.session.factory import ProxyFactory
from evproxy.settings import (
    AccessLogSettings,
    AdminSettings,
    Discover,
    Ejection,
    HealthCheck,
    Keepalive,
    ListenerSettings,
    Mirror,
    PoolSettings,
    Settings,
    Timeouts,
    WatchdogSettings,
)
from evproxy.upstream.pool.pool import Pool
from evproxy.upstream.pool.status import PoolStatus, ServerStatus

__all__ = [
    "AccessLogSettings",
    "AdminSettings",
    "Balancer",
    "Candidate",
    "Cause",
    "CertificateObserver",
    "Change",
    "Changes",
    "Client",
    "CloseReason",
    "ConfigErrors",
    "ConnectionInfo",
    "Discover",
    "Discovery",
    "DiscoveryObserver",
    "Doing",
    "Ejection",
    "Ending",
    "EvproxyError",
    "HealthCheck",
    "Keepalive",
    "LeastSessions",
    "LeastTime",
    "ListenerSettings",
    "ListenerStatus",
    "LogWriterObserver",
    "LoopObserver",
    "LoopReport",
    "LoopStatus",
    "LoopTrouble",
    "Mirror",
    "MirrorObserver",
    "MirrorRecord",
    "Observer",
    "Phase",
    "Pool",
    "PoolObserver",
    "PoolSettings",
    "PoolStatus",
    "PressureObserver",
    "Probe",
    "ProxyFactory",
    "ProxyService",
    "RandomTwo",
    "RefusalObserver",
    "Refused",
    "ReloadObserver",
    "Restarts",
    "RoundRobin",
    "Router",
    "ServerStatus",
    "SessionConnectedObserver",
    "SessionCounts",
    "SessionLog",
    "SessionObserver",
    "SessionRecord",
    "SessionStartObserver",
    "SessionStatus",
    "Settings",
    "SettingsError",
    "Shortage",
    "Side",
    "Signals",
    "SourceHash",
    "Status",
    "Systemd",
    "Timeouts",
    "TroubleLog",
    "TroubleObserver",
    "UpstreamServer",
    "Waited",
    "Watchdog",
    "WatchdogSettings",
]
