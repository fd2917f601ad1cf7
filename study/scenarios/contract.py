"""The form of a scenario, and how much of it one run does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from attrs import frozen

from ..batch.databases import Databases
from ..catalogue import Model
from ..results import Row


@frozen
class Plan:
    """
    How much is measured.

    `idle`: numbers of idle connections, ascending.  `rates`: requests a second, ascending.
    `seconds`: how long each load lasts.  `most`: the most connections that the open-file limit
    allows.  `processes`: the most connections to a model that has a process for each.
    `databases`: of the batch job.
    """

    idle: Sequence[int]
    rates: Sequence[int]
    seconds: float
    most: int
    processes: int
    databases: int


FULL = Plan((100, 1000, 5000), (100, 500, 1000, 2000), 0.8, 5000, 1000, 24)
QUICK = Plan((300,), (200, 1000), 0.3, 300, 300, 10)


@frozen
class Bench:
    """
    What every scenario needs.

    `upstream`: the port of the upstream server.  `databases`: those of the batch job, which are
    started by the first call.
    """

    plan: Plan
    upstream: int
    databases: Callable[[], Databases]


@frozen
class Measure:
    """
    One number of a scenario.

    `key`: in results.  `title`, `unit`: in reports.  `plotted`: whether it has a plot.
    `log`: whether its axis is logarithmic.
    """

    key: str
    title: str
    unit: str
    plotted: bool = True
    log: bool = False


Run: TypeAlias = "Callable[[Bench, Model], Iterable[Row]]"


@frozen
class Scenario:
    """
    Something that happens to a server.

    `name`: on the command line.  `title`, `question`: in reports.  `prediction`: the law from
    which the numbers are predicted, in words.  `lesson`: what to look at in the numbers.
    `setting`: what is varied, empty if nothing is.  `participants`: who takes part;
    empty: the models.  `needs_hook`: only what can run the hook takes part.
    """

    name: str
    title: str
    question: str
    prediction: str
    lesson: str
    measures: Sequence[Measure]
    run: Run
    setting: str = ""
    participants: Sequence[Model] = ()
    needs_hook: bool = False
