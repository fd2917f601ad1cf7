"""
Answers of the admin interface as text for people: tables, and times and sizes in short.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from evproxy.escape import printable
from evproxy.upstream.pool.status import STATES

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_UNIT = 1024


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table: each column as wide as its widest cell."""
    lines = [list(head), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        yield "  ".join(cells).rstrip()


def size(count: int) -> str:
    """`count` bytes in the largest fitting unit: ``12 B``, ``1.5 MiB``."""
    number = float(count)
    for unit in _UNITS:
        if number < _UNIT or unit == _UNITS[-1]:
            break
        number /= _UNIT
    return f"{count} B" if unit == "B" else f"{number:.1f} {unit}"


def span(seconds: float | None) -> str:
    """A time in its two largest units: ``0.25 s``, ``3 min 20 s``, ``2 d 4 h``."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.3g} s" if seconds else "0 s"
    whole = int(seconds)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    for high, unit, low, below in (
        (days, "d", hour, "h"),
        (hours, "h", minute, "min"),
        (minutes, "min", second, "s"),
    ):
        if high:
            return f"{high} {unit} {low} {below}" if low else f"{high} {unit}"
    return f"{whole} s"


def status_lines(status: Mapping[str, Any]) -> Iterator[str]:
    """The state of a proxy."""
    yield (
        f"evproxy {status['version']}, process {status['pid']}, is {status['state']}, with "
        f"{status['sessions']} of at most {status['max_sessions']} sessions"
    )
    yield ""
    yield from table(
        ("LISTENER", "ADDRESS", "REFUSED"),
        (
            (each["name"], each["address"] or "-", str(sum(each["refused"].values())))
            for each in status["listeners"]
        ),
    )
    yield ""
    yield from table(
        ("POOL", *map(str.upper, STATES), "SESSIONS", "WAITING"),
        (
            (
                each["name"],
                *(str(each["servers"][state]) for state in STATES),
                str(each["sessions"]),
                str(each["waiting"]),
            )
            for each in status["pools"]
        ),
    )
    if status["certificates"]:
        yield ""
        yield from table(
            ("CERTIFICATE", "FOR", "DAYS LEFT"),
            (
                (each["path"], ", ".join(each["names"]), f"{each['days_left']:.0f}")
                for each in status["certificates"]
            ),
        )


def server_lines(servers: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Upstream servers."""
    yield from table(
        ("SERVER", "STATE", "FOR", "WEIGHT", "SESSIONS", "FAILURES", "WHY"),
        (
            (
                f"{each['pool']}/{each['name']}",
                each["state"],
                span(each["for"]),
                f"{each['weight']:g}",
                str(each["sessions"]),
                str(each["connect_failures"]),
                each["why"],
            )
            for each in servers
        ),
    )


def session_lines(sessions: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Sessions."""
    yield from table(
        ("ID", "CLIENT", "SERVER", "PHASE", "FOR", "TO SERVER", "TO CLIENT", "LISTENER"),
        (
            (
                str(each["id"]),
                each["peer"] or "-",
                f"{each['pool']}/{each['server']}" if each["server"] else each["pool"] or "-",
                each["phase"],
                span(each["duration"]),
                size(each["bytes_to_upstream"]),
                size(each["bytes_to_downstream"]),
                each["listener"],
            )
            for each in sessions
        ),
    )


def fields(thing: Mapping[str, Any]) -> Iterator[str]:
    """One thing, a field in each line."""
    width = max(map(len, thing))
    for name, value in thing.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        yield f"{name.ljust(width)}  {printable(shown) if value is not None else '-'}".rstrip()
