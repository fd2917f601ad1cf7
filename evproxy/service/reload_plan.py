"""
The plan of a reload: what the new settings need, made in a thread before anything is applied.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from attrs import define, field, frozen
from twisted.internet.interfaces import IStreamServerEndpoint

from evproxy.config.changes import (
    Change,
    Changes,
    changes,
    listener_pairs,
    needs_restart,
    pool_pairs,
)
from evproxy.config.document import ConfigErrors
from evproxy.config.loops import loops
from evproxy.config.mirrors import mirror_problems
from evproxy.config.problems import shown_path
from evproxy.errors import CannotOpenLog, SettingsError
from evproxy.observe.access_log import AccessLog, access_log_for
from evproxy.service.composition import Composition
from evproxy.service.listener_parts import ListenerFiles
from evproxy.session.routes import function_named
from evproxy.settings import PERMISSIONS, ListenerSettings, PoolSettings, Settings
from evproxy.upstream.pool.pool import Pool
from evproxy.upstream.pool.reloading import Prepared


@frozen
class PlannedListener:
    """
    A listener of the new settings.

    `before` is the place of the running listener whose place it takes; ``None``: it is new.
    `endpoint` is where it binds; ``None``: the running one stays bound as it is.
    """

    settings: ListenerSettings
    files: ListenerFiles
    before: int | None
    endpoint: IStreamServerEndpoint | None


@define
class Plan:
    """
    What to do for `settings`.

    `gone`: the places of running listeners that end.  `removed`: the names of pools that end.
    `log_changes`: whether the access log is replaced, by `log`, which is open if `opens_log`.
    """

    settings: Settings
    changes: Changes
    opens_log: bool
    listeners: list[PlannedListener] = field(factory=list)
    gone: list[int] = field(factory=list)
    added: list[Pool] = field(factory=list)
    reloaded: list[tuple[Pool, Prepared]] = field(factory=list)
    removed: list[str] = field(factory=list)
    log_changes: bool = False
    log: AccessLog | None = None

    def discard(self) -> None:
        """Close what was opened for the plan, which is not applied."""
        if self.log is not None:
            self.log.abandon()


def plan_of(composition: Composition, settings: Settings, listening: bool) -> Plan:
    """
    Plan the reload from what `composition` is to `settings`.  Blocks: call it in a thread.

    :param listening: whether the service listens, so that its access log is open.
    :raises ConfigErrors: with all problems.
    """
    before = composition.settings
    planner = _Planner(composition, Plan(settings, changes(before, settings), listening))
    if problems := [*needs_restart(before, settings), *_contradictions(composition, settings)]:
        raise ConfigErrors(problems)
    planner.plan()
    return planner.plan_made


class _Planner:
    def __init__(self, composition: Composition, plan: Plan) -> None:
        self._composition = composition
        self._before = composition.settings
        self.plan_made = plan
        self._problems: list[str] = []
        self._files: list[Change] = []

    def plan(self) -> None:
        plan = self.plan_made
        if self._composition.given_pool is None:
            for pool in pool_pairs(self._before.pools, plan.settings.pools):
                if pool.after is None:
                    assert pool.before is not None
                    plan.removed.append(pool.before.name)
                else:
                    self._pool(pool.after, pool.before)
        # The same object may be there twice.
        places: defaultdict[int, list[int]] = defaultdict(list)
        for place, each in enumerate(self._before.listeners):
            places[id(each)].append(place)
        pairs = listener_pairs(self._before.listeners, plan.settings.listeners)
        for number, pair in enumerate(pairs):
            before = None if pair.before is None else places[id(pair.before)].pop(0)
            if pair.after is not None:
                self._listener(number, pair.after, before)
            elif before is not None:
                plan.gone.append(before)
        self._log()
        if self._problems:
            plan.discard()
            raise ConfigErrors(self._problems)
        plan.changes = Changes((*plan.changes.lines, *self._files))

    def _attempt(self, path: tuple[str | int, ...], work: Callable[[], Any]) -> Any:
        try:
            return work()
        except SettingsError as error:
            self._problems.append(f"{shown_path(path)}.{error}")
            return None

    def _pool(self, settings: PoolSettings, before: PoolSettings | None) -> None:
        path = ("pools", settings.name)
        if before is None:
            made = self._attempt(path, partial(self._composition.pool, settings))
            if made is not None:
                self.plan_made.added.append(made)
            return
        pool: Any = self._composition.pools[settings.name]
        prepared = self._attempt(path, partial(pool.prepare, settings))
        if prepared is not None:
            self.plan_made.reloaded.append((pool, prepared))
            if settings == before:
                self._files.append(Change((f"pool {settings.name}",), "its files have changed"))

    def _listener(self, number: int, settings: ListenerSettings, place: int | None) -> None:
        composition = self._composition
        before = None if place is None else composition.parts[place]
        path = ("listeners", number)
        binds = before is None or socket_of(before.settings) != socket_of(settings)
        endpoint = None
        if binds:
            endpoint = self._attempt(path, partial(composition.endpoint, settings))
        files = self._attempt(path, partial(composition.maker.read, settings, before))
        if settings.route:
            self._attempt(path, partial(function_named, settings.route))
        if files is None or (binds and endpoint is None):
            return
        self.plan_made.listeners.append(PlannedListener(settings, files, place, endpoint))
        if before is not None and before.settings == settings and _has_changed(files, before):
            self._files.append(Change((f"listener {before.name}",), "its files have changed"))

    def _log(self) -> None:
        plan, composition = self.plan_made, self._composition
        settings = plan.settings.access_log
        if settings == self._before.access_log:
            return
        plan.log_changes = True
        log = access_log_for(composition.reactor, settings, composition.hub)
        if log is not None and plan.opens_log:
            try:
                log.prepare()
            except CannotOpenLog as error:
                self._problems.append(f"access_log.path: {error}")
        plan.log = log


def _has_changed(files: ListenerFiles, before: Any) -> bool:
    known = {} if before.guard is None else before.guard.files.files
    return files.certificates is not None or any(
        file is not known.get(path) for path, file in files.networks.items()
    )


def socket_of(listener: ListenerSettings) -> tuple[str, ...]:
    """What the socket of `listener` is made of."""
    return (listener.listen, *(getattr(listener, key) for key in PERMISSIONS))


def _contradictions(composition: Composition, settings: Settings) -> Iterable[str]:
    """What a file could not say, but a program may."""
    names = [pool.name for pool in settings.pools]
    if composition.given_pool is not None:
        if settings.pools != composition.settings.pools:
            yield "pools: the service has a pool of its own, which a reload cannot change"
        names = ["default"]
    elif len(set(names)) < len(names):
        yield "pools: two of them have the same name"
    if not settings.listeners:
        yield "listeners: expected at least one"
    for number, listener in enumerate(settings.listeners):
        for pool in (listener.pool, *(route.pool for route in listener.routes)):
            if pool not in names:
                yield f"listeners[{number}].pool: there is no pool {pool!r}"
    if composition.given_pool is None:
        for problem in mirror_problems(settings.pools):
            yield str(problem)
        for loop in loops(settings.listeners, settings.pools):
            where = shown_path(("pools", loop.pool.name, "upstreams", loop.index))
            yield f"{where}: {loop.reason}"
