"""
The operations of the admin interface on all workers: what each asks, and how answers are added up.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from attrs import asdict, evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from evproxy.admin import servers, sessions, waits, whole
from evproxy.admin.answers import Answer, Problem, as_json
from evproxy.admin.fields import FLAG, MAYBE_WHOLE, TEXT, WHOLE, array_of, of_object, shown
from evproxy.admin.operations import Asked, Context, Operation
from evproxy.config.canonical import server_name
from evproxy.config.problems import quoted
from evproxy.service.status import Status
from evproxy.settings import Settings
from evproxy.upstream.pool.status import STATES, PoolStatus
from evproxy.workers.admin.changes import MadeChanges
from evproxy.workers.admin.crew import Crew, bodies, refuse
from evproxy.workers.messages import Operate
from evproxy.workers.totals import WorkerStatus

WORKER = of_object(
    {
        "number": WHOLE,
        "pid": MAYBE_WHOLE,
        "restarts": WHOLE,
        "sessions": WHOLE,
        "max_sessions": WHOLE,
        "answered": FLAG,
    }
)
STATUS = of_object({**whole.STATUS["properties"], "workers": array_of(WORKER)})

_CHANGES = ("add_server", "drain_server", "resume_server", "weigh_server", "remove_server")


class Whole(Protocol):
    """What the operations need of the supervisor."""

    settings: Settings

    @property
    def slots(self) -> Any: ...

    def last_status(self) -> Status:
        """The sums of what the workers have told last."""

    def workers(self) -> tuple[WorkerStatus, ...]: ...

    def drain(self, deadline: float | None) -> Deferred[None]: ...


class WholeOperations:
    """
    The operations, each with the declaration that it has in one process.

    :param proxy: the supervisor.
    :param crew: its workers.
    :param made: keeps the changes of servers.
    """

    def __init__(self, proxy: Whole, crew: Crew, made: MadeChanges) -> None:
        self._proxy = proxy
        self._crew = crew
        self._made = made
        runs: dict[str, Callable[[Context, Asked], Awaitable[Answer]]] = {
            "status": self._status,
            "drain": self._drain,
            "list_servers": self._servers,
            "show_server": self._server,
            "end_sessions": self._end_sessions,
            "list_sessions": self._sessions,
            "show_session": self._one_session("show_session"),
            "end_session": self._one_session("end_session"),
            "wait": self._wait,
            **{name: self._change(name) for name in _CHANGES},
        }
        declared = (
            *whole.OPERATIONS,
            *servers.OPERATIONS,
            *sessions.OPERATIONS,
            *waits.OPERATIONS,
        )
        # What has no entry asks only for the settings and for a reload, which the supervisor has.
        self.all = tuple(
            evolve(
                each,
                run=runs.get(each.name, each.run),
                answer=STATUS if each.name == "status" else each.answer,
            )
            for each in declared
        )

    async def _status(self, context: Context, asked: Asked) -> Answer:
        answered = await self._crew.look()
        status = self._proxy.last_status()
        return as_json(
            {
                "version": context.version,
                "pid": os.getpid(),
                "state": status.state,
                "sessions": status.session_count,
                "max_sessions": status.max_sessions,
                "listeners": [shown(whole.LISTENER, each) for each in status.listeners],
                "pools": [shown_pool(each) for each in status.pools],
                "certificates": [shown(whole.CERTIFICATE, each) for each in status.certificates],
                "workers": [
                    {**asdict(each), "answered": each.number - 1 in answered}
                    for each in self._proxy.workers()
                ],
            }
        )

    async def _drain(self, context: Context, asked: Asked) -> Answer:
        deadline = asked.body.deadline
        if deadline == whole.BY_SETTINGS:
            deadline = self._proxy.settings.timeouts.drain
        self._proxy.drain(deadline)
        status = self._proxy.last_status()
        return as_json({"state": status.state, "sessions": status.session_count})

    # Servers.

    async def _servers(self, context: Context, asked: Asked) -> Answer:
        await self._crew.look()
        status = self._proxy.last_status()
        which = asked.query
        pools = [_pool(status, which.pool)] if which.pool else status.pools
        found = ((pool.name, server) for pool in pools for server in pool.servers)
        return await servers.page_of_servers(context.reactor, found, which)

    async def _server(self, context: Context, asked: Asked) -> Answer:
        return await self._shown(context, asked.places["pool"], asked.places["server"])

    async def _shown(self, context: Context, pool: str, name: str) -> Answer:
        await self._crew.look()
        found = _pool(self._proxy.last_status(), pool)
        names = (name, server_name(name))
        for server in found.servers:
            if server.name in names:
                fields = servers.server_fields(context.reactor.seconds())
                return as_json({"pool": pool, **shown(fields, server)})
        raise Problem(404, f"there is no server {quoted(name)} in pool {quoted(pool)}")

    def _change(self, name: str) -> Callable[[Context, Asked], Awaitable[Answer]]:
        """An operation that changes a server in every worker, or in none if one refuses it."""

        async def run(context: Context, asked: Asked) -> Answer:
            places = dict(asked.places)
            wanted = Operate(name, places, None, asked.body)
            if name == "add_server":
                places["server"] = asked.body.name
                bound, count = asked.body.max_sessions, len(self._proxy.slots)
                if 0 < bound < count:
                    raise Problem(
                        400,
                        f"max_sessions: expected at least the number of workers, {count}, which "
                        f"share it, got {bound}",
                    )
            found = await self._crew.ask(Operate("show_server", places))
            if name != "add_server":
                refuse(found)
            elif any(each.code == 200 for each in found.values()):
                raise Problem(409, f"endpoint: {quoted(places['server'])} is already in the pool")
            told = await self._crew.change(wanted)
            self._made.add(wanted)
            if name == "remove_server":
                left = sum(each["sessions"] for each in bodies(told))
                return as_json({"removed": True, "sessions": left})
            return await self._shown(context, places["pool"], places["server"])

        return run

    async def _end_sessions(self, context: Context, asked: Asked) -> Answer:
        wanted = Operate("end_sessions", asked.places, None, asked.body)
        told = await self._crew.change(wanted)
        number = sum(each["sessions"] for each in bodies(told))
        return as_json({"sessions": number, "over": asked.body.over})

    # Sessions.

    async def _sessions(self, context: Context, asked: Asked) -> Answer:
        told = await self._crew.ask(Operate("list_sessions", {}, asked.query))
        refuse(told)
        pages = bodies(told)
        # The numbers of each worker's sessions ascend, and no two workers give the same.
        found = sorted(
            (session for page in pages for session in page["sessions"]),
            key=lambda session: session["id"],
        )
        page = found[: asked.query.limit]
        more = len(found) > len(page) or any(each["next"] is not None for each in pages)
        total = sum(each["total"] for each in pages)
        following = page[-1]["id"] if more and page else None
        return as_json({"sessions": page, "next": following, "total": total})

    def _one_session(self, name: str) -> Callable[[Context, Asked], Awaitable[Answer]]:
        async def run(context: Context, asked: Asked) -> Answer:
            number = asked.places["id"]
            worker = (number - 1) % len(self._proxy.slots)
            told = await self._crew.ask(Operate(name, asked.places), worker)
            if worker not in told:
                raise Problem(404, f"there is no session {number}, or no longer")
            return told[worker]

        return run

    async def _wait(self, context: Context, asked: Asked) -> Answer:
        started = context.reactor.seconds()
        wanted = asked.query
        met = await self._met(asked)
        while not met:
            left = started + wanted.timeout - context.reactor.seconds()
            if left <= 0:
                break
            await deferLater(context.reactor, min(waits.LOOK, left))
            met = await self._met(asked)
        waited = context.reactor.seconds() - started
        return as_json({"until": wanted.until, "met": met, "waited": round(waited, 3)})

    async def _met(self, asked: Asked) -> bool:
        """Whether the condition holds in every worker now."""
        look = Operate("wait", {}, evolve(asked.query, timeout=0.0))
        told = await self._crew.ask(look)
        if told and all(each.code >= 400 for each in told.values()):
            refuse(told)
        serving = [slot for slot in self._proxy.slots if slot.serving is not None]
        return len(told) >= len(serving) and all(
            each.code == 200 and json.loads(each.body)["met"] for each in told.values()
        )


def shown_pool(pool: PoolStatus) -> dict[str, Any]:
    """The object that shows a pool: its servers by state, and its sessions."""
    states = Counter(dict.fromkeys(STATES, 0))
    states.update(server.state for server in pool.servers)
    return {
        "name": pool.name,
        "servers": dict(states),
        "sessions": sum(server.sessions for server in pool.servers),
        "waiting": pool.waiting,
    }


def _pool(status: Status, name: str) -> PoolStatus:
    for pool in status.pools:
        if pool.name == name:
            return pool
    raise Problem(404, f"there is no pool {quoted(name)}")


def missing(path: str, name: str, what: str) -> Operation:
    """An operation that says that workers do not have it yet."""

    def run(context: Context, asked: Asked) -> Answer:
        raise Problem(501, f"{what} with more than one worker is not there yet")

    return Operation("GET", path, name, f"{what.capitalize()}: not with workers.", run, TEXT)
