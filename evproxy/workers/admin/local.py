"""
The operations of the admin interface in one worker, which the supervisor asks for.
"""

from __future__ import annotations

import inspect
from importlib.metadata import version
from typing import Any

from twisted.internet.defer import Deferred

from evproxy.admin import servers, sessions, waits
from evproxy.admin.answers import Answer, Problem
from evproxy.admin.contract import Administered
from evproxy.admin.operations import Asked, Context, Operation
from evproxy.errors import SettingsError
from evproxy.workers.messages import Operate

BY_NAME: dict[str, Operation] = {
    each.name: each for each in (*servers.OPERATIONS, *sessions.OPERATIONS, *waits.OPERATIONS)
}
"""The operations that a worker runs for the supervisor."""


def operate(reactor: Any, proxy: Administered, wanted: Operate) -> Deferred[Answer]:
    """
    Run an operation.  The answer may be a problem.

    :return: fails with a `SettingsError` if workers have no such operation.
    """
    return Deferred.fromCoroutine(_operate(reactor, proxy, wanted))


async def _operate(reactor: Any, proxy: Administered, wanted: Operate) -> Answer:
    operation = BY_NAME.get(wanted.name)
    if operation is None:
        raise SettingsError(f"workers have no operation {wanted.name}")
    context = Context(reactor, proxy, version("evproxy"))
    try:
        found: Any = operation.run(context, Asked(wanted.places, wanted.query, wanted.body))
        answer: Answer = await found if inspect.isawaitable(found) else found
    except Problem as problem:
        return problem.answer
    return answer
