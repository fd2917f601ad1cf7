"""
Makes the admin interface of a supervisor: it shows, and changes, all workers.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, cast

from evproxy.admin.access import metrics_can_be_read
from evproxy.admin.interface import AdminPort
from evproxy.admin.live.feed import Feed
from evproxy.admin.live.operation import live_view
from evproxy.admin.operations import Context, Operation
from evproxy.admin.page.files import page_operations
from evproxy.settings import AdminSettings
from evproxy.sockets.handed import HandedSockets
from evproxy.workers.admin.changes import MadeChanges
from evproxy.workers.admin.crew import Crew
from evproxy.workers.admin.live import LiveWorkers
from evproxy.workers.admin.operations import WholeOperations
from evproxy.workers.admin.whole import Whole


def admin_of_workers(
    reactor: Any,
    proxy: Whole,
    settings: AdminSettings,
    crew: Crew,
    made: MadeChanges,
    handed: HandedSockets,
) -> AdminPort:
    """
    Return the admin interface of the supervisor `proxy`.

    :param handed: listening sockets that may be taken over.
    :raises SettingsError: if a setting is wrong.
    """
    # Those of `OWN` ask only for its settings and a reload.
    context = Context(reactor, cast(Any, proxy), version("evproxy"))
    feed = Feed(reactor, LiveWorkers(context, proxy, crew))
    operations = (
        *WholeOperations(proxy, crew, made).all,
        *_metrics(context, proxy, settings, crew),
        live_view(feed),
        *page_operations(),
    )
    return AdminPort(context, settings, operations, feed, handed)


def _metrics(
    context: Context, proxy: Whole, settings: AdminSettings, crew: Crew
) -> tuple[Operation, ...]:
    if not settings.metrics or not metrics_can_be_read():
        return ()
    # It is an extra, and takes a while to load.
    from evproxy.workers.admin.metrics import metrics_of_workers

    return (metrics_of_workers(context, proxy, crew),)
