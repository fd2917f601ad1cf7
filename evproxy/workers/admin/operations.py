"""
The operations of the admin interface on all workers: what each asks, and how answers are added up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable

from attrs import evolve
from twisted.internet.task import deferLater

from evproxy.admin import servers, sessions, waits, whole
from evproxy.admin.answers import Answer, Problem, as_json
from evproxy.admin.conditions import NO_SESSIONS
from evproxy.admin.fields import FLAG, MAYBE_WHOLE, WHOLE, array_of, of_object, shown
from evproxy.admin.operations import Asked, Context
from evproxy.admin.pools import PoolShown
from evproxy.config.canonical import server_name
from evproxy.config.problems import quoted
from evproxy.engine.slices import in_slices
from evproxy.observe.metrics.families import Numbers
from evproxy.upstream.pool.status import ServerStatus
from evproxy.workers.admin.changes import MadeChanges
from evproxy.workers.admin.crew import Crew, Refused, bodies, refuse
from evproxy.workers.admin.whole import Whole, numbers_of, shown_workers, state_of
from evproxy.workers.messages import Operate
from evproxy.workers.slot import Slot

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

OWN = ("settings", "reload")
"""The operations that run as in one process: they ask only for what the supervisor has."""

_CHANGES = ("add_server", "drain_server", "resume_server", "weigh_server", "remove_server")

# No worker serves, or has answered; or one of them has not.
_UNANSWERED = {
    **dict.fromkeys((*_CHANGES, "end_sessions"), (503, 504)),
    **dict.fromkeys(("show_session", "end_session", "wait"), (503,)),
    "list_sessions": (504,),
}


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
        self.all = tuple(
            evolve(
                each,
                run=each.run if each.name in OWN else runs[each.name],
                answer=STATUS if each.name == "status" else each.answer,
                problems=(*each.problems, *_UNANSWERED.get(each.name, ())),
            )
            for each in declared
        )

    async def _status(self, context: Context, asked: Asked) -> Answer:
        numbers, answered = await self._numbers()
        status = numbers.status
        pools = {each.name: PoolShown(each.name, each.waiting) for each in status.pools}

        def count(item: tuple[str, ServerStatus]) -> None:
            pools[item[0]].count(item[1])

        await in_slices(context.reactor, iter(numbers.servers), count)
        return as_json(
            {
                "version": context.version,
                "pid": os.getpid(),
                "state": status.state,
                "sessions": status.session_count,
                "max_sessions": status.max_sessions,
                "listeners": [shown(whole.LISTENER, each) for each in status.listeners],
                "pools": [each.shown() for each in pools.values()],
                "certificates": [shown(whole.CERTIFICATE, each) for each in status.certificates],
                "workers": shown_workers(self._proxy, self._crew, answered),
            }
        )

    async def _numbers(self) -> tuple[Numbers, set[int]]:
        return await numbers_of(self._proxy, self._crew)

    async def _drain(self, context: Context, asked: Asked) -> Answer:
        deadline = asked.body.deadline
        if deadline == whole.BY_SETTINGS:
            deadline = self._proxy.settings.timeouts.drain
        self._proxy.drain(deadline)
        numbers, _ = await self._numbers()
        return as_json({"state": state_of(self._proxy), "sessions": numbers.status.session_count})

    # Servers.

    async def _servers(self, context: Context, asked: Asked) -> Answer:
        which = asked.query
        numbers, _ = await self._numbers()
        if which.pool:
            _exists(which.pool, numbers)
        found = (each for each in numbers.servers if which.pool in ("", each[0]))
        return await servers.page_of_servers(context.reactor, found, which)

    async def _server(self, context: Context, asked: Asked) -> Answer:
        return await self._shown(context, asked.places["pool"], asked.places["server"])

    async def _shown(self, context: Context, pool: str, name: str) -> Answer:
        numbers, _ = await self._numbers()
        _exists(pool, numbers)
        names = (name, server_name(name))

        def named(item: tuple[str, ServerStatus]) -> ServerStatus | None:
            return item[1] if item[0] == pool and item[1].name in names else None

        found = await in_slices(context.reactor, iter(numbers.servers), named, most=1)
        for server in found:
            fields = servers.server_fields(context.reactor.seconds())
            return as_json({"pool": pool, **shown(fields, server)})
        raise Problem(404, f"there is no server {quoted(name)} in pool {quoted(pool)}")

    def _change(self, name: str) -> Callable[[Context, Asked], Awaitable[Answer]]:
        """An operation that changes a server in every worker, or in none if one refuses it."""

        async def run(context: Context, asked: Asked) -> Answer:
            self._require_a_worker()
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
            # A worker that does not answer now would not make the change either.
            found = await self._crew.ask_all(
                Operate("show_server", places), so=": nothing has changed"
            )
            if not found:
                raise self._nobody()
            if name != "add_server":
                refuse(found)
            elif any(each.code == 200 for each in found.values()):
                raise Problem(409, f"endpoint: {quoted(places['server'])} is already in the pool")
            # Now, so that a process that starts before the others answer makes it, too.
            replaced = self._made.add(wanted)
            try:
                told = await self._crew.change(wanted)
            except Refused:
                self._made.take_back(wanted, replaced)
                raise
            if name == "remove_server":
                left = sum(each["sessions"] for each in bodies(told))
                return as_json({"removed": True, "sessions": left})
            return await self._shown(context, places["pool"], places["server"])

        return run

    async def _end_sessions(self, context: Context, asked: Asked) -> Answer:
        self._require_a_worker()
        # A process that starts has no sessions, and one that has died has none left.
        told = await self._crew.ask_all(Operate("end_sessions", asked.places, None, asked.body))
        refuse(told)
        number = sum(each["sessions"] for each in bodies(told))
        return as_json({"sessions": number, "over": asked.body.over})

    # Sessions.

    async def _sessions(self, context: Context, asked: Asked) -> Answer:
        told = await self._crew.ask_all(Operate("list_sessions", {}, asked.query))
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
        if self._proxy.stops:
            # The workers that have ended had no session left.
            expected = len(self._serving())
            if not told and not expected:
                return _holds_without_workers(asked.query.until)
        else:
            expected = sum(slot.process is not None for slot in self._proxy.slots) or 1
        return len(told) >= expected and all(
            each.code == 200 and json.loads(each.body)["met"] for each in told.values()
        )

    def _serving(self) -> list[Slot]:
        return [slot for slot in self._proxy.slots if slot.serving is not None]

    def _require_a_worker(self) -> None:
        if not self._serving():
            raise self._nobody()

    def _nobody(self) -> Problem:
        yet = "" if self._proxy.stops else " yet"
        return Problem(503, f"no worker serves{yet}")


def _holds_without_workers(until: str) -> bool:
    return until == NO_SESSIONS or waits.HOLDS[until](None)


def _exists(pool: str, numbers: Numbers) -> None:
    if all(each.name != pool for each in numbers.status.pools):
        raise Problem(404, f"there is no pool {quoted(pool)}")
