"""
The commands of ``evproxy ctl``: each asks the admin interface, and shows the answer.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from evproxy.cli.ctl.client import AdminClient, Failed
from evproxy.cli.ctl.tables import fields, server_lines, session_lines, status_lines

GOOD = 0
FAILED = 1
"""The exit status if evproxy refuses a request, or a condition is not met in time."""

LONGEST_RELOAD = 60.0
"""Seconds that a reload may take longer than other requests."""

Options = argparse.Namespace
Run = Callable[[AdminClient, Options], int]


def show(options: Options, answer: Any, lines: Iterable[str]) -> int:
    """Print `answer` as JSON if the user wants that, else `lines`."""
    if options.json:
        print(json.dumps(answer, indent=1))
    else:
        for line in lines:
            print(line)
    return GOOD


def _show_list(options: Options, items: Iterator[Any], lines: Callable[[Any], Any]) -> int:
    found = list(items)
    return show(options, found, lines(found))


def _split(server: str) -> tuple[str, str]:
    pool, slash, name = server.partition("/")
    if not slash or not pool or not name:
        raise Failed(f"{server!r}: expected POOL/SERVER, such as web/10.0.0.1:80")
    return pool, name


def _place(server: str) -> tuple[str, ...]:
    pool, name = _split(server)
    return "pools", pool, "servers", name


def status(client: AdminClient, options: Options) -> int:
    answer = client.get("status")
    return show(options, answer, status_lines(answer))


def sessions(client: AdminClient, options: Options) -> int:
    pool, server = _split(options.server) if options.server else (options.pool, "")
    found = client.pages(
        "sessions",
        "sessions",
        "after",
        options.limit,
        listener=options.listener,
        pool=pool,
        server=server,
        peer=options.peer,
        phase=options.phase,
        longer_than=options.longer_than or None,
    )
    return _show_list(options, found, session_lines)


def session(client: AdminClient, options: Options) -> int:
    answer = client.get("sessions", str(options.id))
    return show(options, answer, fields(answer))


def servers(client: AdminClient, options: Options) -> int:
    found = client.pages(
        "servers", "servers", "offset", options.limit, pool=options.pool, state=options.state
    )
    return _show_list(options, found, server_lines)


def server(client: AdminClient, options: Options) -> int:
    answer = client.get(*_place(options.server))
    return show(options, answer, fields(answer))


def settings(client: AdminClient, options: Options) -> int:
    answer = client.get("settings")
    return show(options, answer, [json.dumps(answer, indent=1)])


def metrics(client: AdminClient, options: Options) -> int:
    print(client.get_bytes("metrics", scope=options.scope).decode(), end="")
    return GOOD


def add(client: AdminClient, options: Options) -> int:
    pool, endpoint = _split(options.server)
    answer = client.post(
        "pools",
        pool,
        "servers",
        endpoint=endpoint,
        weight=options.weight,
        backup=options.backup,
        max_sessions=options.max_sessions,
        priority=options.priority,
        tags=options.tag,
    )
    return show(options, answer, server_lines([answer]))


def _change(verb: str) -> Run:
    def run(client: AdminClient, options: Options) -> int:
        answer = client.post(*_place(options.server), verb)
        return show(options, answer, server_lines([answer]))

    return run


drain, resume = _change("drain"), _change("resume")


def weigh(client: AdminClient, options: Options) -> int:
    answer = client.post(*_place(options.server), "weight", weight=options.weight)
    return show(options, answer, server_lines([answer]))


def remove(client: AdminClient, options: Options) -> int:
    answer = client.post(*_place(options.server), "remove")
    left = answer["sessions"]
    return show(options, answer, [f"removed {options.server}; {_sessions(left)} go on"])


def end(client: AdminClient, options: Options) -> int:
    answer = client.post("sessions", str(options.id), "end")
    return show(options, answer, [f"ended session {options.id}"])


def end_all(client: AdminClient, options: Options) -> int:
    answer = client.post(*_place(options.server), "end", over=options.over)
    when = f"within {options.over:g} s" if options.over else "now"
    line = f"{_sessions(answer['sessions'])} of {options.server} end {when}"
    return show(options, answer, [line])


def drain_all(client: AdminClient, options: Options) -> int:
    body: dict[str, Any] = {}
    if options.forever or options.deadline is not None:
        body["deadline"] = None if options.forever else options.deadline
    answer = client.post("drain", **body)
    line = f"evproxy is {answer['state']}; {_sessions(answer['sessions'])} left"
    return show(options, answer, [line])


def reload(client: AdminClient, options: Options) -> int:
    answer = client.post("reload", longer=LONGEST_RELOAD)
    changes = answer["changes"]
    return show(options, answer, changes or ["nothing has changed"])


def wait(client: AdminClient, options: Options) -> int:
    pool, name = _split(options.server) if options.server else ("", "")
    answer = client.get(
        "wait",
        longer=options.timeout,
        until=options.condition,
        pool=pool,
        server=name,
        timeout=options.timeout,
    )
    what = f"{options.condition}{f' of {options.server}' if options.server else ''}"
    said = "is met" if answer["met"] else "is not met"
    show(options, answer, [f"{what} {said} after {answer['waited']:g} s"])
    return GOOD if answer["met"] else FAILED


def _sessions(number: int) -> str:
    return f"{number} session{'' if number == 1 else 's'}"
