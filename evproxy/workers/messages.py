"""
The messages between the supervisor and its workers.

Each is a frozen value.  `evproxy.workers.channel` carries them.  Listening sockets come beside
`Start` and `Prepare`, in the order of their `places`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from evproxy.admin.live.chosen import Entry
from evproxy.admin.live.question import Question
from evproxy.admin.live.walk import Rates
from evproxy.config.changes import Changes
from evproxy.model import UpstreamServer
from evproxy.observe.metrics.families import Numbers
from evproxy.observe.metrics.live import ServerKey
from evproxy.policy.health import Verdict
from evproxy.settings import PoolSettings, Settings
from evproxy.sockets.handed import Place
from evproxy.upstream.pool.status import ServerStatus

# From the supervisor, each with an answer.


@frozen
class Start:
    """
    Serve `settings`, which are the worker's share.  The answer: `Started`.

    `worker` is its number, from 0 on, of `workers`.  `after`: its sessions have greater numbers.
    """

    worker: int
    workers: int
    settings: Settings
    places: tuple[Place, ...]
    after: int = 0


@frozen
class Prepare:
    """
    Prepare a reload with `settings`.  The answer: `Prepared`, or a `SettingsError`.

    `places` are those of new sockets.
    """

    settings: Settings
    places: tuple[Place, ...]


@frozen
class Apply:
    """Apply what was prepared.  The answer: ``None``, once it is in use."""


@frozen
class Discard:
    """Discard what was prepared.  The answer: ``None``."""


@frozen
class Measure:
    """
    Take the numbers of now.  The answer: `evproxy.observe.metrics.families.Numbers`.

    These are without servers: they come before, as `Measured` with this `number`.
    """

    number: int


@frozen
class MeasureProcess:
    """The answer: the metric families of the process, a tuple; empty: they cannot be had."""


@frozen
class Walk:
    """
    Look at every session.  The answer: the `evproxy.admin.live.interval.Interval` that ends now.

    What the `questions` ask for comes before, as `Walked` with this `number`.
    """

    number: int
    questions: tuple[Question, ...] = ()


@frozen
class Alive:
    """The loop runs.  The answer: how many sessions there are, and the number of the last one."""


@frozen
class Operate:
    """
    Run the operation of the admin interface called `name`.  The answer: an
    `evproxy.admin.answers.Answer`.

    `places`, `query` and `body` are those of `evproxy.admin.operations.Asked`.
    """

    name: str
    places: Mapping[str, Any]
    query: Any = None
    body: Any = None


@frozen
class Repeat:
    """
    Make a change of an operator that other workers have made.  The answer: as to `Operate`.

    If the server is not known yet, it may follow later.
    """

    change: Operate


# From the supervisor, without an answer.


@frozen
class Drain:
    """
    Drain and end.  `deadline`: seconds until all sessions are reset; ``None``: never.

    A second one brings the deadline forward.
    """

    deadline: float | None


@frozen
class Abort:
    """Reset every session."""


@frozen
class ReopenLog:
    """Open the path of the access log again."""


@frozen
class Checked:
    """The health checks of the server of `check` have a verdict."""

    check: int
    verdict: Verdict


@frozen
class Prevented:
    """A health check of the server of `check` could not run."""

    check: int
    what: str
    remedy: str


# Answers.


@frozen
class Started:
    """The worker serves, at most `most_sessions` at once."""

    most_sessions: int


@frozen
class Prepared:
    """The reload can be applied, with these changes."""

    changes: Changes


# From a worker, without an answer.


@frozen
class Check:
    """
    Have the server checked, and tell me each verdict, as `Checked` with the number `check`.

    `pool` are the settings of its pool, without servers.  `down`: whether it is down so far.
    `within`: seconds in which the first check comes.
    """

    check: int
    pool: PoolSettings
    server: UpstreamServer
    down: bool
    within: float


@frozen
class Uncheck:
    """Tell me no more about `check`."""

    check: int


@frozen
class ServerChanged:
    """A server of a pool has entered a state; see `evproxy.observers.PoolObserver`."""

    pool: str
    server: str
    state: str


@frozen
class Returned:
    """Discovery has added a server again that operators had changed: that is undone."""

    pool: str
    server: str


@frozen
class Event:
    """A log event, as JSON (`twisted.logger.eventAsJSON`)."""

    json: str


@frozen
class Measured:
    """
    A part of what is measured for the `Measure` with this `number`; `AT_THE_END` for `Drained`.

    `servers`: servers, each with the name of its pool.  `bytes`: what live sessions have moved to
    upstream and to downstream, by pool and server.
    """

    number: int
    servers: tuple[tuple[str, ServerStatus], ...] = ()
    bytes: tuple[tuple[tuple[str, str], int, int], ...] = ()


@frozen
class Walked:
    """
    A part of what is seen for the `Walk` with this `number`.

    `listeners`: how many sessions each has.  `rates`: the bytes a second of servers.  `question`:
    the place of a question in the walk, from 0 on; of that one are `entries`, which are the next
    ones in its order, and `matching`, how many sessions more it means.
    """

    number: int
    listeners: tuple[tuple[str, int], ...] = ()
    rates: tuple[tuple[ServerKey, Rates], ...] = ()
    question: int | None = None
    entries: tuple[Entry, ...] = ()
    matching: int = 0


AT_THE_END = 0
"""The number of a measurement that nobody has asked for."""


@frozen
class Drained:
    """The worker has drained, and ends.  `numbers`: the last ones; ``None``: it never served."""

    numbers: Numbers | None
