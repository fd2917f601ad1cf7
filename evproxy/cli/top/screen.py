"""
What ``evproxy top`` shows: one look at a proxy, as lines of a terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field, frozen
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from evproxy.cli.top.amounts import age, bars, rate, size, took
from evproxy.escape import printable
from evproxy.upstream.pool.status import STATES

KEYS = (
    ("q", "quit"),
    ("/", "filter"),
    ("p", "pause"),
    ("r", "rate"),
    ("b", "bytes"),
    ("a", "age"),
    ("n", "new"),
    ("c", "client"),
    ("s", "server"),
    ("R", "back"),
)
"""The keys, and what they do: the last seven sort."""

STYLES = dict(zip(STATES, ("green", "bold red", "yellow", "magenta"), strict=True))

HEAD = "reverse"

LINES_BESIDE = 7
"""The lines that are no row of a table: four on top, the two titles, and the keys."""


@frozen
class Column:
    """
    A column of a table.

    `width`: in characters; 0: what is left.  `from_width`: it is shown on terminals that are at
    least so wide.  `sort`: the order that its title stands for.
    """

    title: str
    get: Callable[[Any], str]
    width: int = 0
    right: bool = False
    from_width: int = 0
    sort: str = ""


SERVERS = (
    Column("STATE", lambda each: each["state"], 8),
    Column("POOL", lambda each: each["pool"], 9),
    Column("SERVER", lambda each: each["name"], 20),
    Column("SESS", lambda each: str(each["sessions"]), 5, True),
    Column("RATE", lambda each: _both(each), 10, True),
    Column("CONN", lambda each: took(each["connect_time"] or None), 7, True, 100),
    Column("WEIGHT", lambda each: f"{each['weight']:g}", 6, True, 100),
    Column("FAILED", lambda each: str(each["connect_failures"]), 6, True, 100),
    Column("SINCE", lambda each: age(each["for"]), 7, True, 100),
    Column("WHY", lambda each: each["why"]),
)

SESSIONS = (
    Column("ID", lambda each: str(each["id"]), 7, True, sort="id"),
    Column("CLIENT", lambda each: each["peer"] or "unix", 21, sort="peer"),
    Column("SERVER", lambda each: each["server"] or each["phase"], sort="server"),
    Column("POOL", lambda each: each["pool"], 10, from_width=100),
    Column("ROUTE", lambda each: each["route"] or each["listener"], 20, from_width=120),
    Column("PHASE", lambda each: each["phase"], 10, from_width=150),
    Column("AGE", lambda each: age(each["duration"]), 7, True, sort="age"),
    Column("UP", lambda each: size(each["bytes_to_upstream"]), 8, True, 100),
    Column("DOWN", lambda each: size(each["bytes_to_downstream"]), 8, True, 100),
    Column(
        "BYTES",
        lambda each: size(each["bytes_to_upstream"] + each["bytes_to_downstream"]),
        8,
        True,
        sort="bytes",
    ),
    Column("RATE", lambda each: _both(each), 10, True, sort="rate"),
)


def _both(each: Any) -> str:
    return rate(each["rate_to_upstream"] + each["rate_to_downstream"])


@define
class View:
    """
    What the user looks at.

    `samples`: the history.  `look`: the last look; ``None``: there is none yet.  `sort`, `reverse`
    and `filter` are the question; `typed`: a filter that is being typed; ``None``: none is.
    `trouble`: why there is no new look; empty: there is one.
    """

    sort: str = "rate"
    reverse: bool = False
    filter: str = ""
    typed: str | None = None
    paused: bool = False
    trouble: str = ""
    look: Any = None
    samples: list[list[Any]] = field(factory=list)


def screen(view: View, width: int, height: int) -> RenderableType:
    """The view as `height` lines of `width` characters."""
    parts: list[RenderableType] = [*_top(view, width)]
    if view.look is None:
        parts += [Text("")] * (height - len(parts) - 1)
    else:
        servers, sessions = view.look["servers"], view.look["sessions"]
        rows = max(0, height - LINES_BESIDE)
        # Servers get a third, and what sessions do not need.
        most = min(len(servers), max(rows // 3, rows - len(sessions)))
        parts.append(_table(SERVERS, servers[:most], width, view))
        parts.append(_table(SESSIONS, sessions[: rows - most], width, view))
        parts += [Text("")] * (rows - most - len(sessions[: rows - most]))
    parts.append(_bottom(view, width))
    return Group(*parts)


def report(view: View, width: int) -> RenderableType:
    """The view as a whole, for a printer or a file."""
    look = view.look
    return Group(
        *_top(view, width),
        _table(SERVERS, look["servers"], width, view),
        Text(""),
        _table(SESSIONS, look["sessions"], width, view),
    )


def _top(view: View, width: int) -> list[Text]:
    look = view.look
    if look is None:
        waiting = view.trouble or "waiting for the first look"
        return [_line(waiting, width, "bold red" if view.trouble else "")]
    sample = look["sample"]
    half = max(0, width // 2 - 1)
    state = look["state"]
    first = Text.assemble(
        ("evproxy ", "bold"),
        f"{look['version']}, process {look['pid']}, ",
        (state, STYLES["up" if state == "running" else "draining"]),
        f", {look['sessions_total']} of {look['max_sessions']} sessions, ",
        f"{sample[2]:.4g} new/s",
        *_workers(look),
    )
    plots = (
        [each[3] + each[4] for each in view.samples],
        [each[1] for each in view.samples],
    )
    titles = (
        f"down {rate(sample[4])}, up {rate(sample[3])}",
        f"connect {took(_last(view.samples, 5))}, loop lag {took(sample[7], 'off')}",
    )
    pools = Text.assemble(
        "pools ",
        *(part for pool in look["pools"] for part in _pool(pool)),
    )
    lines = [
        first,
        Text("  ").join(_line(title, half) for title in titles),
        Text("  ").join(Text(bars(values, half), "cyan") for values in plots),
        pools,
    ]
    for line in lines:
        _fit(line, width)
    return lines


def _workers(look: Any) -> list[Any]:
    """How many workers there are, and which of them have not answered."""
    workers = look.get("workers", ())
    if not workers:
        return []
    parts: list[Any] = [f", {len(workers)} workers"]
    silent = [str(each["number"]) for each in workers if not each["answered"]]
    if silent and look["state"] == "running":
        parts.append((f", no answer from worker {', '.join(silent)}", "bold red"))
    return parts


def _pool(pool: Any) -> list[Any]:
    states = [
        (f"{count} {state}", STYLES[state]) for state, count in pool["servers"].items() if count
    ]
    parts: list[Any] = [(printable(pool["name"]), "bold"), " "]
    for number, state in enumerate(states):
        parts += [", " if number else "", state]
    waiting = f", {pool['waiting']} waiting" if pool["waiting"] else ""
    return [*parts, f"{waiting}   "]


def _last(samples: list[list[Any]], column: int) -> float | None:
    return next((each[column] for each in reversed(samples) if each[column] is not None), None)


def _table(columns: Sequence[Column], rows: Sequence[Any], width: int, view: View) -> Table:
    shown = [each for each in columns if width >= each.from_width]
    fixed = sum(each.width + 1 for each in shown)
    # One column takes what is left.
    rest = max(8, width - fixed)
    table = Table(
        box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style=HEAD, width=width, expand=True
    )
    for each in shown:
        title = each.title
        if each.sort and each.sort == view.sort:
            title = f"{title}{'^' if view.reverse else '*'}"
        table.add_column(
            title,
            width=each.width or rest,
            justify="right" if each.right else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in rows:
        cells = [Text(printable(each.get(row))) for each in shown]
        if "state" in row:
            cells[0].stylize(STYLES.get(row["state"], ""))
        table.add_row(*cells)
    return table


def _bottom(view: View, width: int) -> Text:
    if view.typed is not None:
        return _line(f"filter: {view.typed}_", width, "bold")
    if view.trouble and view.look is not None:
        return _line(view.trouble, width, "bold red")
    notes = []
    if view.paused:
        notes.append("PAUSED")
    if view.filter:
        shown = view.look["matching"] if view.look else 0
        notes.append(f"[{view.filter}] {shown} sessions")
    line = Text("  ".join([*notes, ""]), "bold")
    for key, meaning in KEYS:
        line.append(key, "bold reverse").append(f" {meaning} ", "not bold")
    return _fit(line, width, True)


def _line(text: str, width: int, style: str = "") -> Text:
    return _fit(Text(printable(text), style), width, True)


def _fit(line: Text, width: int, pad: bool = False) -> Text:
    line.truncate(width, overflow="ellipsis", pad=pad)
    line.no_wrap = True
    return line
