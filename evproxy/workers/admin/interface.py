"""
Makes the admin interface of a supervisor: it shows, and changes, all workers.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, cast

from evproxy.admin.interface import AdminPort
from evproxy.admin.operations import Context
from evproxy.settings import AdminSettings
from evproxy.workers.admin.changes import MadeChanges
from evproxy.workers.admin.crew import Crew
from evproxy.workers.admin.operations import Whole, WholeOperations, missing


class _NoFeed:
    """Nothing runs while the interface listens."""

    def start(self) -> None:
        """Nothing to do."""

    def stop(self) -> None:
        """Nothing to do."""


def admin_of_workers(
    reactor: Any, proxy: Whole, settings: AdminSettings, crew: Crew, made: MadeChanges
) -> AdminPort:
    """
    Return the admin interface of the supervisor `proxy`.

    :raises SettingsError: if a setting is wrong.
    """
    # The operations that use this proxy ask only for its settings and a reload.
    context = Context(reactor, cast(Any, proxy), version("evproxy"))
    absent = (
        missing("/metrics", "metrics", "metrics"),
        missing("/live", "watch", "the live view"),
    )
    operations = (*WholeOperations(proxy, crew, made).all, *absent)
    return AdminPort(context, settings, operations, _NoFeed())
